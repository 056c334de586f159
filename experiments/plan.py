"""The plan of ``reproduce.py``: each training that the tables need, once, and the evaluations that fill the cells."""

import argparse
import hashlib
import json
import sys
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import models
from data import DATASETS, UNRECORDED, choose_options, toy
from experiments.formats import later_options
from experiments.run import RunConfig
from experiments.table_types import FULL_EPOCHS, Cell, Flags, Row, Table
from experiments.tables import TABLES
from utils.errors import UserError

ADDED = ("order", "init", "lr_schedule", "weight_decay", "ema")  # in the hash of a RunConfig where not the default
DATA_FLAGS = ("data_path", "image_size", "channels", "skip_corrupt", "white")


@dataclass
class Task:
    """The evaluation of a cell for one seed."""

    key: str  # hash of config, under which its result is kept
    config: dict  # everything that its metrics depend on
    command: list[str]  # the script and its flags, without --checkpoint, --model-name and --save-path
    rename: dict[str, str]  # see tables.Cell
    features: str = ""  # the kind of features that the result must have, "" where the script has none


@dataclass
class Training:
    """A training: its ``configuration``, the hash of it, and train.py with its flags, likewise."""

    run: RunConfig
    config: dict
    key: str
    command: list[str]


@dataclass
class Group:
    """A training, or none, and the tasks that need it: what one process can do independently of the other groups."""

    name: str  # of the checkpoint or, without a training, the key of the task
    training: Training | None = None
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass
class Plan:
    """All groups by name, and the tasks of each row of each table."""

    groups: dict[str, Group] = field(default_factory=dict)
    rows: dict[str, list[tuple[Row, list[tuple[Group, Task]]]]] = field(default_factory=dict)


def as_flags(values: Flags) -> Flags:
    """``{"linear_layers": 4, "vae": False}`` as ``{"--linear-layers": 4}``: None and False are left out."""
    given = {key: value for key, value in values.items() if value is not None and value is not False}
    return {f"--{key.replace('_', '-')}": value for key, value in given.items()}


def as_words(values: Flags) -> list[str]:
    """``{"linear_layers": 4, "vae": True}`` as ``["--linear-layers", "4", "--vae"]``."""
    pairs = as_flags(values).items()
    return [word for flag, value in pairs for word in ([flag] if value is True else [flag, str(value)])]


def hash_of(content: dict) -> str:
    """Ten letters that change with any value. They name cells and checkpoints that exist: not to be changed."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def configuration(run: RunConfig, epochs: int) -> dict:
    """Everything that a result depends on, in the layout of format 1; the place of the data only for a folder's."""
    sizes = {"architecture": run.architecture, "channels": run.channels, "latent_dim": run.latent_dim}
    later = later_options(run.options).items()  # left out where a model is as it was before they existed
    options = dict(item for item in run.options.items() if item not in later)
    same_name = ("image_size", "channels", "skip_corrupt", "white", "train_size", "valid_size")
    images = {"name": run.dataset, "files": run.data_fingerprint} | {key: getattr(run, key) for key in same_name}
    images |= {"path": run.data_path} if run.dataset == "folder" else {}
    images |= later_data(run.data_options())
    training = {key: getattr(run, key) for key in ("batch_size", "seed", "lr", "precision")}
    training |= {each.name: value for each in fields(RunConfig)
                 if each.name in ADDED and (value := getattr(run, each.name)) != each.default}  # fmt: skip
    return {
        "model": {"name": run.model, "config": sizes | options},
        "data": {key: value for key, value in images.items() if value is not None and value is not False},
        "training": training,
        "epochs": epochs,
    }


def later_data(options: dict) -> dict:
    """The options of the data that are not as they were before there was a choice."""
    return {key: value for key, value in options.items() if value != UNRECORDED[key]}


def run_of(flags: Flags) -> RunConfig:
    """The training that train.py does with these flags, given by destination."""
    values = {each.name: None if each.default is MISSING else each.default for each in fields(RunConfig)}
    values |= {key: None for name in models.MODELS for key in models.options(name)}
    return RunConfig.from_args(argparse.Namespace(**values | {"arch": None, "vae": False} | flags))


def make_plan(args: argparse.Namespace) -> Plan:
    """What the tables need, each training and evaluation once. Raises UserError for what ``--dataset`` cannot have."""
    plan = Plan()
    for name in list(TABLES) if "all" in args.tables else dict.fromkeys(args.tables):
        table = TABLES[name]
        dataset = dataset_of(args, table)
        if reason := unsuitable(table, dataset):
            if name in args.tables:
                raise UserError(f"{name}: {reason}")
            print(f"{name} is left out: {reason}", file=sys.stderr)
            continue
        plan.rows[name] = [(row, []) for row in table.rows]
        for row, pairs in plan.rows[name]:
            for seed in range(args.seed, args.seed + args.seeds):
                training = plan_training(args, table, row, seed)
                for cell in row.cells:
                    task = plan_task(args, dataset, training, cell, seed)
                    own = f"{training.run.model}-{training.key}" if training else task.key
                    group = plan.groups.setdefault(own, Group(own, training))
                    pairs.append((group, group.tasks.setdefault(task.key, task)))
    return plan


def dataset_of(args: argparse.Namespace, table: Table) -> str | None:
    """The data set of a table's trainings; None where its rows name their own."""
    return table.dataset and (args.dataset or table.dataset)


def features_of(args: argparse.Namespace, dataset: str | None) -> str:
    """The features of FID and KID: ``--features``, else those of a classifier where the data set has labels."""
    return args.features or ("classifier" if dataset and DATASETS[dataset].labels else "inception")


def data_flags(args: argparse.Namespace, dataset: str | None) -> Flags:
    return {} if dataset is None else {"dataset": dataset} | {key: getattr(args, key) for key in DATA_FLAGS}


def unsuitable(table: Table, dataset: str | None) -> str:
    """Why a table cannot be made of a data set; "" where it can, as far as is known before loading it."""
    cells = [cell for row in table.rows for cell in row.cells if cell.script == "classification.py"]
    if not cells or dataset is None:
        return ""
    info, size = DATASETS[dataset], max(cell.flags["train_size"] for cell in cells)
    if info.labels is False:
        return f"--dataset {dataset} has no labels to classify"
    if size > (info.train_size or size):
        return f"--dataset {dataset} has {info.train_size:,} labelled training images, {size:,} are used"
    return ""


def plan_training(args: argparse.Namespace, table: Table, row: Row, seed: int) -> Training | None:
    """The training of a row, its configuration complete with every default; None where nothing is trained before."""
    dataset = dataset_of(args, table)
    if row.train is None or dataset is None:
        return None
    own = row.train | (table.published_train if dataset == table.dataset else {})
    epochs = max(1, round(table.epochs_at(args.epochs) * own.get("epochs", FULL_EPOCHS) / FULL_EPOCHS))
    flags = data_flags(args, dataset) | {"batch_size": table.batch_size or args.batch_size, "arch": args.arch} | own
    flags |= {"seed": seed, "precision": args.precision, "epochs": epochs}
    config = configuration(run := run_of(flags), epochs)
    return Training(run, config, hash_of(config), ["train.py", *as_words(flags | {"gpu": args.gpu})])


def plan_task(args: argparse.Namespace, dataset: str | None, training: Training | None, cell: Cell, seed: int) -> Task:
    """The evaluation of a cell: ``flags`` change its numbers, ``places`` and the device do not."""
    flags, features = cell.flags | {"seed": seed}, ""
    places = data_flags(args, dataset) | {"gpu": args.gpu}
    if cell.epochs is not None:
        flags["epochs"] = max(cell.min_epochs, round(cell.epochs * args.epochs / FULL_EPOCHS))
    if cell.script == "evaluate.py":
        features = features_of(args, dataset)
        flags |= {"features": features, "fid_samples": args.fid_samples}
        places["inception_weights"] = args.inception_weights if features == "inception" else None
    if dataset is not None and training is None:  # nothing trained before: the data set determines what is computed
        flags |= data_flags(args, dataset) if dataset == "folder" else {"dataset": dataset}
    # Cells of earlier versions are of posterior means, which classification.py still takes.
    draws = training and models.find(training.run.model).has_distribution(training.run.options)
    if draws and cell.script != "classification.py":
        flags["posterior"] = "sample"
    if dataset is None and cell.script == "anomaly.py":
        places["data_path"] = args.data_path
    if cell.script == "density.py" and args.data_path is not None and toy.file_of(Path(args.data_path)):
        flags["data_path"] = args.data_path  # the published points instead of generated ones: other numbers
    # Of full codes and balanced subsets are the cells from before there was a choice.
    earlier = (("codes", "full"), ("subset", "balanced"))
    named = {key: value for key, value in flags.items() if (key, value) not in earlier}
    config = {"script": cell.script, "flags": as_flags(named), "training": training and training.config}
    if dataset is not None and training is None and (own := later_data(choose_options(dataset, {}))):
        config["data"] = own
    return Task(hash_of(config), config, [cell.script, *as_words(places | flags)], cell.rename, features)
