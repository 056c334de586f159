"""The figure of a table of ``reproduce.py``: a panel for each column that it names, or one panel with a curve a row."""

import textwrap
from typing import TYPE_CHECKING

from experiments.columns import column_of
from experiments.results import Result
from utils import plots

if TYPE_CHECKING:  # matplotlib is imported where a figure is made
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(result: Result) -> "Figure":
    """Curves along ``table.positions`` or the rows' x, with the published numbers; without either, bars."""
    names = [name for name in result.table.figure if any(line.values(result.metric(name)) for line in result.lines)]
    if result.table.positions or not names:
        figure, ((axis,),) = plots.subplots(size=(5.5, 3.8))
        draw_rows(axis, result)
    else:
        along_x = result.lines[0].row.x is not None
        width = 3.8 if along_x else max(3.8, 0.45 * len(result.lines))
        figure, axes = plots.subplots(1, len(names), size=(width * len(names), 3.4))
        for axis, name in zip(axes[0], names, strict=True):
            (draw_series if along_x else draw_bars)(axis, result, name)
            axis.set_title(column_of(result.metric(name)).title, fontsize=10)
    where = f" on {result.dataset}" if result.dataset else ""
    figure.suptitle(textwrap.fill(f"{result.table.title}{where}", 70), fontsize=10)
    return figure


def curve(axis: "Axes", points: list[tuple[float, float, float]], label: str) -> None:
    """A curve through (x, mean, standard deviation); none without points."""
    if points:
        axis.errorbar(*zip(*points, strict=True), marker="o", capsize=3, label=label)


def draw_rows(axis: "Axes", result: Result) -> None:
    """A curve for each row through the figure's columns, which stand along a logarithmic axis."""
    places = list(zip(result.table.positions, result.table.figure, strict=False))
    for line in result.lines:
        points = [(place, line.mean(name), line.std(name)) for place, name in places if line.values(name)]
        curve(axis, points, line.row.label)
    axis.set(xscale="log", xlabel=result.table.axis)
    if axis.lines:
        axis.legend(fontsize=8)


def draw_bars(axis: "Axes", result: Result, name: str) -> None:
    metric = result.metric(name)
    lines = [line for line in result.lines if line.values(metric)]
    errors = [line.std(metric) for line in lines] if len(result.budget["seeds"]) > 1 else None
    axis.bar([line.row.label for line in lines], [line.mean(metric) for line in lines], yerr=errors, capsize=3)
    axis.tick_params(axis="x", rotation=60 if len(lines) > 4 else 20, labelsize=8)


def draw_series(axis: "Axes", result: Result, name: str) -> None:
    """A curve for each series of rows over their x, and a dashed one through the published numbers."""
    metric, published = result.metric(name), result.published(name) or (None,) * len(result.lines)
    word = "published (Inception)" if name.startswith("fid") else "published"
    for series in dict.fromkeys(line.row.series for line in result.lines):
        own = [(line, value) for line, value in zip(result.lines, published, strict=True) if line.row.series == series]
        points = [(line.row.x, line.mean(metric), line.std(metric)) for line, _ in own if line.values(metric)]
        curve(axis, points, f"{series} {result.budget['epochs']} epochs".strip())
        if known := [(line.row.x, value) for line, value in own if value is not None]:
            axis.plot(*zip(*known, strict=True), "--x", label=f"{series} {word}".strip())
    axis.set_xlabel(result.table.axis)
    axis.legend(fontsize=8)
