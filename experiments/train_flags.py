"""The command line of train.py: its flags, their values from ``--preset`` and ``--resume``, and what may change."""

import argparse
from pathlib import Path

import data
import models
from experiments import run
from experiments.presets import PRESETS
from utils import checkpoint, cli, devices
from utils.errors import UserError

MAY_CHANGE = ("lr", "precision", "epochs", "eager", "data_path", "data_fingerprint", "skip_corrupt")  # of a run


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments of train.py: typed, of ``--preset``, of the checkpoint with ``--resume``, else the defaults."""
    parser = cli.Parser("Train any model of the repository on any of its data sets.")
    parser.add_argument(
        "--preset",
        choices=list(PRESETS),
        help="flags of an experiment, each of which a flag overrides: "
        + "; ".join(f"{name}: {preset.title}" for name, preset in PRESETS.items()),
    )
    group = cli.add_data(parser, data.DATASETS)
    group.add_argument(
        "--train-size", type=cli.positive, metavar="N", help="images per epoch (default: all; shape 50000)"
    )
    group.add_argument(
        "--valid-size", type=cli.positive, metavar="N", help="validation images (default: all; shape 10000)"
    )
    group = cli.add_model(parser)
    group.add_argument(
        "--model", choices=list(models.MODELS), help="the model (default: what -l and --vae say, else ae)"
    )
    group.add_argument(
        "--arch",
        choices=list(models.ARCHS),
        help="the networks (default: those the model is published with): "
        + "; ".join(f"{key}: {title}" for key, title in models.ARCHS.items()),
    )
    group.add_argument("--model-name", metavar="NAME", help="name of the checkpoint (default: the model's)")
    cli.add_options(parser, models.MODELS, models.flags, models.options)
    group = cli.add_run(parser, batch_size=32)
    group.add_argument(
        "--epochs", type=cli.positive, default=run.DEFAULT_EPOCHS, help="passes over the training images"
    )
    group.add_argument("--lr", type=cli.positive_float, default=1e-4, help="learning rate of Adam")
    group.add_argument(
        "--precision",
        choices=list(devices.PRECISIONS),
        default="fp32",
        help="; ".join(f"{key}: {title}" for key, title in devices.PRECISIONS.items()),
    )
    group.add_argument("--eager", action="store_true", help="disable CUDA graphs and the channels-last memory format")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on where the checkpoint of this name stopped, with its flags where none are given",
    )
    group = parser.add_argument_group("files")
    group.add_argument("--checkpoint", default="./checkpoint", metavar="DIR", help="folder of the checkpoints")
    given = parser.parse_given(arguments)
    preset = PRESETS[given["preset"]].flags if "preset" in given else {}
    args = parser.with_defaults(preset | given)
    if args.resume:
        args = parser.with_defaults(resume_flags(args) | preset | given)
    return args


def resume_flags(args: argparse.Namespace) -> dict[str, object]:
    """The flags that ``--resume`` takes from the checkpoint, each overridden by one that is given; {} without one."""
    asked = models.choose(args.model, args.linear_layers, args.vae)
    path = checkpoint.path_of(args.checkpoint, args.dataset, args.model_name or asked)
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
    values = config.flags()
    values["data_path"] = args.data_path or data.recorded_path(args.dataset, config.data_path, path)
    if model_given and asked != config.model:  # check_resumable says that these are two models
        own = {"model", "arch", "latent_dim", *config.options}
        return {key: value for key, value in values.items() if key not in own}
    return values


def check_resumable(saved: run.Checkpoint, asked: run.RunConfig, path: Path) -> None:
    """Raises UserError where a run cannot go on from ``saved`` with the configuration of the command line."""
    missing = [part for part in ("optimizer", "random") if getattr(saved, part) is None]
    if missing:
        raise UserError(f"{path}: a checkpoint without {', '.join(missing)} cannot be resumed: train again")
    old, new = (config.to_dict() | config.options for config in (saved.config, asked))
    for key in new:
        if key not in ("options", *MAY_CHANGE) and old.get(key) != new[key]:
            raise UserError(
                f"--resume: {key} is {old.get(key)} in {path} but {new[key]} on the command line: give the flags of "
                "the first run, or train anew under another --model-name"
            )
    if saved.config.data_fingerprint not in (None, asked.data_fingerprint):
        if saved.step > 0:
            raise UserError(
                f"--resume: the images in {asked.data_path} are not those of the first run, which stopped in the "
                "middle of an epoch of them: put them back, or train anew under another --model-name"
            )
        print(f"the images in {asked.data_path} have changed since {path} was saved: going on with those there")
