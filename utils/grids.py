"""Grids of images with what a reader needs beside them, as figures in which every pixel keeps its square."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from utils import files, plots
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 14  # pixels between groups of columns
BLOCK_GAP = 64  # pixels between grids one above the other
WIDEST = 16  # columns of grids that stand side by side; more, or rows with labels, stand one above the other
MARGIN = 6  # pixels around everything
WIDTH = 11  # pixels of a letter beside a row
FULL_SIZE = 700  # pixels: of wider figures the words are larger, as they are shown smaller


@dataclass
class Grid:
    """Images of one model, row by row, and the words around them; of a file rows instead, which are not drawn."""

    images: Tensor  # (N, C, H, W) in [0, 1]
    columns: int
    what: str = ""  # one line: which images these are
    note: str = ""  # what is of this model alone
    top: Sequence[str] = ()  # over the columns, repeated
    left: Sequence[str] = ()  # beside the rows
    groups: Sequence[int] = ()  # sizes of the groups of columns, repeated, a gap between them; none: no gaps
    across: str = ""  # what changes from column to column
    down: str = ""  # what changes from row to row

    def picture(self, gaps: bool = True) -> tuple[np.ndarray, list[float], int]:
        """``(H', W', 3)`` uint8, the centre of each column, and the side of an image with its border, in pixels."""
        rows = -(-len(self.images) // self.columns)
        whole = plots.image_grid(self.images, self.columns).mul(255).round().byte().permute(1, 2, 0).numpy()
        border = 2
        side = (whole.shape[0] - border) // rows
        sizes = self.groups if gaps and self.groups else (self.columns,)
        ends = np.cumsum(np.tile(sizes, -(-self.columns // sum(sizes))))
        before = [GAP * int(np.searchsorted(ends, column, side="right")) for column in range(self.columns)]
        wide = np.full((whole.shape[0], whole.shape[1] + before[-1], 3), 255, dtype=np.uint8)
        for column, gap in enumerate(before):
            start = column * side
            wide[:, start + gap : start + gap + side + border] = whole[:, start : start + side + border]
        return wide, [column * side + gap + (side + border) / 2 for column, gap in enumerate(before)], side


def sigmas(steps: int, reach: float) -> list[str]:
    """−2σ to +2σ, for a ``reach`` of 2, in so many steps: the labels of a walk."""
    words = [f"{value:+.1f}".replace("-", "−").replace(".0", "") for value in np.linspace(-reach, reach, steps)]
    return ["0" if word in ("+0", "−0") else f"{word}σ" for word in words]


def draw(grids: Sequence[Grid], names: Sequence[str], dataset: str, bare: bool = False) -> "Figure":
    """One grid for each name, side by side or one above the other; with ``bare`` no words and no gaps in a grid."""
    from matplotlib.figure import Figure

    pictures = [grid.picture(gaps=not bare) for grid in grids]
    stacked = sum(grid.columns for grid in grids) > WIDEST or any(grid.left for grid in grids)
    figure = Figure(figsize=(1, 1), dpi=plots.DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    total = [picture.shape[1] for picture, *_ in pictures]
    scale = float(np.clip((max if stacked else sum)(total) / FULL_SIZE, 1, 1.4))
    x = y = width = height = 0
    for grid, name, (picture, centres, side) in zip(grids, names, pictures, strict=True):
        rows, columns = picture.shape[:2]
        axis.imshow(picture, extent=(x, x + columns, y + rows, y), interpolation="nearest")
        if not bare:
            about = ": ".join(filter(None, (name, grid.note))) if len(grids) > 1 else ""
            _add_words(axis, grid, about, (x, y), centres, side, rows, scale)
        width, height = max(width, x + columns), max(height, y + rows)
        gap = round(scale * (BLOCK_GAP + (24 if grid.across else 0) if stacked else 2 * GAP))
        x, y = (0, height + gap) if stacked else (width + gap, 0)
    box = np.array([[0, 0], [width, height]], dtype=float)
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    figure.set_size_inches(width / plots.DPI, height / plots.DPI)
    if not bare:
        found = figure.get_tightbbox().get_points() * plots.DPI  # of the pixels from the lower left corner
        title = f"{grids[0].what}, {grids[0].note}" if grids[0].note and len(grids) == 1 else grids[0].what
        title = f"{names[0]} on {dataset}: {title}" if len(grids) == 1 else f"{dataset}: {title}"
        place = height - found[1, 1] - 8 * scale
        label = axis.text(0, place, plots.plain(title), fontsize=8 * scale, va="bottom", ha="left")
        extent = label.get_window_extent().get_points()
        both = np.stack([np.minimum(found[0], extent[0]), np.maximum(found[1], extent[1])])
        box = np.stack([np.floor(both[0]) - MARGIN, np.ceil(both[1]) + MARGIN])
    whole = box[1] - box[0]
    figure.set_size_inches(*(whole / plots.DPI))
    axis.set_position((*(-box[0] / whole), width / whole[0], height / whole[1]))
    return figure


def _add_words(
    axis, grid: Grid, name: str, corner: tuple[int, int], centres: list[float], side: int, rows: int, scale: float
) -> None:
    """The labels of one grid, whose upper left corner is given, in pixels."""
    x, y = corner
    top: float = y - 4
    for column, centre in enumerate(centres if grid.top else ()):
        word = plots.plain(grid.top[column % len(grid.top)])
        axis.text(x + centre, top, word, ha="center", va="bottom", fontsize=7 * scale)
    for row, word in enumerate(grid.left):
        axis.text(x - 6, y + 1 + (row + 0.5) * side, plots.plain(word), ha="right", va="center", fontsize=7 * scale)
    top -= 20 * scale if grid.top else 0
    if grid.across:
        axis.text(x, top, plots.plain(grid.across), ha="left", va="bottom", fontsize=7 * scale)
        top -= 20 * scale
    if grid.down:
        place = x - scale * (14 + WIDTH * max(map(len, grid.left), default=0))
        style = {"ha": "right", "va": "center", "rotation": 90, "fontsize": 7 * scale}
        axis.text(place, y + rows / 2, plots.plain(grid.down), **style)
    if name:
        axis.text(x, top - 2, plots.plain(name), ha="left", va="bottom", fontsize=8 * scale, weight="bold")


def write_images(folder: Path, batches: Iterable[Tensor]) -> int:
    """Write images ``(B, C, H, W)`` in [0, 1] as ``000000.png``, ..., rounded to 8 bits; how many.

    Raises UserError where the folder holds anything: it would be measured with them.
    """
    from PIL import Image

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save-images {folder}: expected an empty folder, or one that does not exist yet")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"--save-images {folder}: not an empty folder; give another, or empty it")
    files.written.append(folder)
    pixels = (image for batch in batches for image in batch.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    number = 0
    for number, image in enumerate(pixels, 1):
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(folder / f"{number - 1:06}.png")
    return number
