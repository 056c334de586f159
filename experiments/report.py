"""What ``reproduce.py`` found, written down: a Markdown table, a figure, the numbers, and one page of HTML for all."""

import base64
import html
import json
import statistics
import textwrap
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from experiments.columns import COLUMNS, Column
from experiments.tables import Row, Table
from utils import files, plots

OTHER_COLUMNS = {
    "isometry_ssim": Column("isometry r, 1 − SSIM"),
    "metric_variation": Column("variation of the metric"),
    "pearson": Column("Pearson r", ".4f"),
    "spearman": Column("Spearman ρ", ".4f"),
    "precision": Column("precision"),
    "recall": Column("recall"),
    "f1": Column("F1"),
    "roc_auc": Column("ROC-AUC"),
}


@dataclass
class Line:
    """A row of a table with what was measured for it.

    Attributes:
        values: of each metric, one for every seed that gave one.
        failures: one message for each cell that gave none.
        configurations: of each cell that gave some: everything its numbers depend on.
    """

    row: Row
    values: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    configurations: list[dict] = field(default_factory=list)

    def mean(self, metric: str) -> float | None:
        values = self.values.get(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float:
        """Of the sample, n − 1; 0 for one seed."""
        values = self.values.get(metric, [])
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass
class Result:
    """A table with its numbers.

    Attributes:
        dataset: that was used; None where the rows say.
        suffix: of FID's and KID's names, "" or "_cls"; None where they were left out.
        budget: epochs, precision, seeds, samples, accuracy of the classifier, device and command.
    """

    table: Table
    dataset: str | None
    suffix: str | None
    lines: list[Line]
    budget: dict

    def metric(self, column: str) -> str:
        """``fid_mvg`` as the features name it: ``fid_cls_mvg``."""
        for kind in ("fid_", "kid_"):
            if column.startswith(kind):
                return column.replace(kind, f"{kind[:-1]}{self.suffix or ''}_", 1)
        return column

    def wanted(self, column: str) -> bool:
        """Whether a column was asked for: with ``--features none`` FID and KID were not."""
        return self.suffix is not None or not column.startswith(("fid_", "kid_"))

    def published(self) -> dict[str, dict[str, float]]:
        """The published numbers; none where another data set was used."""
        return self.table.published if self.dataset == self.table.dataset else {}


def column_of(metric: str) -> Column:
    if metric.startswith("accuracy_"):
        return Column(f"{int(metric.removeprefix('accuracy_')):,} labels", ".4f")
    return COLUMNS.get(metric) or OTHER_COLUMNS[metric]


def number(line: Line, metric: str, seeds: int) -> str:
    """Mean, and ± standard deviation of several seeds; why there is none."""
    mean = line.mean(metric)
    if mean is None:
        return f"failed: {line.failures[0]}".replace("|", "/") if line.failures else "–"
    form = column_of(metric).form
    if form.endswith("d") and len(line.values[metric]) > 1:
        form = form.replace("d", ".1f")
    text = format(round(mean) if form.endswith("d") else mean, form)
    if len(line.values[metric]) > 1:
        text += f" ± {format(line.std(metric), form)}"
    missing = seeds - len(line.values[metric])
    return text + (f" ({missing} of {seeds} seeds failed)" if missing and line.failures else "")


def cells_of(result: Result) -> tuple[list[str], list[list[str]]]:
    """Titles and texts of the table; a metric that no line has (no prior, say) is left out unless cells failed."""
    published, seeds = result.published(), len(result.budget["seeds"])
    failed = any(line.failures for line in result.lines)
    titles, columns = ["model"], [[line.row.label for line in result.lines]]
    for name in result.table.columns:
        metric = result.metric(name)
        if not result.wanted(name):
            continue
        if not failed and all(line.mean(metric) is None for line in result.lines):
            continue
        if name in published:
            kind = "FID (Inception)" if name.startswith("fid") else column_of(name).title
            titles.append(f"{kind}, published")
            columns.append([format(published[name].get(line.row.label, "–"), "") for line in result.lines])
        titles.append(column_of(metric).title)
        columns.append([number(line, metric, seeds) for line in result.lines])
    return titles, [list(line) for line in zip(*columns, strict=True)]


def claims(result: Result) -> list[str]:
    """What the published table shows, held against ours: one sentence each."""
    sentences = []
    for kind, name in result.table.claims:
        if not result.wanted(name):
            continue
        metric = result.metric(name)
        title = column_of(metric).title
        means = [(line.row.label, line.mean(metric)) for line in result.lines]
        if any(mean is None for _, mean in means):
            sentences.append(f"{title}: not every row has a number, so the published order cannot be checked.")
            continue
        values = [mean for _, mean in means]
        shown = ", ".join(f"{label}: {value:.4g}" for label, value in means)
        if kind == "inside":
            best = min(range(len(values)), key=values.__getitem__)
            holds = 0 < best < len(values) - 1
            sentence = f"{title} has its best value in between"
        else:
            steps = [b - a for a, b in pairwise(values)]
            holds = all(step < 0 if kind == "falls" else step > 0 for step in steps)
            sentence = f"{title} {kind} from row to row"
        verdict = "as published" if holds else f"NOT found here, after {result.budget['epochs']} epochs"
        sentences.append(f"{sentence}: {verdict} ({shown}).")
    return sentences


def about(result: Result) -> list[str]:
    """Where the numbers come from, a sentence each."""
    budget = result.budget
    seeds = budget["seeds"]
    lines = [
        f"Data: {result.dataset or 'as the rows say'}. Epochs of training: {budget['epochs']}, {budget['precision']}. "
        f"Seeds: {', '.join(map(str, seeds))}{' (mean ± standard deviation)' if len(seeds) > 1 else ''}. "
        f"{budget['device']}, {time.strftime('%Y-%m-%d')}. Command: `{budget['command']}`."
    ]
    if any(column.startswith(("fid_", "kid_")) and result.wanted(column) for column in result.table.columns):
        kind = "FID by the standard Inception features"
        if result.suffix:
            accuracy = budget["classifier_accuracy"]
            kind = "FID_cls by the features of a classifier of this data set" + (
                f" (test accuracy {accuracy:.4f})" if accuracy else ""
            )
            kind += ": not comparable with a published FID, but in its order"
        lines.append(f"{kind}; {budget['fid_samples']:,} samples against the test images.")
    if result.table.published and not result.published():
        lines.append(f"The published numbers are of {result.table.dataset} and so not shown beside these.")
    return lines


def markdown(result: Result) -> list[str]:
    """Lines of a section: title, provenance, table, and what of the published order was found."""
    titles, rows = cells_of(result)
    lines = [f"## {result.table.title}", "", *about(result), ""]
    lines += ["| " + " | ".join(line) + " |" for line in (titles, ["---"] * len(titles), *rows)]
    if sentences := claims(result):
        lines += ["", *(f"- {sentence}" for sentence in sentences)]
    return [*lines, ""]


def draw_curves(result: Result) -> "plots.Figure":
    """A curve for each row through the figure's columns, which stand along a logarithmic axis."""
    figure, ((axis,),) = plots.subplots(size=(5.5, 3.8))
    for line in result.lines:
        known = [
            (position, line.mean(name), line.std(name))
            for position, name in zip(result.table.positions, result.table.figure, strict=True)
            if line.mean(name) is not None
        ]
        if known:
            axis.errorbar(*zip(*known, strict=True), marker="o", capsize=3, label=line.row.label)
    axis.set(xscale="log", xlabel=result.table.axis)
    if axis.lines:
        axis.legend(fontsize=8)
    return figure


def draw(result: Result) -> "plots.Figure":
    """A panel for each of the table's figure columns: curves where the rows have an x, otherwise bars."""
    shown = [(name, result.metric(name)) for name in result.table.figure]
    shown = [pair for pair in shown if any(line.mean(pair[1]) is not None for line in result.lines)]
    if not shown:
        return plots.subplots()[0]
    width = max(3.8, 0.45 * len(result.lines)) if result.lines[0].row.x is None else 3.8
    figure, axes = plots.subplots(1, len(shown), size=(width * len(shown), 3.4))
    for axis, (name, metric) in zip(axes[0], shown, strict=True):
        present = [line for line in result.lines if line.mean(metric) is not None]
        published = result.published().get(name, {})
        if present[0].row.x is None:
            labels = [line.row.label for line in present]
            errors = [line.std(metric) for line in present] if len(result.budget["seeds"]) > 1 else None
            axis.bar(labels, [line.mean(metric) for line in present], yerr=errors, capsize=3, color="tab:blue")
            axis.tick_params(axis="x", rotation=60 if len(labels) > 4 else 20, labelsize=8)
        else:
            for series in dict.fromkeys(line.row.series for line in present):
                own = [line for line in present if line.row.series == series]
                axis.errorbar([line.row.x for line in own], [line.mean(metric) for line in own],
                              [line.std(metric) for line in own], marker="o", capsize=3,
                              label=f"{series} {result.budget['epochs']} epochs".strip())  # fmt: skip
                known = [(line.row.x, published[line.row.label]) for line in own if line.row.label in published]
                if known:
                    word = "published" + (" (Inception)" if name.startswith("fid") else "")
                    axis.plot(*zip(*known, strict=True), "--x", label=f"{series} {word}".strip())
            axis.set_xlabel(result.table.axis)
            axis.legend(fontsize=8)
        axis.set_title(column_of(metric).title, fontsize=10)
    return figure


def write(folder: Path, name: str, result: Result) -> None:
    """``<folder>/<name>.md``, ``.png`` and ``.json``."""
    with files.replacing(folder / f"{name}.md") as temporary:
        temporary.write_text("\n".join(markdown(result)))
    figure = draw_curves(result) if result.table.positions else draw(result)
    where = f" on {result.dataset}" if result.dataset else ""
    figure.suptitle(textwrap.fill(f"{result.table.title}{where}", 70), fontsize=10)
    plots.save_figure(folder / f"{name}.png", figure)
    rows = [
        {"label": line.row.label, "values": line.values, "failures": line.failures, "cells": line.configurations}
        for line in result.lines
    ]
    content = {"title": result.table.title, "dataset": result.dataset, "budget": result.budget, "rows": rows}
    files.write_json(folder / f"{name}.json", content)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
th button { all: unset; cursor: pointer; font-weight: 600 }
th button:focus-visible { outline: 2px solid #06c }
th[aria-sort=ascending] button::after { content: " ▲" }
th[aria-sort=descending] button::after { content: " ▼" }
td.failed { background: #fdd; text-align: left }
img { max-width: 100% }
pre { background: #f6f6f6; padding: .6rem; text-align: left; overflow-x: auto; font-size: 12px }
"""
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")], body = table.querySelector("tbody");
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.value;
    [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)], [u, v] = [parseFloat(x), parseFloat(y)];
      if (Number.isNaN(u) !== Number.isNaN(v)) return Number.isNaN(u) ? 1 : -1;  // what has no number comes last
      return direction * (Number.isNaN(u) ? x.localeCompare(y) : u - v);
    }).forEach(row => body.append(row));
  }));
}
"""


def html_table(result: Result) -> str:
    """The table with a button in each heading that sorts by it, and each row's configurations below it."""
    titles, rows = cells_of(result)
    lines = ["<table><thead><tr>"]
    lines += [f'<th scope="col"><button type="button">{html.escape(title)}</button></th>' for title in titles]
    lines.append("</tr></thead><tbody>")
    for line, texts in zip(result.lines, rows, strict=True):
        lines.append("<tr>")
        for index, text in enumerate(texts):
            value = text.replace(",", "") if index or line.row.x is None else str(line.row.x)
            failed = ' class="failed"' if text.startswith("failed") else ""
            detail = ""
            if index == 0 and line.configurations:
                shown = html.escape(json.dumps(line.configurations, indent=1, ensure_ascii=False))
                detail = f"<details><summary>configuration</summary><pre>{shown}</pre></details>"
            lines.append(f'<td data-value="{html.escape(value)}"{failed}>{html.escape(text)}{detail}</td>')
        lines.append("</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def write_html(path: Path, results: dict[str, Result], folder: Path) -> None:
    """One page with all tables and figures in it: nothing is fetched when it opens."""
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>Reproduced tables</title>',
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<style>{STYLE}</style></head><body><h1>Reproduced tables</h1>"]  # fmt: skip
    for name, result in results.items():
        picture = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in claims(result))
        parts += [
            f'<section id="{name}"><h2>{html.escape(result.table.title)}</h2>',
            *(f"<p>{html.escape(sentence)}</p>" for sentence in about(result)),
            html_table(result),
            f"<ul>{sentences}</ul>" if sentences else "",
            f'<img alt="{html.escape(result.table.title)}" src="data:image/png;base64,{picture}"></section>',
        ]
    parts.append(f"<script>{SCRIPT}</script></body></html>")
    with files.replacing(path) as temporary:
        temporary.write_text("\n".join(parts))
