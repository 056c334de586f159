"""Images in memory as uint8 tensors: the contract of every data set.

Decoding, cropping and resizing happen once, before training; the loop only gathers rows.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Part = Callable[[int], slice]  # which images of a batch of that size are wanted


def whole(total: int) -> slice:
    """All images of a batch of ``total``."""
    return slice(0, total)


class Dataset:
    """The contract: what training, evaluation and scripts ask of data, whatever they are and wherever they lie.

    A batch comes in two steps, so that the second can be part of a CUDA graph: ``rows`` says which images, ``prepare``
    makes them. Beside these a data set has ``images``, ``labels`` (or None), ``classes`` (their names, or None), a
    length, ``first``, ``to`` and ``gather``.
    """

    def rows(
        self,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        skip: int = 0,
        part: Part = whole,
    ) -> Iterator[tuple[Tensor, int]]:
        """For each batch what ``prepare`` makes its images of, and how many images it has; the last may be smaller.

        Args:
            shuffle: visit the images in the order that ``generator`` draws, otherwise in their own. It is drawn on the
                CPU, hence the same on every device, and copied once.
            device: that ``prepare`` computes on.
            skip: leave out that many batches at the start: how an interrupted epoch goes on where it was.
            part: the images of each batch that this process computes.
        """
        batches = self.order(shuffle, generator, device).split(batch_size)[skip:]
        return self.fetched(((rows[part(len(rows))], len(rows)) for rows in batches), device)

    def order(self, shuffle: bool, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        """All images of a pass in their order, as what names one: ``(N,)`` indices, say. See ``rows``."""
        raise NotImplementedError

    def fetched(self, parts: Iterable[tuple[Tensor, int]], device: torch.device | str) -> Iterator[tuple[Tensor, int]]:
        """What names the images of each batch, as it is or with what must be brought to the device for ``prepare``."""
        return iter(parts)

    def prepare(self, rows: Tensor) -> Tensor:
        """What ``rows`` gave, on the computing device, as floats ``(B, C, H, W)`` in [0, 1]. Does not wait."""
        raise NotImplementedError

    def batches(
        self,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Float images in [0, 1], ``(batch_size, C, H, W)``, on the device; arguments as in ``rows``."""
        for rows, _ in self.rows(batch_size, shuffle, generator, device, skip):
            yield self.prepare(rows.to(device, non_blocking=True))


class ImageDataset(Dataset):
    """uint8 images and, where there are any, labels.

    Args:
        images: ``(N, C, H, W)`` uint8, in memory, memory-mapped or on a device.
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

    def to(self, device: torch.device) -> "ImageDataset":
        """The data set with its images on a CUDA device, where they take at most half of the memory free there.

        Those that do not fit stay where they are, and ``rows`` sends them batch by batch.
        """
        if device.type != "cuda" or self.images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        return type(self)(self.images.to(device), self.labels, self.classes)

    def gather(self, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The images ``index`` ``(B,)`` as floats ``(B, C, H, W)`` in [0, 1] on the device."""
        pixels = self.images[index.to(self.images.device)]
        return self.prepare(pixels.to(device, non_blocking=True))

    def prepare(self, rows: Tensor) -> Tensor:
        pixels = rows if rows.dtype == torch.uint8 else self.images[rows]
        return pixels.float().div_(255)

    def order(self, shuffle: bool, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
        order = torch.randperm(len(self), generator=generator) if shuffle else torch.arange(len(self))
        return order.to(self.images.device)

    def fetched(self, parts: Iterable[tuple[Tensor, int]], device: torch.device | str) -> Iterator[tuple[Tensor, int]]:
        """Indices where the images are on the device already, otherwise their pixels in page-locked memory."""
        return iter(parts) if self.images.device.type == torch.device(device).type else staged(self.images, parts)


def staged(images: Tensor, parts: Iterable[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, int]]:
    """The pixels of each part in one of two page-locked buffers, from where a CUDA device fetches them by itself.

    While the device works on one batch the host gathers the next, from a memory map say. A buffer is filled again when
    the device has done everything that was asked of it before the next batch was wanted, the copy included.
    """
    cuda = torch.cuda.is_available()
    buffers: list[Tensor | None] = [None, None]
    done: list[torch.cuda.Event | None] = [None, None]
    for number, (index, total) in enumerate(parts):
        slot = number % 2
        if done[slot] is not None:
            done[slot].synchronize()
        if buffers[slot] is None or len(buffers[slot]) < len(index):
            buffers[slot] = torch.empty((len(index), *images.shape[1:]), dtype=images.dtype, pin_memory=cuda)
        pixels = buffers[slot][: len(index)]
        torch.index_select(images, 0, index, out=pixels)
        yield pixels, total
        if cuda:
            done[slot] = torch.cuda.Event()
            done[slot].record()
