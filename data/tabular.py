"""Vectors: tables of numbers and words with an anomaly label, as the archives ship them, and toy data of known density."""

import csv
import gzip
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torch import Tensor

from utils.errors import UserError

SUFFIXES = (".csv", ".txt", ".data", ".gz", ".npz", ".mat")
LABEL_NAMES = {"label", "labels", "class", "y", "target", "anomaly", "outlier"}
MISSING = {"", "?", "na", "n/a", "null", "none"}
ROWS_AT_A_TIME = 20_000  # of a text file: Python strings need many times the memory of the numbers in them

# Files that are looked for in --data-path and its folder "tabular", the archives' own names first.
FILES = {
    "kddcup": ("kddcup.data_10_percent.gz", "kddcup.data_10_percent", "kddcup.csv", "kddcup.npz"),
    "thyroid": ("thyroid.npz", "thyroid.mat", "thyroid.csv"),
    "arrhythmia": ("arrhythmia.mat", "arrhythmia.npz", "arrhythmia.csv"),
}
DATASETS = {
    "kddcup": "connections of KDD Cup 99 (10 %): 494,021, 'normal' being the rare class",
    "kddcup-rev": "the same, with attacks drawn so that they are the rare class: 121,597",
    "thyroid": "ODDS: 3,772 patients, 6 numbers, 2.5 % hyperfunction",
    "arrhythmia": "ODDS: 452 patients, 274 numbers, 15 % rare classes",
}
SOURCES = {
    "kddcup": "http://kdd.ics.uci.edu/databases/kddcup99/kddcup99.html",
    "thyroid": "https://odds.cs.stonybrook.edu/thyroid-disease-dataset/",
    "arrhythmia": "https://odds.cs.stonybrook.edu/arrhythmia-dataset/",
}

TOY_MEANS = ((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (10.0, 10.0, 10.0))
TOY_VARIANCES = (1.0, 2.0, 4.0)
TOY_FEATURES = 16


class VectorDataset:
    """Float vectors and, where there are any, labels: the contract of ``data.images.ImageDataset`` without images.

    Args:
        vectors: ``(N, D)`` float32.
        labels: ``(N,)`` int64 or None.
        classes: the names of the labels, in their order.
    """

    def __init__(self, vectors: Tensor, labels: Tensor | None = None, classes: list[str] | None = None):
        self.vectors = vectors
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.vectors)

    def first(self, size: int) -> "VectorDataset":
        """The first ``size`` vectors as a data set of their own (no copy)."""
        return VectorDataset(self.vectors[:size], None if self.labels is None else self.labels[:size], self.classes)

    def gather(self, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The vectors ``index`` ``(B,)`` as ``(B, D)`` on the device."""
        return self.vectors[index.to(self.vectors.device)].to(device, non_blocking=True)

    def batches(
        self,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Vectors ``(batch_size, D)`` on the device; the last batch may be smaller. See ``ImageDataset.batches``."""
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        for index in order.split(batch_size)[skip:]:
            yield self.gather(index, device)


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


@dataclass(frozen=True)
class Scaler:
    """Turns rows of a table into vectors: max-min normalised numbers, then one-hot words, as ``fit`` has seen them.

    A column of numbers that was constant when fitted becomes 0: nothing was learned about its scale. A word that was
    not there when fitted becomes all zeros in its column's block.
    """

    least: np.ndarray
    span: np.ndarray
    known: list[np.ndarray]

    @classmethod
    def fit(cls, table: Table) -> "Scaler":
        """From the training half of a table, whatever the labels."""
        least = table.numbers.min(axis=0)
        known = [np.unique(column) for column in table.words.T]
        return cls(least, table.numbers.max(axis=0) - least, known)

    def __call__(self, table: Table) -> Tensor:
        """``(N, D)`` float32; in [0, 1] for the rows that were fitted."""
        scale = np.divide(1.0, self.span, out=np.zeros_like(self.span), where=self.span > 0)
        blocks = [((table.numbers - self.least) * scale).astype(np.float32)]
        for column, known in zip(table.words.T, self.known, strict=True):
            blocks.append((column[:, None] == known).astype(np.float32))
        return torch.from_numpy(np.concatenate(blocks, axis=1))


def load(name: str, path: str | Path = "./datasets", drop_constant: bool = False) -> Table:
    """A data set of ``DATASETS``, or a file of one's own.

    Args:
        name: a row of ``DATASETS``, or the path of a file that ``read`` reads.
        path: a file, or the folder that has it (or has it in its folder ``tabular``).
        drop_constant: leave constant columns out of one's own file instead of refusing it.

    Raises:
        UserError: no such file, or one that cannot be used.
    """
    path = Path(path)
    if name not in DATASETS:
        if not name.lower().endswith(SUFFIXES):
            known = ", ".join(DATASETS)
            raise UserError(f"--dataset {name}: expected {known}, or a file that ends in {', '.join(SUFFIXES)}")
        return require_usable(read(Path(name)), name, drop_constant)
    base = name.removesuffix("-rev")
    candidates = [folder / file for folder in (path, path / "tabular") for file in FILES[base]]
    found = path if path.is_file() else next((file for file in candidates if file.is_file()), None)
    if found is None and base != "kddcup":
        raise UserError(
            f"--data-path {path}: none of {', '.join(FILES[base])} there, nor in its folder tabular; get it from {SOURCES[base]}"
        )
    table = download_kddcup(path) if found is None else read(found)
    if base == "kddcup":
        if name == "kddcup":
            # Attacks are four fifths of this file, so the field's convention (DAGMM, section 4.1) calls them normal.
            table = Table(table.numbers, table.words, table.levels, ~table.anomaly, table.columns)
        else:
            normal, attack = np.flatnonzero(~table.anomaly), np.flatnonzero(table.anomaly)
            # Part of what the data set is, so the same for every run: hence a seed of its own.
            drawn = np.random.default_rng(0).choice(attack, min(len(attack), len(normal) // 4), replace=False)
            table = table.rows(np.sort(np.concatenate([normal, drawn])))
    # These files do have constant columns, and the published widths count them.
    return require_usable(table, str(found or name), drop_constant, constant_allowed=True)


def require_usable(table: Table, source: str, drop_constant: bool, constant_allowed: bool = False) -> Table:
    """The table, if something can be learned from it. Raises UserError if not; see ``load``."""
    anomalies = int(table.anomaly.sum())
    if anomalies in (0, len(table)):
        kind = "anomaly ratio 0: no row is" if anomalies == 0 else "anomaly ratio 1: every row is"
        raise UserError(
            f"{source}: {kind} labelled as an anomaly, but a threshold and F1 need both kinds; check the labels"
        )
    if constant_allowed:
        return table
    constant = np.flatnonzero(np.ptp(table.numbers, axis=0) == 0)
    if len(constant) and not drop_constant:
        position = constant[0]
        raise UserError(
            f"{source}: column {table.columns[position]} is constant ({table.numbers[0, position]:g} in every row)"
            + (f", and {len(constant) - 1} more" if len(constant) > 1 else "")
            + ": remove it, or go on without it with --drop-constant"
        )
    kept = np.setdiff1d(np.arange(len(table.columns)), constant)
    columns = [table.columns[position] for position in kept]
    table = Table(table.numbers[:, kept], table.words, table.levels, table.anomaly, columns)
    if table.numbers.shape[1] + table.words.shape[1] == 0:
        raise UserError(f"{source}: no column varies, so there is nothing to learn from")
    return table


def read(path: Path) -> Table:
    """A labelled table from a file.

    - ``.npz`` and ``.mat``: arrays ``X`` ``(N, P)`` and ``y`` ``(N,)``, 1 for an anomaly (the layout of ODDS).
    - ``.csv``, ``.txt``, ``.data``, also gzipped: comma-separated. A header is recognised by its words above numbers. The label
      is the column that the header calls so (label, class, y, ...), else the last: 0 or 1, or a word, of which
      "normal" is the only one that is not an anomaly. A column whose first cell is no number holds words.

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
    require_finite(values, path, columns, first_line=1)
    anomaly = read_labels(labels, path, "y")
    return Table(values, np.empty((len(values), 0), np.int32), [], anomaly, columns)


def read_text(path: Path) -> Table:
    """A comma-separated file, gzipped or not; see ``read``."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as stream:
            return parse(csv.reader(stream, skipinitialspace=True), path)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
        raise UserError(f"{path}: not a comma-separated text file, or a damaged one ({error})") from error


def parse(reader: Iterator[list[str]], path: Path) -> Table:
    """The table that a ``csv.reader`` reads."""
    top = [row for row in islice(reader, 2) if row]
    if len(top) < 2:
        raise UserError(f"{path}: expected at least two rows, found {len(top)}")
    header = any(not is_number(name) and is_number(cell) for name, cell in zip(*top, strict=False)) and not any(
        map(is_number, top[0])
    )
    width = len(top[0])
    names = [name.strip() for name in top[0]] if header else [str(position + 1) for position in range(width)]
    named = [position for position, name in enumerate(names) if name.lower() in LABEL_NAMES]
    label = named[0] if named else width - 1
    texts = [position for position, cell in enumerate(top[-1]) if not is_number(cell) and not is_missing(cell)]
    if width < 2:
        raise UserError(
            f"{path}: no labels: expected comma-separated values and a label in every row, found one column"
        )

    line, chunk, columns = 1, top, [[] for _ in range(width)]
    if header:
        line, chunk = 2, top[1:]
    while chunk:
        for row, cells in enumerate(chunk):
            if len(cells) != width:
                raise UserError(
                    f"{path}: row {line + row} has {len(cells)} values, row 1 has {width}: every row needs the same"
                )
        for position, cells in enumerate(zip(*chunk, strict=True)):
            if position in texts or position == label:
                require_present(cells, path, line, names[position])
                columns[position].append(np.array(cells))
            else:
                columns[position].append(to_numbers(cells, path, line, names[position]))
        line += len(chunk)
        chunk = list(islice(reader, ROWS_AT_A_TIME))
        if not any(chunk):
            break  # blank lines at the end
        while not chunk[-1]:
            chunk.pop()

    joined = [np.concatenate(parts) for parts in columns]
    anomaly = read_labels(joined[label], path, names[label])
    numeric = [position for position in range(width) if position not in texts and position != label]
    numbers = np.stack([joined[position] for position in numeric], axis=1) if numeric else np.empty((len(anomaly), 0))
    words, levels = np.empty((len(anomaly), 0), np.int32), []
    texts = [position for position in texts if position != label]
    if texts:
        pairs = [np.unique(joined[position], return_inverse=True) for position in texts]
        levels = [found.tolist() for found, _ in pairs]
        words = np.stack([inverse for _, inverse in pairs], axis=1).astype(np.int32)
    columns = [names[position] for position in numeric]
    require_finite(numbers, path, columns, first_line=2 if header else 1)
    return Table(numbers, words, levels, anomaly, columns)


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number; NaN and infinity do, so that they are reported where they stand."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def require_present(cells: tuple[str, ...], path: Path, first_line: int, column: str) -> None:
    """Raises UserError for the first cell that says nothing."""
    for row, cell in enumerate(cells):
        if is_missing(cell):
            raise UserError(
                f"{path}: row {first_line + row}, column {column}: the value is missing ({cell!r}); fill it in or remove the row"
            )


def to_numbers(cells: tuple[str, ...], path: Path, first_line: int, column: str) -> np.ndarray:
    """``(rows,)`` float64. Raises UserError for the first cell that is no number."""
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        require_present(cells, path, first_line, column)
        row, cell = next((row, cell) for row, cell in enumerate(cells) if not is_number(cell))
        raise UserError(
            f"{path}: row {first_line + row}, column {column}: expected a number as in the rows above, found {cell!r}"
        ) from None


def require_finite(values: np.ndarray, path: Path, columns: list[str], first_line: int) -> None:
    """Raises UserError for the first NaN or infinity."""
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"{path}: row {row + first_line}, column {columns[column]} is {values[row, column]}"
            + (f", and {len(wrong) - 1} more values are not finite" if len(wrong) > 1 else "")
            + ": fill in or remove such rows"
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
    shown = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
    raise UserError(
        f"{path}: no labels: expected 0 and 1, or 'normal' and other words, in column {column}, found {len(found)} values: {shown}"
    )


def download_kddcup(path: Path) -> Table:
    """KDD Cup 99 (10 %) through scikit-learn, which keeps it under ``path``."""
    from sklearn.datasets import fetch_kddcup99

    try:
        values, labels = fetch_kddcup99(data_home=str(path), percent10=True, return_X_y=True)
    except OSError as error:  # no network, or a folder that cannot be written
        raise UserError(
            f"--data-path {path}: no {FILES['kddcup'][0]} there, and it could not be downloaded ({error}); get it from "
            f"{SOURCES['kddcup']}"
        ) from error
    rows = (
        [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in (*row, label)]
        for row, label in zip(values, labels, strict=True)
    )
    return parse(rows, path / "kddcup99")


def halves(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training half and the test half (RaDOGAGA, section 5.3), a random draw of the seed.

    Raises:
        UserError: one of them lacks normal rows or anomalies.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    test, train = np.split(order, [len(order) // 2])
    if not table.anomaly[test].any() or table.anomaly[test].all() or table.anomaly[train].all():
        raise UserError(
            f"seed {seed}: of {len(table)} rows, {int(table.anomaly.sum())} of them anomalies, a random half lacks normal rows or "
            "anomalies: give more rows"
        )
    return train, test


@dataclass(frozen=True)
class Toy:
    """Points of known density (RaDOGAGA, section 5.2).

    Attributes:
        vectors: ``(N, 16)`` float32, max-min normalised over the whole array, so that distances keep their proportions.
        density: ``(N,)`` float64, of the point before normalisation.
        component: ``(N,)`` int64, of the mixture.
    """

    vectors: Tensor
    density: np.ndarray
    component: np.ndarray

    def dataset(self) -> VectorDataset:
        return VectorDataset(self.vectors, torch.from_numpy(self.component))


def load_toy(path: str | Path) -> Toy:
    """The published toy data: a CSV of 16 inputs, the density and the component in every row; ``path`` is it or its folder.

    Raises:
        UserError: no such file, another number of columns, or a value that is not finite.
    """
    path = Path(path)
    candidates = [path / "toy.csv", path / "tabular" / "toy.csv"] if path.is_dir() else [path]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise UserError(
            f"--data-path {path}: no toy.csv there, nor in its folder tabular; leave the flag out to generate one"
        )
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a comma-separated text file ({error})") from error
    width = TOY_FEATURES + 2
    for line, row in enumerate(rows, 1):
        if len(row) != width:
            raise UserError(
                f"{file}: row {line} has {len(row)} values, expected {width}: 16 inputs, density, component"
            )
    if len(rows) < 2:
        raise UserError(f"{file}: expected at least two rows, found {len(rows)}")
    names = [str(position + 1) for position in range(width)]
    values = np.stack(
        [to_numbers(cells, file, 1, name) for cells, name in zip(zip(*rows, strict=True), names, strict=True)]
    )
    require_finite(values.T, file, names, first_line=1)
    return Toy(normalised(values[:-2].T), values[-2], values[-1].astype(np.int64))


def generate_toy(num: int = 10_000, seed: int = 0) -> Toy:
    """Toy data of the published kind: three spherical Gaussians in 3 dimensions, lifted to 16 by an isometry.

    Weights 1/3; means (0, 0, 0), (10, 0, 0), (10, 10, 10) and variances 1, 2, 4, as measured from the published file. Because the lift
    keeps distances, the density of a point in 16 dimensions (on the 3-dimensional plane) is that of its source.
    """
    rng = np.random.default_rng(seed)
    component = np.sort(rng.integers(0, len(TOY_MEANS), num))
    means, variances = np.array(TOY_MEANS), np.array(TOY_VARIANCES)
    dimensions = means.shape[1]
    source = means[component] + np.sqrt(variances)[component, None] * rng.standard_normal((num, dimensions))
    lift = np.linalg.qr(rng.standard_normal((TOY_FEATURES, dimensions)))[0]  # orthonormal columns
    distance = np.square(source[:, None] - means).sum(axis=2)
    density = np.mean(np.exp(-0.5 * distance / variances) * (2 * math.pi * variances) ** (-dimensions / 2), axis=1)
    return Toy(normalised(source @ lift.T), density, component)


def normalised(values: np.ndarray) -> Tensor:
    """``(N, D)`` float32, the least number of the whole array at 0 and the largest at 1."""
    span = np.ptp(values)
    if span == 0:
        raise UserError("the toy data is constant: there is nothing to learn from")
    return torch.from_numpy(((values - values.min()) / span).astype(np.float32))
