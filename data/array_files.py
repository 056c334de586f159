"""Arrays of numbers of one's own: which part of a file is the data, and which the labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from data.arrays import SUFFIXES
from data.table_columns import find, is_label_name, is_row_number, shown
from data.table_files import as_frame, as_labels, is_numeric, read_archive, read_frame
from utils.errors import UserError


@dataclass(frozen=True)
class Array:
    """What is used of a file."""

    values: np.ndarray  # (N, D), (N, H, W) or (N, C, H, W) float64, finite
    names: list[str]  # of the columns; of fields, the position of each value in its row, from 1
    labels: np.ndarray | None  # (N,) int64
    classes: list[str] | None  # the names of the labels


def read(path: Path, label: str | None = None, ignore: Sequence[str] = ()) -> Array:
    """What is used of a file, which is printed the first time.

    CSV: all columns of numbers but the label, row numbers and those in ``ignore``; the label is the column ``label``,
    or the one that is named so. ``.npy``, ``.npz``, ``.mat``: the array X, or the only one of rows, and labels y, or
    called ``label``. Raises UserError for a file that cannot be used.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none: give the path where it lies"
        raise UserError(f"{path}: expected a file ({', '.join(SUFFIXES)}), found {found}")
    status = path.stat()
    return read_once(path.absolute(), label, tuple(ignore), (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)  # a script loads the splits of one file
def read_once(path: Path, label: str | None, ignore: tuple[str, ...], status: tuple[int, int]) -> Array:
    """``read`` of a file as it is at this ``status``."""
    text = path.name.lower().endswith((".csv", ".csv.gz"))
    frame, labels, shape = text_columns(path, label, ignore) if text else archive_columns(path, label)
    ignored = [find(frame, name, "--ignore", path) for name in ignore]
    if ignored and len(shape) > 1:
        raise UserError(f"--ignore {ignored[0]}: leaves columns out, but {path} has fields of shape {shape}")
    features = frame.drop(columns=ignored)
    counts = [name for name in map(str, features) if text and is_row_number(features[name], name == frame.columns[0])]
    features = features.drop(columns=counts)
    for name in features.select_dtypes("category"):
        advice = f"leave it out with --ignore {name}, or say that it is the label with --label {name}"
        raise UserError(f"{path}: column {name} holds words such as {features[name].iloc[0]!r}, not numbers: {advice}")
    if features.empty:
        raise UserError(f"{path}: no column of numbers is left, of {shown(list(map(str, frame)))}")
    names, values = list(map(str, features)), features.to_numpy()
    codes, classes = (None, None) if labels is None else numbered(labels, path)
    constant = int((np.ptp(values, axis=0) == 0).sum())
    notes = [f"{path}: {len(values):,} rows of {'shape ' + str(shape) if len(shape) > 1 else f'{len(names)} columns'}"]
    notes += [f"columns {shown(names)}"] if text else []
    notes += [f"{constant} of {len(names)} values constant (every mean counts them)"] if constant else []
    notes += [f"left out {shown(counts)} (tells rows apart)"] if counts else []
    notes += [f"left out {shown(ignored)} (--ignore)"] if ignored else []
    notes += ["no labels" if labels is None else f"label {labels.name} ({len(classes or ())} classes)"]
    print("; ".join(notes))
    return Array(values.reshape(-1, *shape) if len(shape) > 1 else values, names, codes, classes)


def text_columns(
    path: Path, label: str | None, unchecked: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.Series | None, tuple[int, ...]]:
    """The columns of a CSV file without the label, the label, and the shape of a row."""
    frame, _ = read_frame(path, unchecked)
    named = [column for column in map(str, frame) if is_label_name(column) and is_class(frame[column])]
    if label is None and len(named) > 1:
        raise UserError(f"{path}: columns {' and '.join(named)} could each be the label: say which with --label COLUMN")
    column = find(frame, label, "--label", path) if label is not None else named[0] if named else None
    labels = None if column is None else frame[column]
    features = frame if column is None else frame.drop(columns=column)
    return features, labels, features.shape[1:]


def archive_columns(path: Path, label: str | None) -> tuple[pd.DataFrame, pd.Series | None, tuple[int, ...]]:
    """The same of arrays; fields as columns too."""
    arrays = read_archive(path)
    numbers = {name: a for name, a in arrays.items() if is_numeric(a) and 2 <= a.ndim <= 4}
    rows = {name: a for name, a in numbers.items() if len(a) > 1 and a.size > len(a)}
    name = "X" if "X" in rows else next(iter(rows)) if len(rows) == 1 else None
    if name is None:
        found = ", ".join(f"{key} {a.dtype} {a.shape}" for key, a in arrays.items())
        expected = "expected an array X of numbers, (N, D), (N, H, W) or (N, C, H, W), or only one such"
        raise UserError(f"{path}: {expected}; found {found or 'none'}")
    values, shape = rows[name], rows[name].shape[1:]
    given = arrays.get(label or "y")
    if label is not None and given is None:
        raise UserError(f"--label {label}: {path} has no such array, only {', '.join(arrays)}")
    labels = None if given is None else pd.Series(as_labels(given), name=label or "y")
    if labels is not None and len(labels) != len(values):
        raise UserError(f"{path}: {name} has {len(values)} rows but {labels.name} has {len(labels)} labels")
    if label is None and labels is not None and not is_class(labels):
        labels = None  # values to predict, not classes
    return as_frame(values.reshape(len(values), -1), path), labels, shape


def is_class(labels: pd.Series) -> bool:
    """Whether the values are classes: words, or whole numbers."""
    numbers = pd.api.types.is_numeric_dtype(labels)
    return not numbers or bool((labels == labels.round()).all())


def numbered(labels: pd.Series, path: Path) -> tuple[np.ndarray, list[str]]:
    """Labels as ``(N,)`` int64 and the sorted names of the classes. Raises UserError for what are none."""
    if not is_class(labels):
        raise UserError(f"{path}: label {labels.name}: expected words or whole numbers, found {labels.iloc[0]}")
    values, codes = np.unique(labels.to_numpy(), return_inverse=True)
    if not 2 <= len(values) <= len(labels) // 2:
        found = f"{len(values)} different values in {len(labels)} rows"
        raise UserError(f"{path}: label {labels.name}: expected from 2 classes to half as many as rows, found {found}")
    numbers = pd.api.types.is_numeric_dtype(labels)
    return codes.astype(np.int64), [f"{value:g}" if numbers else str(value) for value in values.tolist()]
