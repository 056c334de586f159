"""What every evaluation script does first: open a checkpoint, rebuild its model, find its data."""

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

import data
from experiments import run
from models.base import Autoencoder
from utils import checkpoint, devices
from utils.errors import UserError


@dataclass
class Experiment:
    """A trained model and the data it was trained on.

    Attributes:
        name: of the checkpoint.
        model_name: its row in ``models.MODELS``.
        data: what ``data.describe`` says, and ``path``.
    """

    name: str
    path: Path
    model: Autoencoder
    model_name: str
    config: dict
    data: dict
    device: torch.device
    skip_corrupt: bool

    def load(self, split: str, size: int | None = None) -> data.Dataset:
        """A split of the data set, prepared as for training."""
        return data.load(
            self.data["name"],
            split,
            self.data["path"],
            size,
            self.data["image_size"],
            self.data["channels"],
            self.skip_corrupt,
            white=self.data["white"],
        )

    def summary(self) -> dict:
        """What a result says of where it comes from."""
        return {"model_name": self.name, "model": self.model_name, "config": self.config, "dataset": self.data["name"]}


def newest(args: argparse.Namespace) -> str:
    """The name of the newest checkpoint of ``--dataset``, and a line that says which. Raises UserError if none."""
    folder = Path(args.checkpoint) / args.dataset
    names = checkpoint.available(folder)
    if not names:
        raise UserError(
            f"{folder}: no checkpoint there (--checkpoint, --dataset); train one first: python train.py --dataset "
            f"{args.dataset}"
        )
    print(f"using the newest checkpoint of {args.dataset}: {folder / names[0]}")
    return names[0]


def open_experiment(args: argparse.Namespace, name: str | None = None) -> Experiment:
    """The experiment that the flags name: ``name``, else ``--model-name``, else the newest of the data set.

    Raises:
        UserError: no such checkpoint, a damaged one, or a flag that contradicts it.
    """
    name = name or args.model_name or newest(args)
    path = checkpoint.path_of(args.checkpoint, args.dataset, name)
    saved = run.read(path)
    config = saved.config
    check_flags(args, config, path)

    described = data.describe(args.dataset, **image_flags(args, config))
    place = args.data_path or data.recorded_path(args.dataset, config.data_path, path)
    described |= {"path": place or data.DEFAULT_PATH, "white": args.white or config.white}

    model = config.build_model()
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: its weights do not fit the model {config.model} it names ({reason})") from error
    checkpoint.require_finite(model.state_dict(), path)
    computing_on = devices.choose(args.gpu)
    devices.prepare(model, computing_on).eval()
    skip_corrupt = args.skip_corrupt or config.skip_corrupt
    values = {key: getattr(config, key) for key in ("architecture", "channels", "latent_dim")} | config.options
    return Experiment(name, path, model, config.model, values, described, computing_on, skip_corrupt)


def image_flags(args: argparse.Namespace, config: run.RunConfig) -> dict:
    """Image size and channels as recorded or, for a bare state dict, as its network takes. Contradictions raise."""
    values = {"channels": config.channels, "image_size": config.image_size}
    for key, value in values.items():
        given = getattr(args, key)
        if given is not None and given != value:
            raise UserError(f"--{key.replace('_', '-')} {given} contradicts the checkpoint, which has {value}")
    return values


def check_flags(args: argparse.Namespace, config: run.RunConfig, path: Path) -> None:
    """Raises UserError where -n, -l or --vae contradicts what the file says, with both values."""
    layers = config.options.get("linear_layers", 0)
    if args.latent_dim is not None and args.latent_dim != config.latent_dim:
        raise UserError(f"-n {args.latent_dim} contradicts {path}, whose code has n = {config.latent_dim}")
    if args.linear_layers is not None and args.linear_layers != layers:
        raise UserError(f"-l {args.linear_layers} contradicts {path}, whose model {config.model} has l = {layers}")
    if args.vae and config.model != "vae":
        raise UserError(f"--vae contradicts {path}, whose model is {config.model}")


def joined(names: list[str]) -> str:
    """A file's name for the results of several models: ``ae+irmae``, which no other choice of several shares."""
    if len(names) == 1:
        return names[0]
    name = "+".join(name.replace("%", "%25").replace("+", "%2B") for name in names)
    if len(os.fsencode(name)) > checkpoint.LONGEST_NAME:
        name = f"{names[0][:40]}+{len(names) - 1}-more-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return name


def output_path(args: argparse.Namespace, task: str, name: str, suffix: str = ".png") -> Path:
    """``<save-path>/<dataset>/<task>/<model-name>.png``."""
    return Path(args.save_path) / args.dataset / task / (name + suffix)
