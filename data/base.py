"""The contract of every data set: one tensor, prepared once, and a function that makes images of its rows."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.pinned_memory import PinnedBuffers


@dataclass(frozen=True)
class LoadOptions:
    """What a user can ask of a data set; each loads with what applies to it."""

    size: int | None  # number of images, where they are generated; None for the default
    image_size: int  # height and width, pixels; 0 for vectors
    channels: int  # 1 (grey) or 3 (RGB); of a file any number
    skip_corrupt: bool = False  # leave out files that cannot be decoded, instead of stopping
    white: float | None = None  # in images of more than 8 bits per channel; None for what ``data.decoding`` finds
    crop: int = 148  # side of CelebA's centre crop, pixels
    squares: str = "released"  # of shape: "released" or "centred"
    file: Mapping = field(default_factory=dict)  # of a file of one's own: see ``data.arrays.OPTIONS``


class Dataset:
    """Images as uint8 pixels and, where there are any, labels. Other data sets override ``to_images`` or ``order``.

    Args:
        store: ``(N, ...)``: uint8 pixels ``(N, C, H, W)`` here; factors or vectors elsewhere. In memory, memory-mapped
            or on a device.
        labels: ``(N,)`` int64 in main memory, or None.
        classes: the names of the labels, in their order, or None.
    """

    def __init__(self, store: Tensor, labels: Tensor | None = None, classes: list[str] | None = None):
        self.store, self.labels, self.classes = store, labels, classes

    def __len__(self) -> int:
        return len(self.store)

    def to_images(self, rows: Tensor) -> Tensor:
        """Rows of the store ``(B, ...)`` as float images ``(B, C, H, W)`` in [0, 1]; may be part of a CUDA graph."""
        return rows.float().div_(255)

    def factors(self) -> dict[str, Tensor]:
        """What the images were made of, each ``(N,)`` by its name; nothing where that is not known."""
        return {}

    def order(self, generator: torch.Generator | None = None) -> Tensor:
        """The indices ``(N,)`` of one training pass, drawn on the CPU, hence the same for every device."""
        return torch.randperm(len(self), generator=generator)

    def first(self, size: int) -> "Dataset":
        """The first ``size`` images as a data set (no copy)."""
        part = copy.copy(self)
        part.store, part.labels = self.store[:size], None if self.labels is None else self.labels[:size]
        return part

    def to(self, device: torch.device) -> "Dataset":
        """With its store on a CUDA device, if that takes at most half of the memory free there; else itself."""
        if device.type != "cuda" or self.store.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        moved = copy.copy(self)
        moved.store = self.store.to(device)
        return moved

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Float images ``(B, C, H, W)`` of an index tensor ``(B,)`` or a slice, on the device of the store."""
        return self.to_images(self.store[index.to(self.store.device) if isinstance(index, Tensor) else index])

    def batches(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """All images in their own order: floats ``(batch_size, C, H, W)`` on the device; the last may be smaller."""
        indices = torch.arange(len(self), device=self.store.device).split(batch_size)
        if self.store.device.type == torch.device(device).type:
            yield from (self[index] for index in indices)
        else:
            rows = PinnedBuffers(self.store) if self.store.device.type == "cpu" else self.store.__getitem__
            yield from (self.to_images(rows(index).to(device, non_blocking=True)) for index in indices)


class VectorDataset(Dataset):
    """Float vectors ``(N, D)`` and, where there are any, labels, with the methods of a data set of images."""

    def to_images(self, rows: Tensor) -> Tensor:
        return rows


def as_images(images: Tensor | np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """uint8 or floats in [0, 1] as float32 images. Raises UserError unless they are ``(N, *shape)`` and in range."""
    x = torch.as_tensor(images)
    if x.shape[1:] != shape:
        raise UserError(f"images of shape {tuple(x.shape)}: expected (N, {', '.join(map(str, shape))})")
    if x.dtype == torch.uint8:
        return x / 255
    if not x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() <= 1)):
        found = f", {float(x.min()):.3g} to {float(x.max()):.3g}" if x.numel() and not x.is_complex() else ""
        raise UserError(f"images of type {x.dtype}{found}: expected uint8, or floats in [0, 1]")
    return x.float()
