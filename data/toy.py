"""Toy points in 16 dimensions whose density is known (RaDOGAGA, arXiv 1910.04329, section 5.2)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.table_columns import is_row_number
from data.table_files import read_frame
from utils.errors import UserError

MEANS = ((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (10.0, 10.0, 10.0))
VARIANCES = (1.0, 2.0, 4.0)
FEATURES = 16


@dataclass(frozen=True)
class Toy:
    """Points of known density."""

    vectors: Tensor  # (N, 16) float32, max-min normalised over the whole array: distances keep their proportions
    density: np.ndarray  # (N,) float64, of the point before normalisation
    component: np.ndarray  # (N,) int64, of the mixture; 0 where it is not known
    source: str  # where the points are from, and which columns of the file are used


def file_of(path: Path) -> Path | None:
    """The file of the published toy data that ``path`` is, or that lies in it or in its folder ``tabular``."""
    candidates = [path / "toy.csv", path / "tabular" / "toy.csv"] if path.is_dir() else [path]
    return next((file for file in candidates if file.is_file()), None)


def load(path: str | Path) -> Toy:
    """The published toy data, a CSV file or its folder: 16 inputs, density and, where known, component in every row.

    A header and a leading column of row numbers are left out. Raises UserError for another number of columns, a value
    that is not finite, and a density below 0.
    """
    file = file_of(Path(path))
    if file is None:
        found = "no toy.csv there, nor in its folder tabular"
        raise UserError(f"--data-path {path}: {found}; leave the flag out to generate one")
    frame, header = read_frame(file)
    words = list(frame.select_dtypes(exclude="number"))
    if words:
        raise UserError(f"{file}: column {words[0]}: expected numbers, found words such as {frame[words[0]].iloc[0]!r}")
    notes = ["line 1 is the header"] if header else []
    if is_row_number(frame.iloc[:, 0], first=True):
        notes.append(f"column {frame.columns[0]} left out: row numbers")
        frame = frame.iloc[:, 1:]
    names, values = list(frame), frame.to_numpy()
    layout = "16 inputs, density and, if known, component"
    if len(names) not in (FEATURES + 1, FEATURES + 2):
        raise UserError(f"{file}: found {len(names)} columns, expected {FEATURES + 1} or {FEATURES + 2}: {layout}")
    density, component = values[:, FEATURES], values[:, -1] if len(names) > FEATURES + 1 else np.zeros(len(values))
    if (density < 0).any():
        found = f"densities are 0 or more, found {density.min():g}"
        raise UserError(f"{file}: column {names[FEATURES]}: {found}: expected {layout}")
    if (component != component.round()).any():
        raise UserError(f"{file}: column {names[-1]}: components are whole numbers, found {component.max():g}")
    notes.append(f"inputs: columns {names[0]} to {names[FEATURES - 1]}; density: column {names[FEATURES]}")
    source = f"{file}: {'; '.join(notes)}"
    return Toy(normalised(values[:, :FEATURES]), density, component.astype(np.int64), source)


def generate(num: int = 10_000, seed: int = 0) -> Toy:
    """Toy data as measured from the published file: three spherical Gaussians of equal weight in 3 dimensions, lifted
    to 16 by an isometry, which keeps distances: a point in 16 dimensions (on their plane) has its source's density.
    """
    rng = np.random.default_rng(seed)
    component = np.sort(rng.integers(0, len(MEANS), num))
    means, variances = np.array(MEANS), np.array(VARIANCES)
    source = means[component] + np.sqrt(variances)[component, None] * rng.standard_normal((num, 3))
    lift = np.linalg.qr(rng.standard_normal((FEATURES, 3)))[0]  # orthonormal columns
    distance = np.square(source[:, None] - means).sum(axis=2)
    density = np.mean(np.exp(-0.5 * distance / variances) * (2 * math.pi * variances) ** (-3 / 2), axis=1)
    return Toy(normalised(source @ lift.T), density, component, f"generated, seed {seed}")


def normalised(values: np.ndarray) -> Tensor:
    """``(N, D)`` float32, the least number of the whole array at 0 and the largest at 1."""
    span = np.ptp(values)
    if span == 0:
        raise UserError("the toy data is constant: there is nothing to learn from")
    return torch.from_numpy(((values - values.min()) / span).astype(np.float32))
