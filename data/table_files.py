"""Labelled tables of numbers and words, read from files as the archives ship them."""

import csv
import gzip
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.io

from utils.errors import UserError

SUFFIXES = (".csv", ".txt", ".data", ".gz", ".npz", ".mat")
LABEL_NAMES = {"label", "labels", "class", "y", "target", "anomaly", "outlier"}
MISSING = {"", "?", "na", "n/a", "null", "none"}
ROWS_AT_A_TIME = 20_000  # of a text file: Python strings need many times the memory of the numbers in them


@dataclass(frozen=True)
class Table:
    """A labelled table: columns of numbers, then columns of words.

    Attributes:
        numbers: ``(N, P)`` float64, finite.
        words: ``(N, Q)`` int32, each the position of a word among its column's ``levels``.
        levels: for each of the Q columns, its words in order.
        anomaly: ``(N,)`` bool.
        columns: P names, for messages.
    """

    numbers: np.ndarray
    words: np.ndarray
    levels: list[list[str]]
    anomaly: np.ndarray
    columns: list[str]

    def __len__(self) -> int:
        return len(self.anomaly)

    def rows(self, index: np.ndarray) -> "Table":
        """The table of these rows."""
        return Table(self.numbers[index], self.words[index], self.levels, self.anomaly[index], self.columns)


def read(path: Path) -> Table:
    """A labelled table from a file.

    - ``.npz`` and ``.mat``: arrays ``X`` ``(N, P)`` and ``y`` ``(N,)``, 1 for an anomaly (the layout of ODDS).
    - ``.csv``, ``.txt``, ``.data``, also gzipped: comma-separated. A first row of words above numbers is a header.
      The label is the column that the header calls so (label, class, y, ...), else the last: 0 or 1, true or false,
      or a word, of which "normal" is the only one that is not an anomaly. A column whose first cell is no number holds
      words.

    Raises:
        UserError: not such a file; NaN, infinity, a missing or unreadable value, named by row and column (from 1, as
            an editor counts lines); rows of different lengths; no labels.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: expected a file ({', '.join(SUFFIXES)}), found {'a folder' if path.is_dir() else 'none'}"
        )
    if path.suffix.lower() in (".npz", ".mat"):
        return read_arrays(path)
    return read_text(path)


def read_arrays(path: Path) -> Table:
    """``X`` and ``y`` of an .npz or .mat file; see ``read``."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
        else:
            arrays = scipy.io.loadmat(path)
    except NotImplementedError as error:
        raise UserError(f"{path}: a MATLAB 7.3 file; save it again with save('-v7')") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, scipy.io.matlab.MatReadError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix} ({error}): download it again") from error
    names = [name for name in arrays if not name.startswith("__")]
    if "X" not in arrays or "y" not in arrays:
        lacking = "no labels: " if "X" in arrays else ""
        raise UserError(f"{path}: {lacking}expected arrays X (rows × columns) and y (labels), found {', '.join(names)}")
    values, labels = arrays["X"], np.asarray(arrays["y"]).ravel()
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise UserError(f"{path}: expected X as a matrix of numbers, found {values.dtype} of shape {values.shape}")
    if len(labels) != len(values):
        raise UserError(f"{path}: X has {len(values)} rows but y has {len(labels)} labels; every row needs one")
    columns = [str(position + 1) for position in range(values.shape[1])]
    values = np.ascontiguousarray(values, dtype=np.float64)
    for column, name in zip(values.T, columns, strict=True):
        require_finite(column, range(1, len(column) + 1), path, name)
    anomaly = read_labels(labels, path, "y")
    return Table(values, np.empty((len(values), 0), np.int32), [], anomaly, columns)


def read_text(path: Path) -> Table:
    """A comma-separated file, gzipped or not; see ``read``."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as stream:
            return parse(numbered(csv.reader(stream, skipinitialspace=True)), path)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
        raise UserError(f"{path}: not a comma-separated text file, or a damaged one ({error})") from error


def numbered(reader) -> Iterator[tuple[int, list[str]]]:
    """The rows of a ``csv.reader`` with the number of their line; blank lines are passed over."""
    return ((reader.line_num, row) for row in reader if row)


def parse(lines: Iterator[tuple[int, list[str]]], path: Path) -> Table:
    """The table of the cells of each line, with the line's number."""
    top = list(islice(lines, 2))
    if len(top) < 2:
        raise UserError(f"{path}: expected at least two rows, found {len(top)}")
    (_, names), (_, second) = top
    width = len(names)
    if width < 2:
        raise UserError(
            f"{path}: no labels: expected values and a label in every row, separated by commas, found one column"
        )
    header = not any(map(is_number, names)) and any(map(is_number, second))
    words = [not is_number(cell) and not is_missing(cell) for cell in (second if header else names)]
    names = [name.strip() for name in names] if header else [str(position + 1) for position in range(width)]
    named = [position for position, name in enumerate(names) if name.lower() in LABEL_NAMES]
    label = named[0] if named else width - 1

    columns: list[list[np.ndarray]] = [[] for _ in range(width)]
    chunk = top[1:] if header else top
    while chunk:
        for line, row in chunk:
            if len(row) != width:
                raise UserError(
                    f"{path}: row {line} has {len(row)} values, the first row has {width}: each needs the same"
                )
        numbers = [line for line, _ in chunk]
        for position, cells in enumerate(zip(*(row for _, row in chunk), strict=True)):
            as_words = words[position] or position == label
            convert = to_words if as_words else to_numbers
            columns[position].append(convert(cells, numbers, path, names[position]))
        chunk = list(islice(lines, ROWS_AT_A_TIME))

    joined = [np.concatenate(parts) for parts in columns]
    anomaly = read_labels(joined[label], path, names[label])
    numeric = [position for position in range(width) if not words[position] and position != label]
    worded = [position for position in range(width) if words[position] and position != label]
    coded = [np.unique(joined[position], return_inverse=True) for position in worded]
    return Table(
        np.stack([joined[position] for position in numeric], axis=1) if numeric else np.empty((len(anomaly), 0)),
        np.stack([codes for _, codes in coded], axis=1).astype(np.int32)
        if coded
        else np.empty((len(anomaly), 0), np.int32),
        [levels.tolist() for levels, _ in coded],
        anomaly,
        [names[position] for position in numeric],
    )


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number; NaN and infinity do, so that they are reported where they stand."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def to_words(cells: Sequence[str], lines: Sequence[int], path: Path, column: str) -> np.ndarray:
    """``(rows,)`` of strings. Raises UserError for the first cell that says nothing."""
    for line, cell in zip(lines, cells, strict=True):
        if is_missing(cell):
            raise UserError(
                f"{path}: row {line}, column {column}: the value is missing ({cell!r}); fill it in or remove the row"
            )
    return np.array(cells)


def to_numbers(cells: Sequence[str], lines: Sequence[int], path: Path, column: str) -> np.ndarray:
    """``(rows,)`` float64. Raises UserError for the first cell that is no finite number."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        to_words(cells, lines, path, column)
        line, cell = next((line, cell) for line, cell in zip(lines, cells, strict=True) if not is_number(cell))
        raise UserError(
            f"{path}: row {line}, column {column}: expected a number as in the column's first row, found {cell!r}"
        ) from None
    require_finite(values, lines, path, column)
    return values


def require_finite(values: np.ndarray, lines: Sequence[int], path: Path, column: str) -> None:
    """Raises UserError for the first NaN or infinity of a column."""
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        more = f", and {len(wrong) - 1} more of this column" if len(wrong) > 1 else ""
        raise UserError(
            f"{path}: row {lines[wrong[0]]}, column {column} is {values[wrong[0]]}{more}; fill such values in"
        )


def read_labels(labels: np.ndarray, path: Path, column: str) -> np.ndarray:
    """``(N,)`` bool, True for an anomaly. Raises UserError for what are no labels."""
    found = np.unique(labels)
    if all(is_number(str(value)) for value in found):
        if set(np.float64(found)) <= {0.0, 1.0}:
            return labels.astype(np.float64) == 1
    else:
        words = np.char.rstrip(np.char.lower(np.char.strip(found.astype(str))), ".")
        if "normal" in words:
            return ~np.isin(labels, found[words == "normal"])
        if set(words) <= {"true", "false"}:  # as pandas writes them
            return np.isin(labels, found[words == "true"])
    shown = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
    raise UserError(
        f"{path}: no labels: expected 0 and 1, true and false, or 'normal' and other words, in column {column}, "
        f"found {len(found)} values: {shown}"
    )
