"""The numbers of the tables of ``reproduce.py``: cells as they lie in files, collected into rows and tables."""

import argparse
import json
import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from experiments.columns import column_of, plausible
from experiments.plan import Plan, dataset_of, features_of, hash_of
from experiments.table_types import Row, Table
from experiments.tables import TABLES

SUFFIXES = {"inception": "", "classifier": "_cls", "none": None}  # of FID's and KID's names, by their features


def read_cell(file: Path) -> dict | None:
    """The result in a file; None where there is none or it is damaged.

    A cell without provenance is of an earlier version, whose SSIM went over the edges of the images: it is left out.
    """
    try:
        cell = json.loads(file.read_text())
        types = {"config": dict, "command": list, "seconds": int | float, "metrics": dict}
        complete = all(isinstance(cell[key], kind) for key, kind in types.items()) and len(cell["metrics"]) > 0
        if "provenance" not in cell:
            cell["metrics"].pop("ssim", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    numbers = cell["metrics"].items()
    usable = complete and file.stem == hash_of(cell["config"]) and all(plausible(key, value) for key, value in numbers)
    return cell if usable else None


def read_cells(folder: Path) -> dict[str, dict]:
    """The results in a folder and those below it, by task key."""
    return {file.stem: cell for file in sorted(folder.rglob("*.json")) if (cell := read_cell(file))}


def trained_by(cell: dict) -> list[dict]:
    """The provenance of each process that trained the model of a cell, as far as it is known."""
    found = cell.get("trained_by")
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


@dataclass
class Line:
    """A row of a table with its cells, as ``read_cell`` gives them, and a message for each that is missing."""

    row: Row
    cells: list[dict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """A value for each seed that gave one."""
        return [cell["metrics"][metric] for cell in self.cells if metric in cell["metrics"]]

    def mean(self, metric: str) -> float:
        return statistics.fmean(self.values(metric))

    def std(self, metric: str) -> float:
        """Of the sample, n − 1; 0 for one seed."""
        return statistics.stdev(self.values(metric)) if len(self.values(metric)) > 1 else 0.0


@dataclass
class Result:
    """A table with its numbers."""

    table: Table
    dataset: str | None  # that was used; None where the rows name their own
    suffix: str | None  # of FID's and KID's names; None where they were left out
    lines: list[Line]
    budget: dict  # epochs, precision, seeds, fid_samples and the command that makes the table

    def metric(self, column: str) -> str:
        """``fid_mvg`` as the features name it: ``fid_cls_mvg``."""
        return column[:3] + (self.suffix or "") + column[3:] if column.startswith(("fid_", "kid_")) else column

    def columns(self) -> list[str]:
        """The columns that were asked for: with ``--features none`` not FID and KID."""
        left_out = ("fid_", "kid_") if self.suffix is None else ()
        return [name for name in self.table.columns if not name.startswith(left_out)]

    def published(self, column: str) -> tuple[float | None, ...]:
        """The published number of each row; empty where there are none, or another data set was used."""
        return self.table.published.get(column, ()) if self.dataset == self.table.dataset else ()


def claims(result: Result) -> list[str]:
    """What the published table shows, checked against ours: one sentence each."""
    sentences = []
    for kind, name in result.table.claims:
        if name not in result.columns():
            continue
        metric = result.metric(name)
        title = column_of(metric).title
        if not all(line.values(metric) for line in result.lines):
            sentences.append(f"{title}: not every row has a number, so the published order cannot be checked.")
            continue
        means = [line.mean(metric) for line in result.lines]
        steps = [b - a for a, b in pairwise(means)]
        inside = 0 < means.index(min(means)) < len(means) - 1
        holds = {"inside": inside, "falls": max(steps) < 0, "rises": min(steps) > 0}[kind]
        sentence = f"{title} has its best value in between" if kind == "inside" else f"{title} {kind} from row to row"
        verdict = "as published" if holds else f"NOT found here, after {result.budget['epochs']} epochs"
        shown = ", ".join(f"{line.row.label}: {mean:.4g}" for line, mean in zip(result.lines, means, strict=True))
        sentences.append(f"{sentence}: {verdict} ({shown}).")
    return sentences


def collect(
    plan: Plan, args: argparse.Namespace, cells: dict[str, dict], failures: dict[str, str], commands: dict[str, str]
) -> dict[str, Result]:
    """The numbers of each table of the plan; ``failures``: why, by task key or group name; ``commands``: by table."""
    results = {}
    for name, rows in plan.rows.items():
        dataset = dataset_of(args, TABLES[name])
        lines = []
        for row, pairs in rows:
            found = [cells[task.key] for _, task in pairs if task.key in cells]
            missing = [(group.name, task.key) for group, task in pairs if task.key not in cells]
            reasons = [failures.get(key) or failures.get(group) or "not run" for group, key in missing]
            lines.append(Line(row, found, reasons))
        budget = {key: getattr(args, key) for key in ("precision", "fid_samples")}
        trained = {group.training.run.epochs for _, pairs in rows for group, _ in pairs if group.training}
        epochs = sorted(trained or {TABLES[name].epochs_at(args.epochs)})  # of presets they differ
        budget |= {"epochs": epochs[0] if len(epochs) == 1 else ", ".join(map(str, epochs))}
        budget |= {"seeds": list(range(args.seed, args.seed + args.seeds)), "command": commands[name]}
        suffix = SUFFIXES[features_of(args, dataset)] if dataset else ""
        results[name] = Result(TABLES[name], dataset, suffix, lines, budget)
    return results
