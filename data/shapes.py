"""One circle or square on black, rendered on the fly: data whose dimension is known to be seven.

Source: IRMAE (arXiv 2010.00679), section 4.1. The factors are shape, size, centre x and y, and colour (3).
"""

from pathlib import Path

import torch
from torch import Tensor

from data.base import Dataset, LoadOptions

IMAGE_SIZE = 32
CLASSES = ["circle", "square"]
SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
SQUARES = ("released", "centred")  # the default first
SPLIT_SEEDS = {"train": 1, "valid": 2, "test": 3}  # the splits are disjoint draws whatever the run's own seed


def draw_factors(num: int, generator: torch.Generator | None = None) -> Tensor:
    """``(num, 7)`` floats: square (0 or 1), size 3..8, centre x and y 8..24 (pixels), red, green, blue in [0, 1]."""
    square = torch.randint(0, 2, (num, 1), generator=generator)
    size = torch.randint(3, 9, (num, 1), generator=generator)
    centre = torch.randint(8, 25, (num, 2), generator=generator)
    colour = torch.rand(num, 3, generator=generator)
    return torch.cat([square, size, centre, colour], dim=1)


def render(factors: Tensor, squares: str = SQUARES[0]) -> Tensor:
    """Factors ``(B, 7)`` to images ``(B, 3, 32, 32)`` in [0, 1], on the device of the factors.

    A pixel at whole coordinates (x, y) belongs to a circle when its distance to the centre is at most the size, the
    radius. A "released" square has its upper left corner at the centre (x, y) and its lower right one at
    (x + size, y + size), both included, as the code released with IRMAE draws it; in a "centred" one neither
    coordinate is further from the centre than the size, half the side.
    """
    square, size, centre_x, centre_y = (column[:, None, None] for column in factors[:, :4].unbind(1))
    axis = torch.arange(IMAGE_SIZE, device=factors.device, dtype=factors.dtype)
    dx, dy = axis[None, None, :] - centre_x, axis[None, :, None] - centre_y
    least = torch.zeros_like(size) if squares == "released" else -size
    in_square = (torch.minimum(dx, dy) >= least) & (torch.maximum(dx, dy) <= size)
    inside = torch.where(square > 0, in_square, dx.square() + dy.square() <= size.square())
    return inside[:, None] * factors[:, 4:, None, None]


class ShapeDataset(Dataset):
    """The store is the factors ``(N, 7)``, which ``order`` draws anew: training never sees an image twice."""

    labels: Tensor

    def __init__(self, factors: Tensor, squares: str):
        super().__init__(factors, factors[:, 0].long(), CLASSES)
        self.squares = squares

    def to_images(self, rows: Tensor) -> Tensor:
        return render(rows, self.squares)

    def factors(self) -> dict[str, Tensor]:
        """The seven, and two contrasts of the colours: a code of brightness alone says little of them."""
        square, size, x, y, red, green, blue = self.store.unbind(1)
        colours = {"red": red, "green": green, "blue": blue}
        contrasts = {"red - green": red - green, "red + green - 2 blue": red + green - 2 * blue}
        return {"x": x, "y": y, "size": size, **colours, **contrasts, "circle or square": square}

    def order(self, generator: torch.Generator | None = None) -> Tensor:
        """The images in their own order, each with new factors: the store and the labels are overwritten in place."""
        factors = draw_factors(len(self), generator)
        self.store.copy_(factors)
        self.labels.copy_(factors[:, 0])
        return torch.arange(len(self))


def load(split: str, path: Path, options: LoadOptions) -> ShapeDataset:
    """Shapes of a split: ``options.size`` of them, else as many as published."""
    generator = torch.Generator().manual_seed(SPLIT_SEEDS[split])
    return ShapeDataset(draw_factors(options.size or SIZES[split], generator), options.squares)
