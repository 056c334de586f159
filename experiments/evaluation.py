"""What the evaluation scripts share: their flags, the checkpoints that these name, and where results go."""

import argparse
from dataclasses import replace
from pathlib import Path

import data
from experiments.run import RunConfig, read
from experiments.trained import Trained, build
from utils import checkpoint, cli, devices, files, latents
from utils.errors import UserError


def add_flags(parser: cli.Parser, batch_size: int = 500, several: bool = False) -> None:
    """The flags of every evaluation script. ``several``: ``--model-name`` takes more than one name."""
    cli.add_data(parser, data.DATASETS)
    cli.add_model(parser, linear_layers=True)
    group = cli.add_run(parser, batch_size=batch_size)
    what = "; ".join(f"{name}: {title}" for name, title in latents.POSTERIORS.items())
    group.add_argument(
        "--posterior",
        choices=list(latents.POSTERIORS),
        default="sample",
        help=f"the code of an encoder that gives a distribution. {what}",
    )
    cli.add_results(cli.add_checkpoint(parser, several=several))


def from_args(args: argparse.Namespace, name: str | None = None) -> Trained:
    """The trained model that the flags name: ``name``, else ``--model-name``, else the newest of the data set.

    Raises:
        UserError: no such checkpoint, a damaged one, or a flag that contradicts it.
    """
    path = checkpoint.path_of(args.checkpoint, args.dataset, name or args.model_name or newest(args))
    saved = read(path)
    check_flags(args, saved.config, path)
    data.describe(args.dataset, saved.config.image_size, saved.config.channels)
    given = {"dataset": args.dataset, "skip_corrupt": args.skip_corrupt, "white": args.white}
    saved.config = replace(saved.config, **{key: value for key, value in given.items() if value})
    trained = build(path, saved, devices.choose(args.gpu), args.data_path)
    return replace(trained, posterior=args.posterior, seed=args.seed, batch_size=args.batch_size)


def all_from_args(args: argparse.Namespace) -> list[Trained]:
    """The trained models of a ``--model-name`` that takes several names, each once."""
    return [from_args(args, name) for name in dict.fromkeys(args.model_name or [None])]


def newest(args: argparse.Namespace) -> str:
    """The name of the newest checkpoint of ``--dataset``, which is printed. Raises UserError if there is none."""
    folder = Path(args.checkpoint) / args.dataset
    names = checkpoint.available(folder)
    if not names:
        raise UserError(
            f"{folder}: no checkpoint there (--checkpoint, --dataset); train one first: python train.py --dataset "
            f"{args.dataset}"
        )
    print(f"using the newest checkpoint of {args.dataset}: {folder / names[0]}")
    return names[0]


def check_flags(args: argparse.Namespace, config: RunConfig, path: Path) -> None:
    """Raises UserError where a flag contradicts the checkpoint, with both values."""
    layers = config.options.get("linear_layers", 0)
    if args.latent_dim is not None and args.latent_dim != config.latent_dim:
        raise UserError(f"-n {args.latent_dim} contradicts {path}, whose code has n = {config.latent_dim}")
    if args.linear_layers is not None and args.linear_layers != layers:
        raise UserError(f"-l {args.linear_layers} contradicts {path}, whose model {config.model} has l = {layers}")
    if args.vae and config.model != "vae":
        raise UserError(f"--vae contradicts {path}, whose model is {config.model}")
    for key in ("image_size", "channels"):
        given, value = getattr(args, key), getattr(config, key)
        if given is not None and given != value:
            raise UserError(f"--{key.replace('_', '-')} {given} contradicts the checkpoint, which has {value}")


def joined(names: list[str]) -> str:
    """A file name for the results of several models: ``ae+irmae``, which no other choice of several shares."""
    if len(names) == 1:
        return names[0]
    name = "+".join(name.replace("%", "%25").replace("+", "%2B") for name in names)
    if len(name.encode("utf-8", "surrogateescape")) > checkpoint.LONGEST_NAME:
        name = f"{names[0][:40]}+{len(names) - 1}-more-{files.fingerprint(name)}"
    return name


def output_path(args: argparse.Namespace, task: str, name: str, suffix: str = ".png") -> Path:
    """``<save-path>/<dataset>/<task>/<model-name>.png``."""
    return Path(args.save_path) / args.dataset / task / (name + suffix)
