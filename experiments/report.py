"""The tables of ``reproduce.py`` written down: Markdown, a figure, JSON, and one page of HTML for all of them."""

import base64
import json
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.columns import column_of
from experiments.results import Line, Result, claims, trained_by
from utils import files, plots

if TYPE_CHECKING:  # matplotlib is imported where a figure is made
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html")


def number(line: Line, metric: str, seeds: int) -> str:
    """Mean, and ± standard deviation of several seeds; why there is none."""
    values = line.values(metric)
    if not values:
        return f"failed: {line.failures[0]}".replace("failed: not run", "not run") if line.failures else "–"
    form = column_of(metric).form
    form = form.replace("d", ".1f") if len(values) > 1 else form  # of whole numbers
    text = format(round(values[0]) if form.endswith("d") else line.mean(metric), form)
    text += f" ± {format(line.std(metric), form)}" if len(values) > 1 else ""
    missing, word = seeds - len(values), "not run" if set(line.failures) == {"not run"} else "failed"
    return text + (f" ({missing} of {seeds} seeds {word})" if missing and line.failures else "")


def texts_of(result: Result) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table; a metric that no line has (no prior, say) is left out unless cells failed."""
    failed = any(line.failures for line in result.lines)
    header, columns = ["model"], [[line.row.label for line in result.lines]]
    for name in result.columns():
        metric = result.metric(name)
        if not failed and not any(line.values(metric) for line in result.lines):
            continue
        if published := result.published(name):
            header.append(f"{'FID (Inception)' if name.startswith('fid') else column_of(name).title}, published")
            columns.append(["–" if value is None else str(value) for value in published])
        header.append(column_of(metric).title)
        columns.append([number(line, metric, len(result.budget["seeds"])) for line in result.lines])
    return header, [list(line) for line in zip(*columns, strict=True)]


def provenance(cells: list[dict]) -> str:
    """Devices, versions and dates of cells in a sentence."""
    known = [cell["provenance"] for cell in cells if "provenance" in cell]
    trained = {str(each.get("device_name")) for cell in cells for each in trained_by(cell)}
    devices = {"{device_name} ({device}, {threads} threads)".format(**each) for each in known}
    parts = [*(f"{name} (trainings)" for name in sorted(trained)), *sorted(devices)]
    parts += sorted({"Python {python}, torch {torch}".format(**each) for each in known})
    if known:
        parts.append("commit " + ", ".join(sorted({each["commit"] for each in known})))
        parts.append(" to ".join(sorted({pick(each["date"] for each in known) for pick in (min, max)})))
    if len(known) < len(cells):
        parts.append(f"{len(cells) - len(known)} cells of an earlier version, which do not name their device")
    return "; ".join(parts)


def about(result: Result) -> list[str]:
    """Where the numbers come from, a sentence each."""
    budget, cells = result.budget, [cell for line in result.lines for cell in line.cells]
    seeds = ", ".join(map(str, budget["seeds"])) + (" (mean ± standard deviation)" if len(budget["seeds"]) > 1 else "")
    sentences = [
        f"Data: {result.dataset or 'as the rows say'}. Epochs of training: {budget['epochs']}, {budget['precision']}. "
        f"Seeds: {seeds}. Command: `{budget['command']}`."
    ]
    if cells:
        sentences.append(f"Made on: {provenance(cells)}.")
    if any(name.startswith(("fid_", "kid_")) for name in result.columns()):
        kind = "FID by the standard Inception features"
        if result.suffix:
            accuracy = max((cell["metrics"].get("classifier_accuracy") or 0 for cell in cells), default=0)
            known = f" (test accuracy {accuracy:.4f})" if accuracy else ""
            kind = f"FID_cls by the features of a classifier of this data set{known}: not comparable with a published "
            kind += "FID, but in its order"
        biased = ", fewer than 10,000: biased upwards" * (budget["fid_samples"] < 10_000)
        sentences.append(f"{kind}; {budget['fid_samples']:,} samples against the test images{biased}.")
    if result.table.published and result.dataset != result.table.dataset:
        sentences.append(f"The published numbers are of {result.table.dataset} and so not shown beside these.")
    return sentences


def markdown(result: Result) -> str:
    """A section: title, provenance, table, and what of the published order was found."""
    parts = [f"## {result.table.title}", "\n".join(about(result)), files.markdown_table(*texts_of(result)).rstrip()]
    parts += ["\n".join(f"- {sentence}" for sentence in claims(result))] * bool(claims(result))
    return "\n\n".join(parts) + "\n"


def draw(result: Result) -> "Figure":
    """Curves along ``table.positions`` or the rows' x, with the published numbers; without either, bars."""
    names = [name for name in result.table.figure if any(line.values(result.metric(name)) for line in result.lines)]
    if result.table.positions or not names:
        figure, ((axis,),) = plots.subplots(size=(5.5, 3.8))
        draw_rows(axis, result)
    else:
        along_x = result.lines[0].row.x is not None
        width = 2.3 if along_x else max(3.2, 0.4 * len(result.lines))
        # FID_cls is no FID: their numbers have no axis in common.
        apart = [name for name in names if along_x and result.published(name) and result.metric(name) != name]
        figure, axes = plots.subplots(1, len(names) + len(apart), size=(width * (len(names) + len(apart)), 2.9))
        panels = iter(axes[0])
        for name in names:
            if name in apart:
                draw_series(axis := next(panels), result, name, own=False)
                axis.set_title(f"{column_of(name).title} (Inception)", fontsize=10)
            draw_series(axis := next(panels), result, name, published=name not in apart)
            axis.set_title(column_of(result.metric(name)).title, fontsize=10)
        if along_x:  # colours and dashes are the same everywhere: one legend, where both are
            max(axes[0], key=lambda axis: len(axis.get_legend_handles_labels()[1])).legend(fontsize=8)
    where = f" on {result.dataset}" if result.dataset else ""
    figure.suptitle(textwrap.fill(f"{result.table.title}{where}", int(12 * figure.get_figwidth())), fontsize=10)
    return figure


def curve(axis: "Axes", points: list[tuple], label: str, color: str | None = None) -> None:
    """A curve through (x, mean, standard deviation); none without points."""
    if points:
        x, y, error = zip(*points, strict=True)
        axis.errorbar(x, y, error if any(error) else None, marker="o", capsize=3, label=label, color=color)


def draw_rows(axis: "Axes", result: Result) -> None:
    """A curve for each row through the figure's columns, which stand along a logarithmic axis."""
    places = list(zip(result.table.positions, result.table.figure, strict=False))
    for line in result.lines:
        points = [(place, line.mean(name), line.std(name)) for place, name in places if line.values(name)]
        curve(axis, points, line.row.label)
    axis.set(xscale="log", xlabel=result.table.axis, ylabel="test accuracy")
    if axis.lines:
        axis.legend(fontsize=8)


def draw_bars(axis: "Axes", result: Result, name: str) -> None:
    metric = result.metric(name)
    lines = [line for line in result.lines if line.values(metric)]
    errors = [line.std(metric) for line in lines] if len(result.budget["seeds"]) > 1 else None
    axis.bar([line.row.label for line in lines], [line.mean(metric) for line in lines], yerr=errors, capsize=3)
    axis.tick_params(axis="x", rotation=60 if len(lines) > 4 else 20, labelsize=8)


def draw_series(axis: "Axes", result: Result, name: str, own: bool = True, published: bool = True) -> None:
    """A curve for each series of rows over their x and a dashed one through the published numbers; without x, bars."""
    if result.lines[0].row.x is None:
        return draw_bars(axis, result, name)
    metric, known = result.metric(name), result.published(name) or (None,) * len(result.lines)
    for number, series in enumerate(dict.fromkeys(line.row.series for line in result.lines)):
        rows = [(line, value) for line, value in zip(result.lines, known, strict=True) if line.row.series == series]
        points = [(line.row.x, line.mean(metric), line.std(metric)) for line, _ in rows if line.values(metric)]
        if own:
            curve(axis, points, f"{series} {result.budget['epochs']} epochs".strip(), color=f"C{number}")
        if theirs := [(line.row.x, value) for line, value in rows if value is not None and published]:
            axis.plot(*zip(*theirs, strict=True), "--x", label=f"{series} published".strip(), color=f"C{number}")
    axis.set_xlabel(result.table.axis)
    axis.locator_params(axis="x", integer=True, nbins=5)


def origins(line: Line) -> list[dict]:
    """Of each cell of a row everything but its numbers."""
    found = []
    for cell in line.cells:
        commands = {key: shlex.join(cell[key]) for key in ("command", "training_command") if cell.get(key)}
        found.append(commands | {key: cell.get(key) for key in ("trained_by", "provenance")} | cell["config"])
    return found


def write(folder: Path, name: str, result: Result) -> None:
    """``<folder>/<name>.md``, ``.png`` and ``.json``."""
    files.write_text(folder / f"{name}.md", markdown(result))
    plots.save_figure(folder / f"{name}.png", draw(result))
    rows = []
    for line in result.lines:
        values = {metric: line.values(metric) for cell in line.cells for metric in cell["metrics"]}
        rows.append({"label": line.row.label, "values": values, "failures": line.failures, "cells": origins(line)})
    content = {"title": result.table.title, "dataset": result.dataset, "budget": result.budget, "rows": rows}
    files.write_json(folder / f"{name}.json", content)


def write_html(path: Path, results: dict[str, Result], folder: Path) -> None:
    """One page with all tables and figures in it: nothing is fetched when it opens."""
    from jinja2 import Environment

    sections = []
    for name, result in results.items():
        header, rows = texts_of(result)
        lines = [
            (line.row.x, row, json.dumps(origins(line), indent=1, ensure_ascii=False) if line.cells else "")
            for line, row in zip(result.lines, rows, strict=True)
        ]
        picture = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        section = {"name": name, "title": result.table.title, "about": about(result), "claims": claims(result)}
        sections.append(section | {"header": header, "rows": lines, "picture": picture})
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text())
    files.write_text(path, template.render(sections=sections))
