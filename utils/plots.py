"""Figures, written whole or not at all. matplotlib is imported where one is made: --help does not wait for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINIMUM_TILE = 64  # pixels: smaller images are enlarged by a whole factor, pixel by pixel
DPI = 150  # pixels per inch, where nothing else is asked for


def image_grid(images: Tensor, columns: int) -> Tensor:
    """``(N, C, H, W)`` in [0, 1] as one picture ``(3, H', W')``, row by row."""
    from torchvision.utils import make_grid

    factor = max(1, MINIMUM_TILE // images.shape[-1])
    tiles = F.interpolate(images.clamp(0, 1), scale_factor=factor, mode="nearest")
    return make_grid(tiles, nrow=columns, padding=2, pad_value=1.0)


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write ``image_grid`` as PNG."""
    save_picture(path, image_grid(images, columns))


def save_picture(path: Path, picture: Tensor) -> None:
    """Write ``(3, H, W)`` in [0, 1] as PNG."""
    from torchvision.utils import save_image

    with replacing(path) as temporary:
        save_image(picture, temporary, format="png")


def side_by_side(inputs: Tensor, outputs: Tensor) -> Tensor:
    """``(2N, C, H, W)``: each input followed by its output."""
    return torch.stack([inputs, outputs.to(inputs)], dim=1).flatten(0, 1)


def subplots(rows: int = 1, columns: int = 1, *, size: tuple, **options) -> "tuple[Figure, np.ndarray]":
    """A figure of ``size`` (inches), its axes ``(rows, columns)``; without pyplot: a notebook's backend stays."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save_figure(path: Path, figure: "Figure", dpi: int = DPI) -> None:
    """Write a figure in the format of the path's suffix; ``dpi``: pixels per inch, of vectors' bitmaps in it too.

    A figure without a layout, of images, is enlarged by a whole factor only: each of its pixels stays a square.
    """
    from matplotlib import rc_context

    box = "tight" if figure.get_layout_engine() else None
    with replacing(path) as temporary, rc_context({"pdf.fonttype": 42}):  # text as text, as journals want it
        figure.savefig(
            temporary, format=path.suffix[1:], dpi=dpi if box else DPI * max(1, round(dpi / DPI)), bbox_inches=box
        )


def plain(name: str) -> str:
    """A user's name as matplotlib is to show it: a dollar in it begins no formula."""
    return name.replace("$", r"\$")


def spectra(curves: dict[str, np.ndarray], threshold: float, marks: Sequence[tuple[int, str]] = ()) -> "Figure":
    """Normalised singular values of several models: linear scale on the left, logarithmic on the right.

    Args:
        curves: label to singular values, largest first, divided by the largest; above ``threshold`` they count as rank.
        marks: x positions to mark with a dashed line and a word.
    """
    many = len(curves) > 6  # a legend among them would cover some
    figure, (axes,) = subplots(1, 2, size=(10 if many else 8.4, 3.4))
    for axis, scale in zip(axes, ("linear", "log"), strict=True):
        for label, values in curves.items():
            shown = np.where(values > 0, values, np.nan) if scale == "log" else values
            axis.plot(np.arange(1, len(values) + 1), shown, label=plain(label), marker=".", markersize=4, linewidth=1.2)
        axis.set(yscale=scale, xlabel="index of the singular value", ylabel="σ / σ₁")
        axis.xaxis.get_major_locator().set_params(integer=True)
        for position, word in marks:
            axis.axvline(position, color="black", linestyle="--", linewidth=0.8)
            axis.annotate(word, (position, 0.97), xycoords=("data", "axes fraction"), xytext=(3, 0),
                          textcoords="offset points", va="top", fontsize=8)  # fmt: skip
    axes[0].set_xlim(0, 1.15 * max(5, *(int((values > threshold).sum()) for values in curves.values())))
    axes[1].set(xlim=(0, None), ylim=(1e-9, 2))  # below float32's precision of the covariance there is only rounding
    axes[1].axhline(threshold, color="grey", linestyle=":", linewidth=0.8)
    axes[1].set_title(f"dotted: σ / σ₁ = {threshold:g}, above which values count as rank", fontsize=8, color="grey")
    beside = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if many else {}
    axes[1 if many else 0].legend(fontsize=8, **beside)
    figure.suptitle("Singular values of the latent covariance", fontsize=11)
    return figure


def dimension(runs: Sequence[dict]) -> "Figure":
    """Spectra with the gap marked, and error by number of kept coordinates.

    ``runs``: "model", "spectrum" (n,), "errors" (n,), "estimate": the coordinates before the gap.
    """
    figure, (axes,) = subplots(1, 2, size=(10, 3.8))
    for run in runs:
        rank, index = run["estimate"], np.arange(1, len(run["spectrum"]) + 1)
        for axis, values in zip(axes, (np.maximum(run["spectrum"], 1e-16), run["errors"]), strict=True):
            (line,) = axis.plot(index, values, marker=".", markersize=4, linewidth=1.2, label=f"{run['model']}: {rank}")
            axis.plot(rank, values[rank - 1], marker="o", markersize=9, fillstyle="none", color=line.get_color())
            axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set(yscale="log", xlabel="index of the singular value", ylabel="σ / σ₁", title="codes' covariance")
    axes[1].set(yscale="log", xlabel="kept coordinates", ylabel="squared error / variance", title="test rows")
    axes[0].legend(fontsize=8, title="circle: before the gap", title_fontsize=8)
    return figure


def bars(names: Sequence[str], values: np.ndarray, what: str, title: str) -> "Figure":
    """A bar for each name; of more than 40, by their position."""
    many = len(names) > 40
    figure, ((axis,),) = subplots(size=(min(12, 2 + 0.25 * len(names)), 3.2))
    axis.bar(np.arange(1, len(values) + 1), values, width=1.0 if many else 0.8)
    if not many:
        turned = 90 if max(map(len, names)) > 3 else 0
        axis.set_xticks(range(1, len(names) + 1), [plain(name) for name in names], rotation=turned, fontsize=8)
    axis.set(xlabel=what, ylabel=title)
    return figure


def embedding(
    points: np.ndarray, labels: np.ndarray | None, classes: list[str] | None, sampled: np.ndarray
) -> "Figure":
    """A map ``(N, 2)``: test images coloured by class, if any, on the left, sampled images over them on the right.

    Args:
        labels: ``(M,)`` of the test images.
        sampled: ``(N,)`` True where the point is a sampled image.
    """
    from matplotlib import colormaps

    figure, (axes,) = subplots(1, 2, size=(8.4, 4.6), sharex=True, sharey=True)
    real = points[~sampled]
    groups: list[tuple] = [(real, "tab:blue", "test images")]
    if labels is not None and classes is not None:
        colours = colormaps["tab10" if len(classes) <= 10 else "tab20"]
        groups = [(real[labels == k], colours(k % colours.N), plain(name)) for k, name in enumerate(classes)]
    over = [(real, "lightgrey", "test images"), (points[sampled], "tab:red", "sampled images")]
    for axis, title, parts in zip(axes, ("test images", "sampled images over them"), (groups, over), strict=True):
        for part, colour, label in parts:
            axis.scatter(*part.T, s=6, color=colour, label=label)
        axis.legend(fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=5)
        axis.set(title=title, xticks=[], yticks=[])
    return figure


def density_scatter(density: np.ndarray, log_estimates: dict[str, np.ndarray], component: np.ndarray) -> "Figure":
    """Estimated against true density ``(N,)``, one panel for each model, points coloured by component ``(N,)``.

    Args:
        log_estimates: title to ``(N,)`` logarithm of the estimate, shown divided by its largest value.
    """
    columns = min(3, len(log_estimates))
    rows = -(-len(log_estimates) // columns)
    figure, axes = subplots(rows, columns, size=(2.8 * columns, 2.8 * rows))
    for axis in axes.flat[len(log_estimates) :]:
        axis.set_axis_off()
    for axis, (title, log_estimate) in zip(axes.flat, log_estimates.items(), strict=False):
        estimate = np.exp(log_estimate - log_estimate.max())
        for index in np.unique(component):
            chosen = component == index
            axis.plot(density[chosen], estimate[chosen], ".", markersize=2, label=f"component {index}", rasterized=True)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("true density")
    for line in axes:
        line[0].set_ylabel("estimated density / its largest", fontsize=9)
    axes[0, 0].legend(fontsize=8, markerscale=4)
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str], matched: dict[int, int], title: str) -> "Figure":
    """Images of each class in each cluster ``(clusters, classes)``, clusters in the order of their matched classes."""
    order = sorted(range(len(counts)), key=lambda cluster: matched.get(cluster, len(classes)))
    figure, ((axis,),) = subplots(size=(0.5 * len(classes) + 2, 0.45 * len(counts) + 1.5))
    shown = axis.imshow(counts[order], cmap="Blues", aspect="auto")
    figure.colorbar(shown, ax=axis, label="test images", shrink=0.8)
    axis.set_title(title, fontsize=10)
    for (row, column), count in np.ndenumerate(counts[order]):
        colour = "white" if count > counts.max() / 2 else "black"
        axis.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    rotation = 45 if max(map(len, classes)) > 2 else 0
    axis.set_xticks(range(len(classes)), [plain(name) for name in classes], rotation=rotation)
    axis.set_yticks(range(len(order)), order)
    axis.set(xlabel="label", ylabel="class found without labels")
    return figure
