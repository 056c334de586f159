"""The data set of a file of one's own: rows or fields of values of any range, scaled."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from data import folder
from data.base import LoadOptions, VectorDataset
from utils import files
from utils.errors import UserError

if TYPE_CHECKING:
    from data.array_files import Array

SUFFIXES = (".npy", ".npz", ".csv", ".csv.gz", ".mat")
SCALES = {
    "standard": "each column to mean 0 and variance 1 on the training rows, of fields (N, C, H, W) each channel",
    "max-min": "to 0 and 1, likewise",
    "none": "values as they are",
}
SPLITS = {
    "hash": "about 80, 10 and 10 % of the rows, by a hash of their values: each stays in its part when others come",
    "time": "the first 80 % of the rows, the next 10 % for validation, the last 10 % for the test",
}
OPTIONS: dict[str, Any] = {"scale": "standard", "split": "hash", "label": None, "ignore": []}  # and their defaults
SMALLEST = 10  # rows of a file
LARGEST = 1e18  # of a scaled value: the squared error of larger ones overflows
LATENT_DIM = 32  # n, unless a row has fewer values
NETWORK = "relu:512-256"  # of IRMAE-WD (Zeng et al. 2023, arXiv 2305.01090) for rows of 64 values


class ArrayDataset(VectorDataset):
    """Rows of a file as scaled vectors ``(N, D)``, or as fields ``(N, C, S, S)`` for convolutional networks.

    Attributes:
        rows: ``(N,)``, the positions in the file, from 0.
        names: D names of the values of a row.
        shape: of a row in the file; ``field``: of a row in the store, where that is not flat.
    """

    def __init__(self, array: "Array", rows: np.ndarray, scaler, field: tuple[int, ...] | None, train: np.ndarray):
        self.rows, self.names, self.scaler = rows, array.names, scaler
        self.shape = array.values.shape[1:]
        self.field = field or (len(array.names),)
        labels = None if array.labels is None else torch.from_numpy(array.labels[rows])
        known = np.where(does_not_vary(train), columned(train[:1]), np.nan)
        self.known = self.from_units(uncolumned(known, train[:1].shape))[0]
        super().__init__(self.from_units(array.values[rows]), labels, array.classes)

    def from_units(self, values: np.ndarray | Tensor) -> Tensor:
        """Values as the file has them ``(N, ...)`` as inputs of a network, float32. Raises UserError for other rows."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape[1:] != self.shape:
            raise UserError(f"rows of shape {values.shape[1:]}: expected {self.shape}, as in the file")
        if self.scaler is not None:
            values = uncolumned(self.scaler.transform(columned(values)), values.shape)
        return torch.tensor(values, dtype=torch.float32).reshape(-1, *self.field)

    def to_units(self, x: Tensor) -> np.ndarray:
        """Inputs or outputs of a network as values in the units and the shape of the file, float64."""
        values = x.detach().cpu().double().numpy().reshape(-1, *self.shape)
        if self.scaler is None:
            return values
        return uncolumned(self.scaler.inverse_transform(columned(values)), values.shape)

    def restore_constants(self, x: Tensor) -> Tensor:
        """Outputs of a network with the one value of each column or channel that did not vary in training."""
        return torch.where(self.known.isnan().to(x.device), x, self.known.to(x.device))

    def first(self, size: int) -> "ArrayDataset":
        part = cast(ArrayDataset, super().first(size))
        part.rows = self.rows[:size]
        return part


def columned(values: np.ndarray) -> np.ndarray:
    """What is scaled alike, as columns: those of ``(N, D)``, the channels of ``(N, C, H, W)``, all of ``(N, H, W)``."""
    if values.ndim == 4:
        return np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
    return values if values.ndim == 2 else values.reshape(-1, 1)


def does_not_vary(values: np.ndarray) -> np.ndarray:
    """Of each of the ``columned`` columns."""
    return np.ptp(columned(values), axis=0) == 0


def uncolumned(columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``columned``."""
    if len(shape) == 4:
        return np.moveaxis(columns.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return columns.reshape(shape)


def load(split: str, path: Path, options: LoadOptions) -> ArrayDataset:
    """A split of a file, or "all" of its rows; scaled as its training rows are."""
    from data.array_files import read  # pandas is slow to import: not for --help

    file = {**OPTIONS, **options.file}
    array = read(path, file["label"], file["ignore"])
    if len(array.values) < SMALLEST:
        raise UserError(f"{path}: found {len(array.values)} rows, need at least {SMALLEST} to split them in three")
    parts = split_rows(array.values, file["split"])
    rows = parts[split] if split != "all" else np.arange(len(array.values))
    field = (options.channels, options.image_size, options.image_size) if options.image_size else None
    constant = does_not_vary(train := array.values[parts["train"]])
    if constant.all():
        raise UserError(f"{path}: no column varies in the training rows, so there is nothing to learn from")
    if (later := constant & ~does_not_vary(array.values)).any() and file["scale"] != "none":
        name = f"column {array.names[later.argmax()]}" if array.values.ndim == 2 else f"channel {later.argmax()}"
        raise UserError(f"{path}: {name} varies outside of the training rows only: --ignore it, or --scale none")
    dataset = ArrayDataset(array, rows, fit_scaler(train, file["scale"]), field, train)
    if not (largest := dataset.store.abs().max()) < LARGEST:
        found = f"--scale {file['scale']} leaves values of {largest:.1e}, whose squares overflow float32"
        raise UserError(f"{path}: {found}: divide the columns by their size, or choose another --scale")
    return dataset


def split_rows(values: np.ndarray, split: str) -> dict[str, np.ndarray]:
    """Positions of the training, validation and test rows, by a key of ``SPLITS``; in random order with "hash"."""
    if split == "time":
        parts = np.split(np.arange(len(values)), [int(0.8 * len(values)), int(0.9 * len(values))])
        return dict(zip(("train", "valid", "test"), parts, strict=True))
    fractions = np.array([folder.fraction(row.tobytes()) for row in values])
    order = np.argsort(fractions, kind="stable")
    return {name: order[part] for name, part in folder.split_of(fractions[order].tolist()).items()}


def fit_scaler(values: np.ndarray, scale: str):
    """scikit-learn's scaler, fitted to rows; None for "none". A column that does not vary becomes 0."""
    from sklearn.preprocessing import MinMaxScaler, StandardScaler  # slow to import: not for --help

    scalers = {"standard": StandardScaler, "max-min": MinMaxScaler}
    return None if scale == "none" else scalers[scale]().fit(columned(values))


def describe(path: Path, arch: str | None, file: Mapping) -> dict:
    """What a model of the rows is built for: vectors by ``NETWORK`` or the ``arch`` given, or fields with "conv".

    Raises UserError for a network of images, and fields that convolutions do not take.
    """
    from data.array_files import read

    shape = read(path, file["label"], file["ignore"]).values.shape[1:]
    size = int(np.prod(shape))
    found: dict = {
        "architecture": arch or NETWORK,
        "image_size": 0,
        "channels": size,
        "latent_dim": min(size, LATENT_DIM),
    }
    if arch == "conv":
        if len(shape) == 1 or shape[-1] != shape[-2]:
            found_shape = f"{path} has rows of shape {shape}"
            raise UserError(f"--arch conv: expected square fields, {found_shape}: give relu:512-256 or mlp:512-256")
        side = shape[-1]
        return found | {"architecture": f"field-{side}", "image_size": side, "channels": size // side**2}
    if arch and ":" not in arch:
        raise UserError(f"--arch {arch}: a network of images; {path} takes relu:512-256, mlp:512-256 or conv")
    return found


def fingerprint(path: Path) -> str | None:
    """Changes with the content of the file; None where there is none."""
    return files.fingerprint(path.read_bytes()) if path.is_file() else None
