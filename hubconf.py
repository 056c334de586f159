"""Entry points of PyTorch Hub: ``load`` and ``pretrained`` for trained models, one for each with initial weights.

import torch
run = torch.hub.load("path/of/this/repository", "load", "checkpoint/mnist/irmae", source="local")
run = torch.hub.load("path/of/this/repository", "pretrained", "digits/irmae", source="local")
model = torch.hub.load("path/of/this/repository", "irmae", source="local", dataset="celeba", linear_layers=4)
"""

from pathlib import Path

import data
import models.base
from experiments import trained
from utils.errors import UserError

dependencies = ["torch", "torchvision", "numpy", "scipy", "sklearn", "tqdm"]


def load(checkpoint: str, device: str = "cpu", data_path: str | None = None) -> trained.Trained:
    """The trained model of a checkpoint file; see ``experiments.trained.load``."""
    return trained.load(checkpoint, device, data_path)


def pretrained(name: str = "digits/irmae", device: str = "cpu") -> trained.Trained:
    """A small trained model that comes with the repository, "digits/ae" or "digits/irmae" (pretrained/README.md)."""
    folder = Path(__file__).parent / "pretrained"
    names = [f"{path.parent.name}/{path.stem}" for path in sorted(folder.glob("*/*.json"))]
    if name not in names:
        raise UserError(f"pretrained model {name!r}: expected one of {', '.join(names)}")
    return trained.load(folder / name, device)


def _entry(name: str):
    def build(dataset: str = "mnist", latent_dim: int | None = None, **options) -> models.base.Autoencoder:
        described = data.describe(dataset)
        n = models.find(name).default_latent_dim(models.options(name) | options) or described["latent_dim"]
        sizes = {"channels": described["channels"], "latent_dim": n if latent_dim is None else latent_dim}
        return models.build(name, architecture=models.architecture(name, None, described), **sizes, **options)

    values = ", ".join(f"{key}={value!r}" for key, value in models.options(name).items())
    build.__doc__ = f"""{models.find(name).title}, with initial weights.

    Args:
        dataset: a name of ``data.DATASETS``, for whose images the networks are built.
        latent_dim: n (default: the data set's).
        options: {values or "none"}.
    """
    return build


globals().update({name.replace("-", "_"): _entry(name) for name in models.MODELS})
