#!/usr/bin/env python
"""A published table, end to end: train what is missing, evaluate it, write Markdown, the figure and the numbers.

python reproduce.py depth --gpu
python reproduce.py depth variance --epochs 5 --seeds 3 --dry-run
"""

import argparse
import os
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

import data
import models
from data.base import Dataset
from experiments import fid_features as features
from experiments.plan import Plan, as_words, hash_of, make_plan
from experiments.results import collect, read_cells
from experiments.run import RunConfig
from experiments.runner import Runner
from experiments.table_types import FULL_EPOCHS
from experiments.tables import TABLES
from utils import cli, devices, loop
from utils.errors import UserError

TIMED_STEPS = {"cpu": 3, "cuda": 200}  # of the estimate of --dry-run
PLACES = {"data_path", "checkpoint", "save_path", "inception_weights", "jobs"}  # change no number
MODES = {"tables", "dry_run", "commands", "group", "from_cells", "html"}


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.epilog = "Tables beyond one machine, with GNU parallel or Slurm: docs/evaluation.md."
    titles = "; ".join(f"{name}: {table.title}" for name, table in TABLES.items())
    parser.add_argument("tables", nargs="+", choices=[*TABLES, "all"], metavar="TABLE", help=f"{titles}; all: all")
    cli.add_data(parser, data.DATASETS)
    parser.set_defaults(dataset=None)
    group = parser.add_argument_group("budget")
    group.add_argument("--seeds", type=cli.positive, default=1, metavar="S", help="seeds, from --seed on: mean ± std")
    text = "of training; other trainings are scaled by the same factor"
    group.add_argument("--epochs", type=cli.positive, default=FULL_EPOCHS, metavar="E", help=text)
    group.add_argument("--jobs", type=cli.positive, default=1, metavar="J", help="groups side by side on this machine")
    text = "of the trainings; the table names it"
    cli.add_run(parser, 32).add_argument("--precision", choices=list(devices.PRECISIONS), default="fp32", help=text)
    text = "networks of the trainings whose row names none (default: the data set's own)"
    group.add_argument("--arch", choices=list(models.ARCHS), help=text)
    group = parser.add_argument_group("metrics")
    text = "of FID (default: classifier, hence FID_cls, where the data set has labels, else inception); none: no FID"
    group.add_argument("--features", choices=("inception", "classifier", "none"), help=text)
    group.add_argument("--inception-weights", metavar="FILE", help="of FID's network (default: downloaded)")
    text = "samples of each sampler"
    group.add_argument("--fid-samples", type=cli.at_least_two, default=10_000, metavar="N", help=text)
    group = parser.add_argument_group("what is done").add_mutually_exclusive_group()
    group.add_argument("--dry-run", action="store_true", help="print the plan and an estimate of time; run nothing")
    group.add_argument("--commands", action="store_true", help="print one independent command per line; run nothing")
    group.add_argument("--group", metavar="NAME", help="run one group of the plan, as the lines of --commands do")
    text = "report the cells in DIR (<save-path>/reproduce/cells, or a copy of it); run nothing"
    group.add_argument("--from", dest="from_cells", metavar="DIR", help=text)
    group = parser.add_argument_group("files")
    group.add_argument("--checkpoint", default="./checkpoint", metavar="DIR", help="folder of the checkpoints")
    text = "tables and figures go to DIR/reproduce/<table>"
    group.add_argument("--save-path", default="./results", metavar="DIR", help=text)
    group.add_argument("--html", metavar="FILE", help="also write all tables as one page that needs no network")
    return parser


def command_line(args: argparse.Namespace, tables: list[str], without: set[str], **more: object) -> list[str]:
    """The flags that make the same plan for these tables, without those of some destinations."""
    default = make_parser().get_default
    given = {key: value for key, value in vars(args).items() if key not in without | MODES and value != default(key)}
    return [*tables, *as_words({"epochs": args.epochs, "seeds": args.seeds} | given | more)]


def print_commands(plan: Plan, runner: Runner, args: argparse.Namespace) -> None:
    """A command for each group that has cells to do, on standard output; how many, on standard error."""
    if args.dataset == "folder":  # whose images name the groups
        data.folder.require_folder(Path(args.data_path or data.DEFAULT_PATH), "folder")
    groups = [group for group in plan.groups.values() if runner.missing(group)]
    for group in groups:
        words = command_line(args, args.tables, set(), group=group.name)
        print(shlex.join([sys.executable, sys.argv[0], *words]))
    print(f"{len(groups)} commands; afterwards the same call without --commands reports", file=sys.stderr)


def epoch_seconds(config: RunConfig, gpu: bool) -> float:
    """Seconds of an epoch of a training, from a few steps on random images."""
    device = devices.choose(gpu)
    size = config.train_size or data.DATASETS[config.dataset].train_size or len(config.load_data("train"))
    devices.set_precision(config.precision)
    model, steps = devices.prepare(config.build_model(), device), TIMED_STEPS[device.type]
    model.train_size = size
    shape = (steps * config.batch_size, config.channels, config.image_size, config.image_size)
    noise = Dataset(torch.randint(256, shape, dtype=torch.uint8)).to(device)
    step = loop.Step(model, loop.make_optimizer(model, config.lr), noise, config.precision)
    for epoch in (1, 2):  # the first one warms up
        started = time.monotonic()
        *_, totals = loop.epoch(step, config.batch_size, 0, epoch)
        totals.means()  # waits for the device
    return (time.monotonic() - started) / steps * -(-size // config.batch_size)


def describe(plan: Plan, runner: Runner, args: argparse.Namespace) -> None:
    """The plan, one line for each training and what is evaluated of it, and how long it may take."""
    total, tasks = 0.0, 0
    rates: dict[str, float] = {}  # seconds of an epoch by model and data: timed once
    for group in plan.groups.values():
        missing = len(runner.missing(group))
        tasks += missing
        text, commands = "", [task.command for task in group.tasks.values()]
        if training := group.training:
            text, commands = "trained  ", [training.command]
            if missing and (remaining := training.run.epochs - runner.finished_epochs(group, training)) > 0:
                kind = hash_of(training.config["model"] | training.config["data"])
                if kind not in rates:
                    rates[kind] = epoch_seconds(training.run, args.gpu)
                total += rates[kind] * remaining
                text = f"train {remaining} epochs, {duration(rates[kind] * remaining)}  "
        print(f"{group.name}  {text}{len(group.tasks) - missing} of {len(group.tasks)} cells done")
        print(*(f"    {' '.join(command)}" for command in commands), sep="\n")
    known = [cell["seconds"] for cell in read_cells(runner.cells).values()]
    pace = f"{duration(tasks * sum(known) / len(known))} at the pace of earlier ones" if known else "not timed yet"
    print(
        f"{len(plan.groups)} groups, {tasks} cells to do; training {duration(total / args.jobs)} with --jobs "
        f"{args.jobs}; evaluation {pace}"
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, ``0:01:30``."""
    return str(timedelta(seconds=round(seconds)))


def check_before(plan: Plan, runner: Runner, args: argparse.Namespace) -> None:
    """What would otherwise be found only when everything is trained. Raises UserError."""
    missing = [task for group in plan.groups.values() for task in runner.missing(group)]
    if missing and args.dataset == "folder":
        check_folder(args, [task.command[0] for task in missing])
    if any(task.features == "inception" for task in missing):
        try:
            features.inception(args.inception_weights, torch.device("cpu"))
        except features.FeaturesUnavailable as reason:
            raise UserError(f"{reason}, or leave FID out with --features none") from reason


def check_folder(args: argparse.Namespace, scripts: list[str]) -> None:
    """Raises UserError where a folder has too few test images, or no labels for what needs them."""
    path, images = args.data_path or data.DEFAULT_PATH, (args.image_size, args.channels, args.skip_corrupt)
    train_set, test_set = (
        data.load("folder", part, path, None, *images, white=args.white) for part in ("train", "test")
    )
    if len(test_set) < 2:
        raise UserError(f"--data-path {path}: {len(test_set)} test image: a table needs at least 2; give more images")
    if "classification.py" in scripts and train_set.labels is None:
        wanted = "give a folder with one sub-folder per class, or other tables"
        raise UserError(f"--data-path {path}: no labels to classify: {wanted}")


def check_html(path: Path) -> None:
    """Raises UserError where the page cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--html {path}: expected a file that can be written")


def write_report(plan: Plan, args: argparse.Namespace, cells: dict[str, dict], failures: dict[str, str]) -> int:
    """The tables of the plan to files and standard output. Returns the exit status: 1 where cells are missing."""
    from experiments import report

    folder = Path(args.save_path) / "reproduce"
    without = PLACES - {"data_path"} if args.dataset == "folder" else PLACES  # whose place is its name
    commands = {name: f"python reproduce.py {shlex.join(command_line(args, [name], without))}" for name in plan.rows}
    results = collect(plan, args, cells, failures, commands)
    for name, result in results.items():
        report.write(folder, name, result)
        print(report.markdown(result))
    if args.html:
        report.write_html(Path(args.html), results, folder)
        print(f"report: {args.html}")
    failed = sum(len(line.failures) for result in results.values() for line in result.lines)
    makes = f"python reproduce.py {shlex.join(command_line(args, args.tables, set()))}"
    missing = f"missing: copy the others to {folder / 'cells'} and run {makes}"
    word = missing if args.from_cells else "FAILED, see the tables"
    print(f"{', '.join(results)}: {folder}" + (f"; {failed} cells {word}" if failed else ""))
    return 1 if failed else 0


def main() -> None:
    args = make_parser().parse_args()
    plan = make_plan(args)
    if args.html is not None:
        check_html(Path(args.html))
    if args.from_cells is not None:
        if not Path(args.from_cells).is_dir():
            raise UserError(f"--from {args.from_cells}: no such folder; expected one of cells, as docs/data/cells")
        kept = read_cells(Path(args.from_cells))
        if not any(key in kept for group in plan.groups.values() for key in group.tasks):
            none = f"none of its {len(kept)} cells is of this plan (--epochs, --dataset ...)"
            raise UserError(f"--from {args.from_cells}: {none}")
        sys.exit(write_report(plan, args, kept, {}))
    if args.group is not None:  # a line of --commands: no report
        if args.group not in plan.groups:
            raise UserError(f"--group {args.group}: not in this plan: give the flags that --commands printed with it")
        plan.groups = {args.group: plan.groups[args.group]}
    runner = Runner(plan, args)
    if args.dry_run:
        return describe(plan, runner, args)
    if args.commands:
        return print_commands(plan, runner, args)
    check_before(plan, runner, args)
    runner.run_all()
    if args.group is None:
        sys.exit(write_report(plan, args, read_cells(runner.cells), runner.failures))
    group = plan.groups[args.group]
    missing = len(runner.missing(group))
    print(f"{group.name}: {len(group.tasks) - missing} of {len(group.tasks)} cells done, in {runner.cells}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    cli.run(main)
