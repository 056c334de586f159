"""A training run as typed values: its configuration, what its checkpoint holds, and what ``--resume`` may change."""

import argparse
import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

import data
import models
from experiments.irmae_release import describe_weights
from models.base import Autoencoder
from utils import checkpoint
from utils.errors import UserError

FORMAT = 2  # raise it when an old reader would misread a new file
DEFAULT_EPOCHS = 100  # as published
FORMAT_1 = {  # the parts of a file of format 1, and what each must hold
    "model": ("name", "config"),
    "data": ("name", "image_size", "channels", "path"),
    "training": ("batch_size", "seed", "lr", "precision"),
}


@dataclass
class RunConfig:
    """Everything that a training depends on, in plain values.

    Attributes:
        model: a name of ``models.MODELS``.
        architecture: a name of ``models.networks``.
        latent_dim: n.
        options: the other arguments of the model's constructor.
        dataset: a name of ``data.DATASETS``; ``image_size`` is in pixels.
        data_path: the absolute folder of its files.
        data_fingerprint: changes with the files of ``--dataset folder``; None for any other.
        white: the value of white in images deeper than 8 bits; None where it is found.
        train_size, valid_size: so many images; None for all.
        epochs: where the training ends.
    """

    model: str
    architecture: str
    latent_dim: int
    dataset: str
    image_size: int
    channels: int
    options: dict = field(default_factory=dict)
    data_path: str | None = None
    data_fingerprint: str | None = None
    skip_corrupt: bool = False
    white: float | None = None
    train_size: int | None = None
    valid_size: int | None = None
    batch_size: int = 32
    seed: int = 0
    lr: float = 1e-4
    precision: str = "fp32"
    epochs: int = DEFAULT_EPOCHS
    eager: bool = False

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "RunConfig":
        """The configuration that train.py's flags describe. Raises UserError for flags that contradict each other."""
        name = models.choose(args.model, args.linear_layers, args.vae)
        described = data.describe(args.dataset, args.image_size, args.channels)
        architecture = models.architecture(name, args.arch, described)
        models.refuse_foreign_options(name, vars(args))
        options = {
            key: default if getattr(args, key) is None else getattr(args, key)
            for key, default in models.options(name).items()
        }
        latent_dim = models.find(name).default_latent_dim(options) or described["latent_dim"]
        path = Path(args.data_path or data.DEFAULT_PATH)
        same_name = ("dataset", "skip_corrupt", "white", "train_size", "valid_size", "batch_size", "seed", "lr")
        return cls(
            model=name,
            architecture=architecture,
            latent_dim=args.latent_dim or latent_dim,
            image_size=described["image_size"],
            channels=described["channels"],
            options=options,
            data_path=str(path.resolve()),
            data_fingerprint=data.fingerprint(args.dataset, path),
            epochs=args.epochs,
            precision=args.precision,
            eager=args.eager,
            **{key: getattr(args, key) for key in same_name},
        )

    @classmethod
    def from_record(cls, record: dict, path: Path) -> "RunConfig":
        """The configuration in a checkpoint's content: of format 2, of format 1, or a bare state dict of the release.

        Raises:
            UserError: ``path`` holds something else.
        """
        if "format" not in record:
            values = split_options(describe_weights(record, path)["model"])
            values |= {"dataset": path.parent.name, "image_size": models.image_size(values["architecture"])}
            return _checked(cls, values, path)
        return _checked(cls, from_format_1(record, path) if record["format"] == 1 else record["config"], path)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def build_model(self) -> Autoencoder:
        """A freshly initialised model, on the CPU."""
        sizes = {"architecture": self.architecture, "channels": self.channels, "latent_dim": self.latent_dim}
        return models.build(self.model, **sizes, **self.options)

    def load_data(self, split: str, size: int | None = None) -> data.Dataset:
        """ "train", "valid" or "test" of the data set; only the first ``size`` images where given."""
        path = self.data_path or data.DEFAULT_PATH
        options = {"skip_corrupt": self.skip_corrupt, "white": self.white}
        return data.load(self.dataset, split, path, size, self.image_size, self.channels, **options)

    def flags(self) -> dict[str, object]:
        """The values of train.py's flags that describe this configuration, by destination."""
        renamed = ("model", "architecture", "latent_dim", "dataset", "options", "data_fingerprint")
        values = {key: value for key, value in self.to_dict().items() if key not in renamed}
        values |= {"model": self.model, "arch": models.arch(self.architecture), "latent_dim": self.latent_dim}
        return values | self.options


@dataclass
class Checkpoint:
    """What a checkpoint file holds: a configuration, weights, and where the training stands.

    Attributes:
        epoch: finished ones.
        step: finished steps of the epoch under way.
        running: sums of the losses in that epoch, ``loop.Totals(**running)``.
        metrics: a row for each finished epoch.
        optimizer, random: states to resume from; None for a file of the release.
    """

    config: RunConfig
    weights: dict
    epoch: int = 0
    step: int = 0
    running: dict = field(default_factory=lambda: {"sums": {}, "count": 0})
    metrics: list = field(default_factory=list)
    optimizer: dict | None = None
    random: dict | None = None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        parts = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        checkpoint.save(path, {"format": FORMAT, **parts, "config": self.config.to_dict()})


def read(path: str | Path) -> Checkpoint:
    """A checkpoint of format 2 or 1, or a bare state dict of the code released with IRMAE.

    Raises:
        UserError: no such file, a damaged one, or one of something else.
    """
    path = Path(path)
    record = checkpoint.load(path)
    if "format" not in record:
        if not all(isinstance(value, Tensor) for value in record.values()):
            raise UserError(f"{path}: not a checkpoint of train.py (it holds {', '.join(map(str, list(record)[:3]))})")
        return Checkpoint(RunConfig.from_record(record, path), record)
    if record["format"] not in (1, FORMAT):
        raise UserError(f"{path}: checkpoint format {record['format']}, this version reads 1 and {FORMAT}: train again")
    names = {each.name for each in dataclasses.fields(Checkpoint)} - {"config"}
    values = {key: value for key, value in record.items() if key in names}
    require(record, path, "weights", "config" if record["format"] == FORMAT else "model")
    return _checked(Checkpoint, values | {"config": RunConfig.from_record(record, path)}, path)


def require(record: dict, path: Path, *parts: str) -> None:
    """Raises UserError where a record lacks one of the parts."""
    lacking = [part for part in parts if record.get(part) is None]
    if lacking:
        raise UserError(f"{path}: a checkpoint without {', '.join(lacking)}: train again")


def from_format_1(record: dict, path: Path) -> dict:
    """The values of a RunConfig in a file of format 1."""
    require(record, path, *FORMAT_1)
    for part, keys in FORMAT_1.items():
        if not isinstance(record[part], dict):
            raise UserError(f"{path}: its {part} is a {type(record[part]).__name__}, not a dict: train again")
        lacking = [key for key in keys if key not in record[part]]
        if lacking:
            raise UserError(f"{path}: its {part} has no {', '.join(lacking)}: train again")
    images = dict(record["data"])
    renamed = {"dataset": images.pop("name"), "data_path": images.pop("path")}
    renamed["data_fingerprint"] = images.pop("files", None)
    target = {"epochs": record.get("target", DEFAULT_EPOCHS), "eager": record.get("eager", False)}
    return split_options(record["model"]) | images | renamed | record["training"] | target


def split_options(described: dict) -> dict:
    """``{"name", "config"}`` of a model as values of a RunConfig."""
    config = dict(described["config"])
    shared = {key: config.pop(key) for key in models.SHARED if key in config}
    return {"model": described["name"], **shared, "options": config}


def _checked(cls: type, values: dict, path: Path):
    """``cls(**values)``. Raises UserError for values that are missing, unknown or of another type."""
    if not isinstance(values, dict):
        raise UserError(f"{path}: its configuration is a {type(values).__name__}, not a dict: train again")
    kinds = typing.get_type_hints(cls)
    required = [each.name for each in dataclasses.fields(cls) if each.default is each.default_factory]
    lacking, unknown = [key for key in required if key not in values], sorted(values.keys() - kinds.keys())
    if lacking or unknown:
        wrong = f"no {', '.join(lacking)}" if lacking else f"an unknown {unknown[0]}"
        raise UserError(f"{path}: its configuration has {wrong}: train again")
    for key, value in values.items():
        if not isinstance(value, kinds[key] | int if kinds[key] is float else kinds[key]):
            name = getattr(kinds[key], "__name__", kinds[key])
            raise UserError(f"{path}: its {key} is a {type(value).__name__}, not a {name}: train again")
    return cls(**values)


MAY_CHANGE = ("lr", "precision", "epochs", "eager", "data_path", "data_fingerprint", "skip_corrupt")


def check_resumable(saved: Checkpoint, asked: RunConfig, path: Path) -> None:
    """Raises UserError where a run cannot go on from ``saved`` with the configuration of the command line."""
    lacking = [part for part in ("optimizer", "random") if getattr(saved, part) is None]
    if lacking:
        raise UserError(f"{path}: a checkpoint without {', '.join(lacking)} cannot be resumed: train again")
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
