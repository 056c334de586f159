#!/usr/bin/env python
"""A published table, end to end: train what is missing, evaluate it, write Markdown, the figure and the numbers.

python reproduce.py depth --gpu
python reproduce.py depth variance --epochs 5 --seeds 3 --dry-run
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

import data
import models
from data import tabular
from experiments import fid_features as features
from experiments import report, run, train_flags
from experiments.tables import FULL_EPOCHS, TABLES, Cell, Row, Table
from utils import checkpoint, cli, devices, files, loop
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent
LABELLED = ("mnist", "fashion-mnist", "digits", "shape")  # FID_cls unless --features says otherwise
TRAINING_IMAGES = {"mnist": 60_000, "fashion-mnist": 60_000, "digits": 1_437, "celeba": 162_770, "shape": 50_000}
TIMED_STEPS = 3


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    titles = "; ".join(f"{name}: {table.title}" for name, table in TABLES.items())
    parser.add_argument("tables", nargs="+", choices=[*TABLES, "all"], metavar="TABLE", help=f"{titles}; all: all")
    group = cli.add_data(parser, data.DATASETS)
    parser.set_defaults(dataset=None)
    group = parser.add_argument_group("budget")
    group.add_argument("--seeds", type=cli.positive, default=1, metavar="S", help="seeds, from --seed on: mean ± std")
    group.add_argument(
        "--epochs",
        type=cli.positive,
        default=FULL_EPOCHS,
        metavar="E",
        help="of training; what else trains is scaled by the same factor",
    )
    group.add_argument("--jobs", type=cli.positive, default=1, metavar="J", help="cells side by side")
    group.add_argument("--dry-run", action="store_true", help="print what would be done, and an estimate of time")
    group = cli.add_run(parser, batch_size=32)
    group.add_argument(
        "--precision",
        choices=list(devices.PRECISIONS),
        default="fp32",
        help="of the trainings; bf16 is faster, and said so",
    )
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--features",
        choices=("inception", "classifier", "none"),
        help="of FID (default: classifier, hence FID_cls, where the data set has labels, else inception); none: no FID",
    )
    group.add_argument("--inception-weights", metavar="FILE", help="of FID's network (default: downloaded)")
    group.add_argument("--fid-samples", type=cli.several, default=10_000, metavar="N", help="samples of each sampler")
    group = parser.add_argument_group("files")
    group.add_argument("--checkpoint", default="./checkpoint", metavar="DIR", help="folder of the checkpoints")
    group.add_argument(
        "--save-path", default="./results", metavar="DIR", help="tables and figures go to DIR/reproduce/<table>"
    )
    group.add_argument("--html", metavar="FILE", help="also write all tables as one page that needs no network")
    return parser.parse_args()


def as_flags(flags: dict[str, object]) -> list[str]:
    """``{"-l": 4, "--vae": True}`` as words of a command line."""
    words: list[str] = []
    for flag, value in flags.items():
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        words += [flag, *map(str, values)]
    return words


def hash_of(content: dict) -> str:
    """Ten letters that change with any value of a configuration."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def configuration(config: run.RunConfig, epochs: int) -> dict:
    """Everything that a training's result depends on, in the parts of a checkpoint of format 1: old cells still count.

    Where the data lies does not count, but for a folder of the user's own, which its place alone tells from another.
    """
    sizes = {key: getattr(config, key) for key in ("architecture", "channels", "latent_dim")}
    images = {"name": config.dataset, "files": config.data_fingerprint}
    images |= {"path": config.data_path if config.dataset == "folder" else None}
    images |= {
        key: getattr(config, key) for key in ("image_size", "channels", "skip_corrupt", "train_size", "valid_size")
    }
    return {
        "model": {"name": config.model, "config": sizes | config.options},
        "data": {key: value for key, value in images.items() if value not in (None, False)},
        "training": {key: getattr(config, key) for key in ("batch_size", "seed", "lr", "precision")},
        "epochs": epochs,
    }


@dataclass
class Task:
    """A cell for one seed.

    Attributes:
        key: the hash of ``config``: where its result is kept.
        config: everything that its metrics depend on.
        command: the script and its flags, without ``--checkpoint``, ``--model-name`` and ``--save-path``.
        rename: see ``tables.Cell``.
        expected: the kind of features that must be there, "" where the script has none.
    """

    key: str
    config: dict
    command: list[str]
    rename: dict[str, str]
    expected: str = ""


@dataclass
class Group:
    """A training, or none, and the tasks that need it: the unit that runs side by side with others."""

    name: str
    dataset: str = ""
    config: dict | None = None
    command: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass
class Plan:
    """All groups by name, and which tasks each row of each table needs."""

    groups: dict[str, Group] = field(default_factory=dict)
    rows: dict[str, list[tuple[Row, list[tuple[Group, Task]]]]] = field(default_factory=dict)


def data_flags(args: argparse.Namespace, dataset: str) -> dict[str, object]:
    flags: dict[str, object] = {"--dataset": dataset}
    for flag in ("--data-path", "--image-size", "--channels", "--skip-corrupt"):
        value = getattr(args, flag.removeprefix("--").replace("-", "_"))
        if value not in (None, False):
            flags[flag] = value
    return flags


def make_plan(args: argparse.Namespace) -> Plan:
    """What the tables need, each training and each evaluation once.

    Raises:
        UserError: a flag that a model of the table cannot have.
    """
    plan = Plan()
    names = list(TABLES) if "all" in args.tables else list(dict.fromkeys(args.tables))
    for name in names:
        table = TABLES[name]
        if reason := unsuitable(table, dataset_of(args, table)):
            if name in args.tables:
                raise UserError(f"{name}: {reason}")
            print(f"{name} is left out: {reason}")
            continue
        plan.rows[name] = []
        for row in table.rows:
            pairs = []
            for seed in range(args.seed, args.seed + args.seeds):
                base = plan_training(args, table, row, seed)
                for cell in row.cells:
                    task = plan_task(args, dataset_of(args, table), base, cell, seed)
                    group = base or Group(task.key)
                    group = plan.groups.setdefault(group.name, group)
                    pairs.append((group, group.tasks.setdefault(task.key, task)))
            plan.rows[name].append((row, pairs))
    return plan


def dataset_of(args: argparse.Namespace, table: Table) -> str | None:
    """The data set of a table's trainings; None where its rows say."""
    return table.dataset and (args.dataset or table.dataset)


def unsuitable(table: Table, dataset: str | None) -> str:
    """Why a table cannot be made of a data set; "" where it can, as far as is known before loading it."""
    sizes = [cell.flags.get("--train-size", 1) for row in table.rows for cell in row.cells
             if cell.script == "classification.py"]  # fmt: skip
    if not sizes or dataset == "folder":
        return ""
    if dataset not in LABELLED:
        return f"--dataset {dataset} has no labels to classify"
    if max(sizes) > TRAINING_IMAGES[dataset]:
        return f"--dataset {dataset} has {TRAINING_IMAGES[dataset]:,} labelled training images, {max(sizes):,} are used"
    return ""


def plan_training(args: argparse.Namespace, table: Table, row: Row, seed: int) -> Group | None:
    """The training of a row, its configuration complete with every default; None where nothing is trained before."""
    if row.train is None:
        return None
    dataset = dataset_of(args, table)
    flags = row.train | (table.published_train if dataset == table.dataset else {})
    flags = flags | {"--batch-size": args.batch_size, "--seed": seed}
    flags |= {"--precision": args.precision} if args.precision != "fp32" else {}
    flags |= {"--gpu": True} if args.gpu else {}
    words = as_flags(data_flags(args, dataset) | flags)
    config = configuration(run.RunConfig.from_args(train_flags.parse(words)), args.epochs)
    name = f"{config['model']['name']}-{hash_of(config)}"
    return Group(name, dataset, config, ["train.py", *words, "--epochs", str(args.epochs)])


def plan_task(args: argparse.Namespace, dataset: str | None, base: Group | None, cell: Cell, seed: int) -> Task:
    flags = cell.flags | {"--seed": seed}
    expected = ""
    if cell.epochs is not None:
        flags["--epochs"] = max(cell.least_epochs, round(cell.epochs * args.epochs / FULL_EPOCHS))
    if cell.script == "evaluate.py":
        expected = features_of(args, dataset)
        flags |= {"--features": expected, "--fid-samples": args.fid_samples}
    if dataset is not None and base is None:  # nothing trained before: the data set alone says what is computed
        flags |= {"--dataset": dataset}
        if dataset == "folder":
            flags |= data_flags(args, dataset)
    config = {"script": cell.script, "flags": flags, "training": base and base.config}
    place = data_flags(args, dataset) if dataset is not None else {}
    if dataset is None and cell.script == "anomaly.py" and args.data_path is not None:
        place["--data-path"] = args.data_path
    if cell.script == "density.py" and args.data_path is not None and tabular.toy_file(Path(args.data_path)):
        flags["--data-path"] = args.data_path  # the published points instead of generated ones: other numbers
    if expected == "inception" and args.inception_weights is not None:
        place["--inception-weights"] = args.inception_weights
    if args.gpu:
        place["--gpu"] = True
    return Task(hash_of(config), config, [cell.script, *as_flags(place | flags)], cell.rename, expected)


def features_of(args: argparse.Namespace, dataset: str) -> str:
    return args.features or ("classifier" if dataset in LABELLED else "inception")


def read_cell(file: Path) -> dict | None:
    """The result that was kept in a file; None where there is none or it is damaged."""
    try:
        cell = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    whole = (
        isinstance(cell, dict)
        and isinstance(cell.get("config"), dict)
        and isinstance(cell.get("command"), list)
        and isinstance(cell.get("seconds"), int | float)
        and isinstance(cell.get("metrics"), dict)
        and len(cell["metrics"]) > 0
        and all(isinstance(value, int | float) for value in cell["metrics"].values())
    )
    return cell if whole else None


class Failed(Exception):
    """A script ended with another status than 0; the message is its last line on standard error."""


class Runner:
    """Runs groups, several side by side; keeps each result in a file of its own as soon as it is there."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.folder = Path(args.save_path) / "reproduce"
        self.children: set[subprocess.Popen] = set()
        self.stopping = threading.Event()
        self.failures: dict[str, str] = {}  # by task key or, where the training failed, by group name
        self.trained = trained_elsewhere(Path(args.checkpoint))

    def result(self, task: Task) -> dict | None:
        """The metrics of a finished task. A damaged file counts as none."""
        return read_cell(self.folder / "cells" / f"{task.key}.json")

    def checkpoint_name(self, group: Group) -> str:
        """Of the group's own checkpoint, or of one with the same configuration that train.py made before."""
        return self.trained.get((group.dataset, hash_of(group.config)), group.name)

    def finished_epochs(self, group: Group) -> int:
        """Epochs of the group's training that its checkpoint holds."""
        if (group.dataset, hash_of(group.config)) in self.trained:
            return group.config["epochs"]
        path = checkpoint.path_of(self.args.checkpoint, group.dataset, group.name)
        try:
            return run.read(path).epoch
        except UserError:
            return 0

    def run_all(self, groups: list[Group]) -> None:
        """Run every group. A signal that ends this process asks the scripts to end too; what they had is kept."""
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        with (
            ThreadPoolExecutor(self.args.jobs) as pool,
            tqdm(total=sum(len(group.tasks) for group in groups), desc="cells", disable=None) as bar,
        ):
            try:
                futures = [pool.submit(self.run_group, group, bar) for group in groups]
                for future in futures:
                    future.result()
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for child in list(self.children):
                    child.terminate()
                print("interrupted: the same command goes on where it was", file=sys.stderr)
                raise

    def run_group(self, group: Group, bar: tqdm) -> None:
        """Train, then evaluate what is missing; a failure is remembered and stops nothing else."""

        def missing() -> list[Task]:
            return [task for task in group.tasks.values() if self.result(task) is None]

        bar.update(len(group.tasks) - len(missing()))
        if not missing():
            return
        try:
            # Scripts hold the lock as long as they live: if this process is killed, the next one waits for them.
            with files.locked(self.folder / "locks" / group.name, self.check) as lock:
                tasks = missing()
                if tasks and group.command:
                    self.train(group, lock)
                for task in tasks:
                    try:
                        self.evaluate(group, task, lock)
                    except Failed as reason:
                        self.failures[task.key] = str(reason)
                    bar.update()
        except Failed as reason:
            self.failures[group.name] = str(reason)
            bar.update(len(missing()))

    def check(self) -> None:
        """Raises Failed when this process is to end."""
        if self.stopping.is_set():
            raise Failed("interrupted")

    def train(self, group: Group, lock: int) -> None:
        if (group.dataset, hash_of(group.config)) in self.trained:
            return
        command = [*group.command, "--model-name", group.name, "--checkpoint", self.args.checkpoint]
        path = checkpoint.path_of(self.args.checkpoint, group.dataset, group.name)
        self.call([*command, "--resume"] if path.exists() else command, group.name, lock)

    def evaluate(self, group: Group, task: Task, lock: int) -> None:
        work = self.folder / "work" / task.key
        command = [*task.command, "--save-path", str(work)]
        if group.command:
            command += ["--model-name", self.checkpoint_name(group)]
        if task.command[0] in ("evaluate.py", "classification.py", "isometry.py"):
            command += ["--checkpoint", self.args.checkpoint]
        started = time.monotonic()
        self.call(command, f"{task.key}-{Path(task.command[0]).stem}", lock)
        # An earlier call may have left the file of the same training under another name.
        newest = max(work.rglob("*.json"), key=lambda file: file.stat().st_mtime)
        content = json.loads(newest.read_text())
        row = content[-1] if isinstance(content, list) else content["runs"][-1]
        if task.expected not in ("", "none") and task.expected not in row["features"]:
            raise Failed(f"no {task.expected} features; give --inception-weights FILE or --features classifier")
        metrics = {
            task.rename.get(key, key): value
            for key, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        result = {"config": task.config, "command": command, "seconds": time.monotonic() - started, "metrics": metrics}
        files.write_json(self.folder / "cells" / f"{task.key}.json", result)

    def call(self, command: list[str], name: str, lock: int) -> None:
        """A script in a process of its own, its output in logs/. Raises Failed."""
        self.check()
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // self.args.jobs))
        environment = {"OMP_NUM_THREADS": threads} | os.environ
        tqdm.write(f"{' '.join(command)}  (log: {logs / name}.log)")
        words = [sys.executable, str(ROOT / command[0]), *command[1:]]
        with open(logs / f"{name}.log", "a") as out, open(logs / f"{name}.err", "w+") as err:
            with subprocess.Popen(words, stdout=out, stderr=err, env=environment, pass_fds=[lock]) as child:
                self.children.add(child)
                status = child.wait()
            self.children.discard(child)
            err.seek(0)
            lines = [line for line in err.read().splitlines() if line.strip()]
        if status != 0:
            self.check()
            reason = lines[-1] if lines else "it said nothing"
            if status < 0:
                reason = f"killed by signal {-status} ({signal.Signals(-status).name})"
            tqdm.write(f"failed: {name}: {reason}")
            raise Failed(f"{reason} (status {status})")


def trained_elsewhere(folder: Path) -> dict[tuple[str, str], str]:
    """Names of finished checkpoints by data set and hash of their configuration, whoever trained them."""
    found = {}
    for dataset in data.DATASETS:
        for name in checkpoint.available(folder / dataset):
            with contextlib.suppress(UserError):
                saved = run.read(folder / dataset / name)
                if saved.step == 0:
                    found[dataset, hash_of(configuration(saved.config, saved.epoch))] = name
    return found


def estimate(group: Group, args: argparse.Namespace, remaining: int) -> float:
    """Seconds that the remaining epochs take, from a few steps on random images."""
    computing_on = devices.choose(args.gpu)
    config = group.config["model"]["config"]
    images = group.config["data"]
    size = images.get("train_size") or TRAINING_IMAGES.get(group.dataset)
    if size is None:
        size = len(data.load(group.dataset, "train", args.data_path or data.DEFAULT_PATH, None, images["image_size"],
                             images["channels"], args.skip_corrupt))  # fmt: skip
    model = devices.prepare(models.build(group.config["model"]["name"], **config), computing_on)
    optimizer = loop.make_optimizer(model, 1e-4)
    shape = (args.batch_size, images["channels"], images["image_size"], images["image_size"])
    x = torch.rand(shape, device=computing_on)

    def seconds_of(steps: int) -> float:
        started = time.monotonic()
        for totals in loop.train_steps(model, [x] * steps, optimizer, loop.Totals()):
            totals.means()  # waits for the device
        return time.monotonic() - started

    seconds_of(1)
    return seconds_of(TIMED_STEPS) / TIMED_STEPS * -(-size // args.batch_size) * remaining


def describe_plan(plan: Plan, runner: Runner, args: argparse.Namespace) -> None:
    """The plan, one line for each training and what is evaluated of it, and how long it may take."""
    total, tasks = 0.0, 0
    known = [cell["seconds"] for file in (runner.folder / "cells").glob("*.json") if (cell := read_cell(file))]
    rates: dict[str, float] = {}  # seconds of an epoch by model: timed once
    for group in plan.groups.values():
        missing = sum(runner.result(task) is None for task in group.tasks.values())
        tasks += missing
        text = "" if not group.command else "trained"
        if group.command and missing and (remaining := args.epochs - runner.finished_epochs(group)) > 0:
            kind = hash_of(group.config["model"] | group.config["data"])
            if kind not in rates:
                rates[kind] = estimate(group, args, 1)
            total += rates[kind] * remaining
            text = f"train {remaining} epochs, {duration(rates[kind] * remaining)}"
        scripts = ", ".join(" ".join(task.command) for task in group.tasks.values()) if not group.command else ""
        print(f"{group.name}  {text or scripts}  {len(group.tasks) - missing} of {len(group.tasks)} cells done")
        if group.command:
            print(f"    {' '.join(group.command)}")
    evaluation = (
        f"{duration(tasks * sum(known) / len(known))} at the pace of earlier ones" if known else "not timed yet"
    )
    print(
        f"{len(plan.groups)} groups, {tasks} cells to do; training {duration(total / args.jobs)} with --jobs "
        f"{args.jobs}; evaluation {evaluation}"
    )


def duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds > 5400
        else f"{seconds / 60:.1f} min"
        if seconds > 90
        else f"{seconds:.0f} s"
    )


def collect(plan: Plan, runner: Runner, args: argparse.Namespace) -> dict[str, report.Result]:
    """The tables' numbers: for each row and metric the values of all seeds, what failed, and where it comes from."""
    computing_on = devices.choose(args.gpu)
    results = {}
    for name, rows in plan.rows.items():
        dataset = dataset_of(args, TABLES[name])
        suffixes = {"inception": "", "classifier": "_cls", "none": None}
        suffix = "" if dataset is None else suffixes[features_of(args, dataset)]
        lines, accuracies = [], set()
        for row, pairs in rows:
            line = report.Line(row)
            for group, task in pairs:
                found = runner.result(task)
                if found is None:
                    line.failures.append(runner.failures.get(task.key) or runner.failures.get(group.name, "not run"))
                    continue
                line.configurations.append({"command": " ".join(found["command"])} | found["config"])
                for key, value in found["metrics"].items():
                    line.values.setdefault(key, []).append(value)
                if suffix:
                    accuracies |= {found["metrics"].get("classifier_accuracy")} - {None}
            lines.append(line)
        results[name] = report.Result(
            TABLES[name],
            dataset,
            suffix,
            lines,
            {
                "epochs": args.epochs,
                "precision": args.precision,
                "seeds": list(range(args.seed, args.seed + args.seeds)),
                "fid_samples": args.fid_samples,
                "classifier_accuracy": max(accuracies, default=None),
                "command": command_line(name, args),
                "device": torch.cuda.get_device_name()
                if computing_on.type == "cuda"
                else f"CPU, {os.cpu_count()} cores",
            },
        )
    return results


def command_line(name: str, args: argparse.Namespace) -> str:
    """The command that makes this table again, without the places of files."""
    words: dict[str, object] = {"--epochs": args.epochs, "--seeds": args.seeds}
    if "folder" in (args.dataset, TABLES[name].dataset):  # its place is its name
        words["--data-path"] = args.data_path or data.DEFAULT_PATH
    usual = {"dataset": None, "image_size": None, "channels": None, "skip_corrupt": False, "features": None, "seed": 0}
    usual |= {"batch_size": 32, "precision": "fp32", "fid_samples": 10_000}
    for key, value in usual.items():
        if getattr(args, key) != value:
            words[f"--{key.replace('_', '-')}"] = getattr(args, key)
    words |= {"--gpu": True} if args.gpu else {}
    return " ".join(["python reproduce.py", name, *as_flags(words)])


def check_before(plan: Plan, runner: Runner, args: argparse.Namespace) -> None:
    """What would only be found when everything is trained. Raises UserError."""
    missing = [task for group in plan.groups.values() for task in group.tasks.values() if runner.result(task) is None]
    if missing and args.dataset == "folder":
        check_folder(args, [task.command[0] for task in missing])
    if any(task.expected == "inception" for task in missing):
        try:
            features.inception(args.inception_weights, torch.device("cpu"))
        except features.FeaturesUnavailable as reason:
            raise UserError(f"{reason}, or leave FID out with --features none") from reason
    if args.html is not None:
        path = Path(args.html)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"--html {path}: expected a file that can be written")


def check_folder(args: argparse.Namespace, scripts: list[str]) -> None:
    """Raises UserError where a folder has too few test images, or no labels for what needs them."""
    path, images = args.data_path or data.DEFAULT_PATH, (args.image_size, args.channels, args.skip_corrupt)
    train_set, test_set = (data.load("folder", split, path, None, *images) for split in ("train", "test"))
    if len(test_set) < 2:
        raise UserError(f"--data-path {path}: {len(test_set)} test image: a table needs at least 2; give more images")
    if "classification.py" in scripts and train_set.labels is None:
        raise UserError(
            f"--data-path {path}: no labels to classify: give a folder with one sub-folder per class, or other tables"
        )


def main() -> None:
    args = parse_arguments()
    plan = make_plan(args)
    runner = Runner(args)
    if args.dry_run:
        describe_plan(plan, runner, args)
        return
    check_before(plan, runner, args)
    runner.run_all(list(plan.groups.values()))
    results = collect(plan, runner, args)
    for name, result in results.items():
        report.write(runner.folder, name, result)
        print("\n".join(report.markdown(result)))
    if args.html:
        report.write_html(Path(args.html), results, runner.folder)
        print(f"report: {args.html}")
    failed = sum(len(line.failures) for result in results.values() for line in result.lines)
    print(f"{', '.join(results)}: {runner.folder}" + (f"; {failed} cells FAILED, see the tables" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    cli.run(main)
