"""A table of numbers and words: what of a file's columns is used, its halves, and its vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.table_columns import choose_label, find, is_row_number, read_labels, refuse_label_among, shown
from utils import files
from utils.errors import UserError

Ranges = dict[str, list]  # of a column of numbers the smallest and the largest, of one of words all of them


@dataclass(frozen=True)
class Table:
    """A table, labelled or not."""

    features: pd.DataFrame  # (N, P + Q): P float64 columns, finite, then Q categorical columns of words
    anomaly: np.ndarray  # (N,) bool; all False without labels
    header: bool = False  # whether the file names its columns; otherwise they are called by their position, from 1
    label: str = ""  # the column that ``anomaly`` is made of; none without labels
    left_out: dict[str, list[str]] = field(default_factory=dict)  # names of other columns of the file, by the reason
    keys: pd.DataFrame = field(default_factory=pd.DataFrame)  # of these the columns that tell rows apart

    @property
    def labelled(self) -> bool:
        return bool(self.anomaly.any())

    def __len__(self) -> int:
        return len(self.anomaly)

    def describe(self) -> str:
        """What is used of the file, in a line."""
        left_out = "".join(f"; left out: {shown(names)} ({why})" for why, names in self.left_out.items() if names)
        header = "columns by the names in line 1" if self.header else "no line of names, columns by position"
        names = list(map(str, self.features))
        return f"{header}; label: {self.label or 'none'}; {len(names)} features: {shown(names)}{left_out}"

    @property
    def numbers(self) -> pd.DataFrame:
        return self.features.select_dtypes("number")

    @property
    def words(self) -> pd.DataFrame:
        return self.features.select_dtypes("category")

    def rows(self, index: np.ndarray) -> "Table":
        keys = self.keys.iloc[index] if len(self.keys) else self.keys
        return replace(self, features=self.features.iloc[index], anomaly=self.anomaly[index], keys=keys)

    def fingerprint(self) -> str:
        """Twelve letters that change with the data: runs on an older version of a file are not counted."""
        words = [column.cat for _, column in self.words.items()]
        levels = [column.categories.tolist() for column in words]
        codes = np.array([column.codes for column in words], dtype=np.int32).T
        parts = repr(levels).encode(), self.numbers.to_numpy().tobytes(), codes.tobytes(), self.anomaly.tobytes()
        return files.fingerprint(b"".join(parts))


def as_table(
    frame: pd.DataFrame,
    header: bool,
    path: Path,
    label: str | None = None,
    ignore: Sequence[str] = (),
    published: bool = False,
) -> Table:
    """The table of a file's columns. Of a ``published`` one all but the label are features; see ``tabular.load``."""
    ignored = [find(frame, name, "--ignore", path) for name in ignore]
    label = choose_label(frame, label, ignored, path)
    if label in ignored:
        raise UserError(f"--ignore {label}: this column is the label: choose another one with --label COLUMN")
    anomaly = read_labels(frame[label], path) if label else np.zeros(len(frame), dtype=bool)
    features = frame.drop(columns=[label, *ignored] if label else ignored)
    numbers: list[str] = []
    if not published:
        numbers = [name for name in map(str, features) if is_row_number(features[name], name == frame.columns[0])]
        features = features.drop(columns=numbers)
        refuse_label_among(features, label, anomaly, path)
    if label and (anomaly.all() or not anomaly.any()):
        found = f"anomaly ratio {'1: every' if anomaly.any() else '0: no'} row is labelled as an anomaly"
        raise UserError(f"{path}: {found}, but F1 needs both kinds; check the labels, or go on with --label none")
    features = pd.concat([features.select_dtypes("number"), features.select_dtypes("category")], axis=1)
    left_out = {"tells rows apart": numbers, "--ignore": ignored}
    return Table(features, anomaly, header, label, left_out, frame[numbers])


def ranges(table: Table) -> Ranges:
    """All that a ``Scaler`` takes from a table."""
    numbers = {str(name): [float(column.min()), float(column.max())] for name, column in table.numbers.items()}
    return numbers | {str(name): sorted(map(str, column.unique())) for name, column in table.words.items()}


def from_ranges(known: Ranges) -> Table:
    """A table with these ranges."""
    length = max(map(len, known.values()))
    columns = {name: (values * length)[:length] for name, values in known.items()}
    kinds = {name: "category" if isinstance(values[0], str) else "float64" for name, values in known.items()}
    return Table(pd.DataFrame(columns).astype(kinds), np.zeros(length, dtype=bool))


def without_constants(table: Table, source: str, drop_constant: bool) -> Table:
    """The table without its constant columns. Raises UserError where there are some, unless asked to drop them."""
    numbers = table.numbers
    constant = [name for name in map(str, numbers) if np.ptp(numbers[name]) == 0]
    if constant and not drop_constant:
        found = f"column {constant[0]} is constant ({numbers[constant[0]].iloc[0]:g} in every row)"
        more = f", and {len(constant) - 1} more" if len(constant) > 1 else ""
        raise UserError(f"{source}: {found}{more}: remove it, or go on without it with --drop-constant")
    features = table.features.drop(columns=constant)
    table = replace(table, features=features, left_out=table.left_out | {"constant": constant})
    if features.empty:
        raise UserError(f"{source}: no column varies, so there is nothing to learn from ({table.describe()})")
    return table


def halves(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a random training and test half (RaDOGAGA, section 5.3); UserError where one lacks either kind.

    Without labels nothing is to be measured: all rows, twice.
    """
    if not table.labelled:
        return np.arange(len(table)), np.arange(len(table))
    order = np.random.default_rng(seed).permutation(len(table))
    test, train = np.split(order, [len(order) // 2])
    if not table.anomaly[test].any() or table.anomaly[test].all() or table.anomaly[train].all():
        raise UserError(
            f"seed {seed}: of {len(table)} rows, {int(table.anomaly.sum())} of them anomalies, a random half lacks "
            "normal rows or anomalies: give more rows"
        )
    return train, test


class Scaler:
    """Turns rows of a table into vectors: max-min normalised numbers, then one-hot words, as in the fitted rows.

    A column of numbers that is constant there becomes 0; a word that does not occur there, zeros in its block.
    """

    def __init__(self, table: Table):
        from sklearn.preprocessing import MinMaxScaler, OneHotEncoder  # slow to import: not for --help

        numbers = table.numbers.to_numpy()
        self.minmax = MinMaxScaler().fit(numbers) if numbers.shape[1] else None
        self.onehot = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32).fit(table.words)

    def __call__(self, table: Table) -> Tensor:
        """``(N, D)`` float32; in [0, 1] for the rows that were fitted."""
        blocks = [self.onehot.transform(table.words)] if table.words.shape[1] else []
        if self.minmax is not None:
            scaled = self.minmax.transform(table.numbers.to_numpy())
            scaled[:, self.minmax.data_range_ == 0] = 0
            blocks.insert(0, scaled.astype(np.float32))
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks, axis=1)))
