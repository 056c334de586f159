"""Vectors: labelled tables for anomaly detection, and toy data whose density is known."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.base import Dataset
from data.decoding import cache_file
from data.table_files import SUFFIXES, Table, is_number, numbered, parse, read, to_numbers
from utils import files
from utils.errors import UserError

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

CACHED_FROM = 1_000_000  # bytes of a text file

TOY_MEANS = ((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (10.0, 10.0, 10.0))
TOY_VARIANCES = (1.0, 2.0, 4.0)
TOY_FEATURES = 16


class VectorDataset(Dataset):
    """Float vectors ``(N, D)`` and, where there are any, labels: the contract of a data set without images."""

    def to_images(self, rows: Tensor) -> Tensor:
        """Vectors ``(B, D)`` as they are."""
        return rows


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
        return require_usable(read_cached(Path(name)), name, drop_constant)
    base = name.removesuffix("-rev")
    candidates = [folder / file for folder in (path, path / "tabular") for file in FILES[base]]
    found = path if path.is_file() else next((file for file in candidates if file.is_file()), None)
    if found is None and base != "kddcup":
        raise UserError(
            f"--data-path {path}: none of {', '.join(FILES[base])} there, nor in its folder tabular; get it from "
            f"{SOURCES[base]}"
        )
    table = download_kddcup(path) if found is None else read_cached(found)
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


def read_cached(path: Path) -> Table:
    """``read``, whose result for a large text file is kept in the folder ``.cache`` beside it: KDD Cup takes a while.

    The name of what is kept holds the file's name, size and time, so a changed file is read anew.
    """
    if not path.is_file() or path.suffix.lower() in (".npz", ".mat") or path.stat().st_size < CACHED_FROM:
        return read(path)
    cache = cache_file(path.parent, [path], "table").with_suffix(".npz")
    if not cache.is_file():
        table = read(path)
        levels = {f"levels{position}": np.array(words) for position, words in enumerate(table.levels)}
        with files.replacing(cache) as temporary:
            np.savez_compressed(
                temporary,
                numbers=table.numbers,
                words=table.words,
                anomaly=table.anomaly,
                columns=np.array(table.columns, dtype=np.str_),
                **levels,
            )
        return table
    with np.load(cache, allow_pickle=False) as kept:
        levels = [kept[f"levels{position}"].tolist() for position in range(kept["words"].shape[1])]
        return Table(kept["numbers"], kept["words"], levels, kept["anomaly"], kept["columns"].tolist())


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
    return parse(enumerate(rows, 1), path / "kddcup99")


def halves(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training half and the test half (RaDOGAGA, section 5.3), a random draw of the seed.

    Raises:
        UserError: one of them lacks normal rows or anomalies.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    test, train = np.split(order, [len(order) // 2])
    if not table.anomaly[test].any() or table.anomaly[test].all() or table.anomaly[train].all():
        raise UserError(
            f"seed {seed}: of {len(table)} rows, {int(table.anomaly.sum())} of them anomalies, a random half lacks "
            "normal rows or anomalies: give more rows"
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


def toy_file(path: Path) -> Path | None:
    """The file of the published toy data that ``path`` is, or that lies in it or in its folder ``tabular``."""
    candidates = [path / "toy.csv", path / "tabular" / "toy.csv"] if path.is_dir() else [path]
    return next((file for file in candidates if file.is_file()), None)


def load_toy(path: str | Path) -> Toy:
    """The published toy data: a CSV of 16 inputs, density and component in every row; ``path`` is it or its folder.

    A first row of words is a header.

    Raises:
        UserError: no such file, another number of columns, or a value that is not finite.
    """
    path = Path(path)
    file = toy_file(path)
    if file is None:
        raise UserError(
            f"--data-path {path}: no toy.csv there, nor in its folder tabular; leave the flag out to generate one"
        )
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = list(numbered(csv.reader(stream)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a comma-separated text file ({error})") from error
    if rows and not any(map(is_number, rows[0][1])):
        rows = rows[1:]  # a header
    width = TOY_FEATURES + 2
    for line, row in rows:
        if len(row) != width:
            raise UserError(
                f"{file}: row {line} has {len(row)} values, expected {width}: 16 inputs, density, component"
            )
    if len(rows) < 2:
        raise UserError(f"{file}: expected at least two rows, found {len(rows)}")
    lines = [line for line, _ in rows]
    columns = zip(*(row for _, row in rows), strict=True)
    values = [to_numbers(cells, lines, file, str(position)) for position, cells in enumerate(columns, 1)]
    return Toy(normalised(np.stack(values[:TOY_FEATURES], axis=1)), values[-2], values[-1].astype(np.int64))


def generate_toy(num: int = 10_000, seed: int = 0) -> Toy:
    """Toy data of the published kind: three spherical Gaussians in 3 dimensions, lifted to 16 by an isometry.

    Weights 1/3; means (0, 0, 0), (10, 0, 0), (10, 10, 10) and variances 1, 2, 4, as measured from the published file.
    Because the lift keeps distances, the density of a point in 16 dimensions (on their plane) is that of its source.
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
