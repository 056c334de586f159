"""Tables of numbers and words: files as the archives ship them, read into data frames."""

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse

from data import unpacking
from data.table_columns import is_header, is_missing, is_number, shown
from utils.errors import UserError

SUFFIXES = (".csv", ".txt", ".data", ".gz", ".npz", ".mat")
OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # between columns
LARGEST = 1e150  # of a value: the squares of larger ones overflow in a variance
HEAD = 100  # rows that tell a header from values
# Before pandas 3 a fast parser, wrong in the last digit, is the default; since then this argument is deprecated.
EXACT: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}


def read_frame(path: Path, unchecked: Sequence[str] = (), header: bool | None = None) -> tuple[pd.DataFrame, bool]:
    """The columns of a file, and whether its first row names them (``header`` None: by its looks).

    - ``.npz`` and ``.mat``: arrays ``X`` ``(N, P)``, dense or sparse, and ``y`` ``(N,)`` (the layout of ODDS), as
      columns 1 to P and, if it is there, y.
    - ``.csv``, ``.txt``, ``.data``, also gzipped: comma-separated, named by the header, a nameless column
      ``Unnamed: k`` (k from 0, as pandas does), or by their position from 1 where there is none.

    Columns are float64, all finite, where the first value is a number; categories of words elsewhere and where
    ``unchecked`` names them. One without any value is left out, which is printed. Raises UserError for a value that is
    not finite, missing or unreadable, by line (of arrays by row) and column, from 1, unless it is ``unchecked``, and
    for rows of other lengths.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise UserError(f"{path}: expected a file ({', '.join(SUFFIXES)}), found {found}")
    try:
        if path.suffix.lower() == ".gz":
            unpacking.check(path)
        if path.suffix.lower() in (".npz", ".mat"):
            return read_arrays(path), False
        return read_text(path, unchecked, header)
    except (UserError, MemoryError):
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8, or damaged ({error}): save it as UTF-8") from error
    except Exception as error:
        raise damaged(path, error) from error


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` or ``.mat`` file by their names, sparse ones made dense; of ``.npy``, X."""
    try:
        unpacking.check(path)
        if path.suffix.lower() == ".mat":
            arrays = scipy.io.loadmat(path)
        elif path.suffix.lower() == ".npy":
            arrays = {"X": np.load(path, allow_pickle=False)}
        else:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
    except NotImplementedError as error:
        raise UserError(f"{path}: a MATLAB 7.3 file; save it again with save('-v7')") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path, error) from error
    named = {name: array for name, array in arrays.items() if not name.startswith("__")}
    return {name: a.toarray() if scipy.sparse.issparse(a) else np.asarray(a) for name, a in named.items()}


def damaged(path: Path, error: Exception) -> UserError:
    """A file can be damaged anywhere in its compression, its headers or its content."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be read as {path.suffix}, or is damaged ({reason}): get it again")


def read_arrays(path: Path) -> pd.DataFrame:
    arrays = read_archive(path)
    if "X" not in arrays:
        raise UserError(f"{path}: expected arrays X (rows × columns) and y (labels, if any), found {', '.join(arrays)}")
    values = arrays["X"]
    if values.ndim != 2 or not is_numeric(values):
        raise UserError(f"{path}: expected X as a matrix of numbers, found {values.dtype} of shape {values.shape}")
    if "y" not in arrays:
        return as_frame(values, path)
    labels = as_labels(arrays["y"])
    if len(labels) != len(values):
        raise UserError(f"{path}: X has {len(values)} rows but y has {len(labels)} labels; every row needs one")
    return as_frame(values, path).assign(y=labels)


def as_labels(array: np.ndarray) -> np.ndarray:
    """Labels ``(N,)``: numbers, or words, which MATLAB keeps in a cell array."""
    labels = array.ravel()
    return labels if labels.dtype != object else np.array([str(np.squeeze(label)) for label in labels])


def is_numeric(array: np.ndarray) -> bool:
    """Whether an array holds real numbers; of true and false too."""
    return array.dtype.kind in "biuf"


def as_frame(values: np.ndarray, path: Path) -> pd.DataFrame:
    """A matrix as columns 1 to P, float64. Raises UserError for a value that is not finite, by row and column."""
    values = values.astype(np.float64)
    wrong = np.argwhere(~(abs(values.T) < LARGEST))
    if len(wrong):
        column, row = wrong[0]
        refuse_cell(path, f"row {row + 1}", str(column + 1), str(values[row, column]), sum(wrong[:, 0] == column))
    return pd.DataFrame(values, columns=[str(position + 1) for position in range(values.shape[1])])


def lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a comma-separated file with the number of their line; blank lines are passed over."""
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rt", newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        yield from ((reader.line_num, row) for row in reader if row not in ([], [""]))


def read_text(path: Path, unchecked: Sequence[str], header: bool | None) -> tuple[pd.DataFrame, bool]:
    try:
        head = list(islice(lines(path), HEAD))
        if len(head) < 2:
            raise UserError(f"{path}: expected at least two rows, found {len(head)}")
        width = len(head[0][1])
        if width < 2:
            found = next((what for sign, what in OTHER_SIGNS.items() if sign in "".join(head[0][1])), "one column")
            raise UserError(f"{path}: expected columns separated by commas, found {found}: save it with commas")
        refuse_width(head, path, width)
        header = is_header([row for _, row in head]) if header is None else header
        names = [name.strip().lower() if header else str(k + 1) for k, name in enumerate(head[0][1])]
        skipped = {name.strip().lower() for name in unchecked}
        words = [not is_number(cell) and not is_missing(cell) for cell in head[header][1]]
        frame = pd.read_csv(
            path,
            header=0 if header else None,
            dtype={position: "category" for position, word in enumerate(words) if word or names[position] in skipped},
            keep_default_na=False,  # as text: refused by its row
            skipinitialspace=True,
            low_memory=False,  # one type for a column
            encoding="utf-8-sig",
            **EXACT,
        )
    except pd.errors.ParserError as error:
        refuse_width(lines(path), path, width)
        raise UserError(f"{path}: not a comma-separated text file ({error})") from error
    if not header:
        frame.columns = [str(position + 1) for position in range(width)]
    columns, wrong = {}, {}
    for position, name in enumerate(frame.columns):
        if names[position] not in skipped and all(is_missing(str(value)) for value in frame[name].unique()):
            print(f"{path}: column {name} left out: it has no values")
        elif names[position] in skipped:
            columns[name] = frame[name].cat.rename_categories(str)
        else:
            columns[name], wrong[position] = checked(frame.iloc[:, position])
    if unusable := [position for position, rows in wrong.items() if rows.any()]:
        (position, *others), names = unusable, list(map(str, frame.columns))
        line, cells = next(islice(lines(path), int(header + wrong[position].argmax()), None))
        refuse_width([(line, cells)], path, width)
        more = [names[other] for other in others]
        refuse_cell(path, f"line {line}", names[position], cells[position], int(wrong[position].sum()), more)
    return pd.DataFrame(columns), header


def checked(column: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """A column as float64 or categories of words, and which of its values are missing or unreadable."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.rename_categories(str)  # pandas makes bools of True and False
        return column, column.isin([word for word in column.cat.categories if is_missing(word)]).to_numpy()
    if column.dtype.kind not in "iuf":
        column = pd.to_numeric(column.astype(str), errors="coerce")
    column = column.astype(np.float64)
    return column, ~(abs(column.to_numpy()) < LARGEST)


def refuse_cell(path: Path, place: str, column: str, cell: str, wrong: int, others: Sequence[str] = ()) -> NoReturn:
    """Raises UserError for a value that cannot be used, the first of ``wrong`` of its column; ``others`` have some."""
    where = f"{path}: {place}, column {column}"
    more = f", and {wrong - 1} more of this column" if wrong > 1 else ""
    more += f"; values that cannot be used also in {shown(others)}" if others else ""
    if is_missing(cell):
        raise UserError(f"{where}: the value is missing ({cell!r}){more}; fill such values in or remove their rows")
    if is_number(cell):
        raise UserError(f"{where} is {float(cell)}, expected a magnitude below {LARGEST:g}{more}; fill such values in")
    raise UserError(f"{where}: expected a number as in the column's first row, found {cell!r}{more}")


def refuse_width(rows: Iterable[tuple[int, list[str]]], path: Path, width: int) -> None:
    """Raises UserError for the first of the rows that has another number of values than the first of the file."""
    for line, row in rows:
        if len(row) != width:
            raise UserError(f"{path}: line {line} has {len(row)} values, the first has {width}: each needs the same")
