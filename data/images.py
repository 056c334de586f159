"""Images in memory as uint8 tensors: the contract of every data set.

Decoding, cropping and resizing happen once, before training; the loop only gathers rows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


class ImageDataset:
    """uint8 images and, where there are any, labels.

    Args:
        images: ``(N, C, H, W)`` uint8, in memory or memory-mapped.
        labels: ``(N,)`` int64 or None.
        classes: the names of the labels, in their order.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None, classes: list[str] | None = None):
        self.images = images
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def first(self, size: int) -> "ImageDataset":
        """The first ``size`` images as a data set of their own (no copy)."""
        labels = None if self.labels is None else self.labels[:size]
        return type(self)(self.images[:size], labels, self.classes)

    def gather(self, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The images ``index`` ``(B,)`` as floats ``(B, C, H, W)`` in [0, 1] on the device."""
        pixels = self.images[index.to(self.images.device)]
        return pixels.to(device, non_blocking=True).float().div_(255)

    def batches(
        self,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Float images in [0, 1], ``(batch_size, C, H, W)``, on the device; the last batch may be smaller.

        Args:
            shuffle: visit the images in the order that ``generator`` draws, otherwise in their own.
            skip: leave out that many batches at the start: how an interrupted epoch goes on where it was.
        """
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        for index in order.split(batch_size)[skip:]:
            yield self.gather(index, device)
