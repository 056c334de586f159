"""The command line of train.py: its flags, their values from ``--preset`` and ``--resume``, and what may change."""

import argparse
from pathlib import Path
from typing import Any

import data
import models
from experiments import config_file, run, tracking
from experiments.presets import PRESETS
from experiments.train_help import Help
from utils import checkpoint, cli, devices
from utils.errors import UserError
from utils.flags import Flag, probability
from utils.schedules import SCHEDULES

MAY_CHANGE = ("lr", "lr_schedule", "precision", "epochs", "eager", "samples_every", "patience", "keep_best", "wandb",
              "data_path", "data_fingerprint", "skip_corrupt")  # of a run  # fmt: skip


def make_parser() -> cli.Parser:
    parser = cli.Parser("Train any model of the repository on any of its data sets.", add_help=False)
    parser.add_argument("-h", "--help", action=Help)
    presets = f"flags of an experiment, each of which a flag overrides: {cli.titles(PRESETS)}"
    what = "flags by name, such as lr: 0.001, each of which a flag overrides; each checkpoint has such a file beside it"
    parser.add_argument("--config", metavar="FILE.yaml", help=what)
    parser.add_argument("--preset", choices=list(PRESETS), metavar="NAME", help=presets)
    add = cli.add_data(parser, data.DATASETS, data.name_of_file).add_argument
    add("--train-size", type=cli.positive, metavar="N", help="images per epoch (default: all; shape 50000)")
    add("--valid-size", type=cli.positive, metavar="N", help="validation images (default: all; shape 10000)")
    what = "side of the centre crop of celeba, pixels (default: 148, IRMAE's; RaDOGAGA's: 178; WAE's: 140)"
    add("--crop", type=int, choices=data.celeba.CROPS, help=what)
    what = "squares of shape (default: released, from the centre to the lower right; centred: around the centre)"
    add("--squares", choices=data.shapes.SQUARES, help=what)
    add_file_options(parser)
    add = cli.add_model(parser).add_argument
    what = f"the model, of {', '.join(models.MODELS)} (default: what -l and --vae say, else ae)"
    add("--model", choices=list(models.MODELS), metavar="MODEL", help=what)
    networks = f"the networks (default: those the model is published with): {cli.titles(models.ARCHS)}"
    networks += "; relu:512-256 (default of a file), mlp:512-256: hidden layers of these widths with ReLU, tanh"
    add("--arch", type=arch_name, metavar="ARCH", help=networks)
    add_options(parser)
    add = cli.add_run(parser, batch_size=32).add_argument
    add("--epochs", type=cli.positive, default=run.RunConfig.epochs, help="passes over the training images")
    orders = "of the training images; fixed, as released with IRMAE: the same every epoch, in shape the same images too"
    add("--order", choices=("shuffled", "fixed"), default="shuffled", help=orders)
    what = f"weights of encoder and decoder at the start: {cli.titles(models.networks.INITS)}"
    add("--init", choices=list(models.networks.INITS), default="pytorch", help=what)
    add("--lr", type=cli.positive_float, default=1e-4, help="learning rate of Adam")
    decay = "decoupled weight decay (AdamW) of all parameters, per step times the learning rate; 0: Adam"
    add("--weight-decay", type=cli.non_negative_float, default=0.0, metavar="W", help=decay)
    add("--lr-schedule", choices=list(SCHEDULES), default="constant", help=cli.titles(SCHEDULES))
    add("--precision", choices=list(devices.PRECISIONS), default="fp32", help=cli.titles(devices.PRECISIONS))
    add("--eager", action="store_true", help="disable CUDA graphs and the channels-last memory format")
    what = "write samples (of the prior, or a Gaussian fitted to the codes) and reconstructions beside the checkpoint "
    add("--samples-every", type=cli.natural, default=0, metavar="N", help=what + "every N epochs; 0: never")
    what = "end the training when E epochs have not lowered the validation loss; 0: never"
    add("--patience", type=cli.natural, default=0, metavar="E", help=what)
    what = "keep the epoch of the lowest validation loss as well, --model-name NAME.best of the evaluation scripts"
    add("--keep-best", action="store_true", help=what)
    what = "average the weights of all steps with this decay, as 0.999, and validate and evaluate the average; 0: none"
    add("--ema", type=probability, default=0.0, metavar="D", help=what)
    what = "log to this project of Weights & Biases too (pip install wandb; WANDB_MODE=offline: to ./wandb alone)"
    add("--wandb", default="", metavar="PROJECT", help=what)
    resume = "go on where the checkpoint of this name stopped, with its flags where none are given"
    add("--resume", action="store_true", help=resume)
    cli.add_checkpoint(parser, default="the model's")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Arguments: typed, of ``--config``, of ``--preset``, of the checkpoint with ``--resume``, else the defaults."""
    parser = make_parser()
    given = typed = parser.parse_given(arguments)
    if "config" in given:
        given = config_file.read(given["config"], parser) | given
    preset = PRESETS[given["preset"]].flags if "preset" in given else {}
    if given.get("dataset", preset.get("dataset")) != preset.get("dataset"):  # another than the preset's
        preset = {key: value for key, value in preset.items() if key not in data.UNRECORDED}
    args = parser.with_defaults(preset | given)
    if args.resume:
        args = parser.with_defaults(resume_flags(args) | preset | given)
    # Presets, files and checkpoints may hold options that another flag makes idle; what is typed is meant.
    models.refuse_idle_options(models.choose(args.model, args.linear_layers, args.vae), vars(args), typed)
    tracking.require(args.wandb)
    return args


def arch_name(text: str) -> str:
    """The ``type`` of ``--arch``: a key of ``models.ARCHS``, or networks of vectors such as "relu:512-256"."""
    if text not in models.ARCHS and not models.networks.VECTORS.fullmatch(text):
        choices = ", ".join(models.ARCHS)
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {choices}, or such as relu:512-256)")
    return text


def add_file_options(parser: cli.Parser) -> None:
    """How a file of one's own is read; None where not given."""
    add = parser.add_argument_group("a file of your own (--dataset FILE)").add_argument
    add("--scale", choices=list(data.arrays.SCALES), help=f"{cli.titles(data.arrays.SCALES)} (default: standard)")
    add(
        "--split",
        choices=list(data.arrays.SPLITS),
        help=f"{cli.titles(data.arrays.SPLITS)} (default: hash)".replace("%", "%%"),
    )
    what = "the column or array of labels (default: by its name, or y of .npz and .mat, where there is one)"
    add("--label", metavar="NAME", help=what)
    add("--ignore", nargs="+", metavar="COLUMN", help="columns to leave out")


def refuse_values(config: run.RunConfig, path: Path) -> None:
    """Raises UserError where a value of a checkpoint's configuration is none that its flag takes."""
    if not config.file and models.image_size(config.architecture) != config.image_size:
        raise checkpoint.damaged(path, f"its {config.architecture} is not for images of {config.image_size} pixels")
    values, own = config.flags(), models.flags(config.model)
    if foreign := sorted(map(str, config.options.keys() - own.keys())):
        raise checkpoint.damaged(path, f"its options have {foreign[0]}, which the model {config.model} does not take")
    actions: Any = make_parser()._actions
    for action in actions:  # flags of several models may differ in what they take
        flag = own.get(action.dest) or Flag("", action.type or str, None, action.choices, switch=action.nargs == 0)
        if action.dest != "arch" and values.get(action.dest) is not None:
            flag.require(action.dest, values[action.dest])


def add_options(parser: cli.Parser) -> None:
    """A group of flags for each model, from its constructor; a flag of several models stands with the first.

    Their values stay None, so that a flag that was not given is told from one that was.
    """
    seen: set[str] = set()
    for name, model in models.MODELS.items():
        new = {key: flag for key, flag in models.flags(name).items() if key not in seen}
        if not new:
            continue
        group = parser.add_argument_group(model.title)
        for key, flag in new.items():
            seen.add(key)
            values = {other: models.options(other)[key] for other in models.MODELS if key in models.flags(other)}
            text = ", ".join(f"of {other}: {value}" for other, value in values.items())
            if len(set(values.values())) == 1 and len(values) > 1:
                text = f"of {', '.join(values)}: {values[name]}"
            flag.add_to(group, key, flag.help + ("" if flag.switch else f" (default {text})"))


def resume_flags(args: argparse.Namespace) -> dict[str, object]:
    """The flags that ``--resume`` takes from the checkpoint, each overridden by one that is given; {} without one."""
    asked = models.choose(args.model, args.linear_layers, args.vae)
    path = checkpoint.path_of(args.checkpoint, args.dataset, asked if args.model_name is None else args.model_name)
    model_given = args.model is not None or args.vae or args.linear_layers is not None
    if not path.exists():
        if args.model_name and not model_given:
            others = ", ".join(checkpoint.available(path.parent)) or "none"
            raise UserError(
                f"--resume: {path}: no such checkpoint (there are: {others}); to begin a run of that name say which "
                "model (-l, --vae or --model)"
            )
        return {}
    config = run.read(path).config
    if config.dataset != args.dataset:
        raise UserError(f"--resume: {path} is of {config.dataset}, not {args.dataset}: choose another --model-name")
    values = config.flags()
    values["data_path"] = args.data_path or data.recorded_path(args.dataset, config.data_path, path)
    if model_given and asked != config.model:  # check_resumable says that these are two models
        own = {"model", "arch", "latent_dim", *config.options}
        return {key: value for key, value in values.items() if key not in own}
    return values


def check_resumable(saved: run.Checkpoint, asked: run.RunConfig, path: Path) -> None:
    """Raises UserError where a run cannot go on from ``saved`` with the configuration of the command line."""
    needed = ("optimizer", "random") + ("raw_weights",) * (saved.config.ema > 0)
    missing = [part for part in needed if getattr(saved, part) is None]
    if missing:
        lacking = f"a checkpoint without {', '.join(missing)} cannot be resumed (weights alone, as pretrained/ has)"
        raise UserError(f"{path}: {lacking}: train again")
    old, new = (config.to_dict() | config.options | config.file for config in (saved.config, asked))
    for key in new:
        if key not in ("options", "file", *MAY_CHANGE) and old.get(key) != new[key]:
            raise UserError(
                f"--resume: {key} is {old.get(key)} in {path} but {new[key]} on the command line: give the flags of "
                "the first run, or train anew under another --model-name"
            )
    if asked.data_fingerprint and saved.config.data_fingerprint not in (None, asked.data_fingerprint):
        if saved.config.file:
            raise UserError(f"--resume: {asked.data_path} has changed since {path}: put it back, or train anew")
        if saved.step > 0:
            raise UserError(
                f"--resume: the images in {asked.data_path} are not those of the first run, which stopped in the "
                "middle of an epoch of them: put them back, or train anew under another --model-name"
            )
        print(f"the images in {asked.data_path} have changed since {path} was saved: going on with those there")
