"""A training run: its typed configuration, what its checkpoint holds, and how it is saved and restored."""

import argparse
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

import data
import models
from experiments import best, config_file, ema, formats, integrity, irmae_release
from models.base import Autoencoder
from utils import checkpoint, devices, distributed, loop, schedules
from utils.errors import UserError
from utils.flags import POSITIVE


@dataclass
class RunConfig:
    """Everything that a training depends on, in plain values."""

    model: str  # a name of models.MODELS
    architecture: str  # a name of models.networks
    latent_dim: int  # n
    dataset: str  # a name of data.DATASETS, or what data.name_of_file gives
    image_size: int  # pixels
    channels: int
    options: dict = field(default_factory=dict)  # the other arguments of the model's constructor
    data_path: str | None = None  # absolute: the folder of the files, or the file
    data_fingerprint: str | None = None  # changes with the files of --dataset folder, or the file; None for others
    skip_corrupt: bool = False
    white: float | None = None  # value of white in images deeper than 8 bits; None where it is found
    crop: int | None = None  # an option of one data set, as the next: None for any other; see data.choose_options
    squares: str | None = None
    file: dict = field(default_factory=dict)  # data.arrays.OPTIONS of a file of one's own; {} for any other data set
    train_size: int | None = None  # so many images; None for all
    valid_size: int | None = None
    batch_size: int = 32
    order: str = "shuffled"  # of the training images: "shuffled" or "fixed"
    seed: int = 0
    init: str = "pytorch"  # weights of the networks at the start: a key of models.networks.INITS
    lr: float = 1e-4
    weight_decay: float = 0.0  # decoupled; 0: Adam
    lr_schedule: str = "constant"  # a key of utils.schedules.SCHEDULES
    precision: str = "fp32"
    epochs: int = 100  # where the training ends; as published
    eager: bool = False
    samples_every: int = 0  # epochs between pictures of samples; 0 for none
    patience: int = 0  # epochs without a lower validation loss after which the training ends; 0: never
    keep_best: bool = False
    wandb: str = ""  # a project of Weights & Biases, or ""
    ema: float = 0.0  # decay of the average of the weights that is evaluated; 0: the last weights are

    def __post_init__(self) -> None:
        for key in ("latent_dim", "channels", "batch_size", "epochs"):
            POSITIVE.require(key, getattr(self, key))

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "RunConfig":
        """The configuration that train.py's flags describe. Raises UserError for flags that contradict each other."""
        name = models.choose(args.model, args.linear_layers, args.vae)
        path = Path(args.data_path or data.DEFAULT_PATH)
        if file := data.file_options(args.dataset, vars(args)):
            described = data.arrays.describe(path, args.arch, file)
            models.require_squared_error(name)
        else:
            described = data.describe(args.dataset, args.image_size, args.channels)
            described["architecture"] = models.architecture(name, args.arch, described)
        models.refuse_foreign_options(name, vars(args))
        options = {k: old if (new := getattr(args, k)) is None else new for k, old in models.options(name).items()}
        latent_dim = models.find(name).default_latent_dim(options) or described["latent_dim"]
        values = {each.name: getattr(args, each.name) for each in fields(cls) if each.name in vars(args)}
        values |= {key: described[key] for key in ("image_size", "channels", "architecture")}
        values |= {"model": name, "options": options, "file": file, "latent_dim": args.latent_dim or latent_dim}
        values |= data.choose_options(args.dataset, {key: values[key] for key in data.UNRECORDED})
        values |= {"data_path": str(path.resolve()), "data_fingerprint": data.fingerprint(args.dataset, path)}
        return cls(**values)

    @property
    def rows(self) -> str:
        """What the samples are called in a printed line."""
        return "rows" if self.file else "images"

    def to_dict(self) -> dict:
        return asdict(self)

    def build_model(self) -> Autoencoder:
        """A freshly initialised model, on the CPU."""
        sizes = {"architecture": self.architecture, "channels": self.channels, "latent_dim": self.latent_dim}
        return models.build(self.model, self.init, **sizes, **self.options)

    def load_data(self, split: str, size: int | None = None) -> data.Dataset:
        """The split "train", "valid" or "test" of the data set; only the first ``size`` images where given."""
        path = self.data_path or data.DEFAULT_PATH  # of a file that is gone the fingerprint is None: load says so
        if self.file and len({self.data_fingerprint, data.fingerprint(self.dataset, path)} - {None}) > 1:
            raise UserError(f"{path}: not the file that the model was trained on, or it has changed since: put it back")
        images = (self.image_size, self.channels, self.skip_corrupt, self.white, self.file)
        return data.load(self.dataset, split, path, size, *images, **self.data_options())

    def data_options(self) -> dict:
        """The options that this data set alone has, by name: ``crop`` or ``squares``."""
        return {key: getattr(self, key) for key in data.own_options(self.dataset)}

    def flags(self) -> dict[str, object]:
        """The values of train.py's flags that describe this configuration, by destination."""
        values = self.to_dict() | {"arch": models.arch(self.architecture)} | self.options | self.file
        sizes = ("image_size", "channels") if self.file else ()  # of a file these are no flags
        left_out = ("architecture", "dataset", "options", "data_fingerprint", "file", *sizes)
        return {key: value for key, value in values.items() if key not in left_out}


@dataclass
class Checkpoint:
    """What a checkpoint file holds: a configuration, weights, and where the training stands."""

    config: RunConfig
    weights: dict  # what is evaluated
    epoch: int = 0  # finished ones
    step: int = 0  # finished ones of the epoch under way
    running: dict = field(default_factory=lambda: {"sums": {}, "count": 0})  # its losses, loop.Totals(**running)
    seconds: float = 0.0  # of training and validation that it took so far
    metrics: list = field(default_factory=list)  # a row for each finished epoch
    raw_weights: dict | None = None  # those that are trained, where ``weights`` are their average (--ema)
    optimizer: dict | None = None  # this and the next: states to resume from; None for a file of the release
    random: dict | None = None
    provenance: list = field(default_factory=list)  # of each process that trained it: utils.provenance


def read(path: str | Path) -> Checkpoint:
    """A checkpoint of format 2 or 1, or a bare state dict of the code released with IRMAE. Raises UserError."""
    from experiments import train_flags  # which imports this module

    record = checkpoint.load(path := Path(path))
    with integrity.refusing(path):
        if "format" not in record:
            record = {"weights": irmae_release.unwrap(record, path)}
        stored = formats.config_values(record, path)
        own = data.own_options(str(stored.get("dataset")))
        defaults = {key: data.UNRECORDED[key] if "format" in record else choices[0] for key, choices in own.items()}
        config = formats.checked(RunConfig, defaults | stored, path)
        train_flags.refuse_values(config, path)
        values = {key: value for key, value in record.items() if key not in formats.other_keys(record)}
        return integrity.checked_progress(formats.checked(Checkpoint, values | {"config": config}, path), path)


@dataclass
class Run:
    """A training under way, and the file that keeps it."""

    path: Path
    state: Checkpoint  # its tensors are those of the last ``save``
    model: Autoencoder
    optimizer: torch.optim.Optimizer
    device: torch.device
    started: float = field(default_factory=time.monotonic)  # of what ``state.seconds`` does not count
    saved: float = field(default_factory=time.monotonic)  # when the checkpoint was written, else when the run began
    best: dict = field(default_factory=dict)  # what the file of the best epoch is to hold; {} once it does
    average: ema.Average | None = None  # of the weights, with ``--ema``

    def seconds(self) -> float:
        """Of the epoch under way, in all the processes that it took."""
        return self.state.seconds + time.monotonic() - self.started

    def lr_factor(self, epoch: int) -> float:
        """What multiplies every learning rate in an epoch, from 0, once those before it are finished."""
        config, losses = self.state.config, [row["valid_loss"] for row in self.state.metrics]
        return schedules.factor(config.lr_schedule, epoch, config.epochs, losses)

    def restore(self) -> None:
        """Weights, optimiser and random state from the checkpoint; the learning rate stays the command line's."""
        optimizer, random = self.state.optimizer, self.state.random
        assert optimizer is not None and random is not None  # train_flags.check_resumable
        integrity.check(self.state, self.model, self.path)
        self.model.load_state_dict(self.state.raw_weights or self.state.weights)
        own = self.optimizer.state_dict()["param_groups"]  # settings of the command line and of this device
        self.optimizer.load_state_dict(optimizer | {"param_groups": own})
        devices.match_layout(self.optimizer)
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and random["cuda"] is not None:
            torch.cuda.set_rng_state(random["cuda"])

    def save(self, totals: loop.Totals) -> None:
        """Rank 0 writes the checkpoint. Where a loss, weight or moment is not finite: Diverged, nothing is written."""
        self.check_finite(totals.means())
        self.saved = time.monotonic()
        if distributed.rank() != 0:
            return
        self.state.weights, self.state.optimizer = ema.evaluated(self).state_dict(), self.optimizer.state_dict()
        self.state.raw_weights = self.model.state_dict() if self.average else None
        self.state.running, self.state.seconds, self.started = totals.state(), self.seconds(), time.monotonic()
        cuda = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        self.state.random = {"cpu": torch.get_rng_state(), "cuda": cuda}
        best.write(self)
        checkpoint.save(self.path, vars(self.state) | {"config": self.state.config.to_dict(), "format": formats.FORMAT})
        config_file.write(self.path, self.state.config, self.device.type == "cuda")

    def check_finite(self, losses: dict[str, float]) -> None:
        """Raises Diverged where a loss, a weight or a moment of the optimiser is not a finite number."""
        integrity.check_finite(losses, self.model, self.optimizer, self.path, self.state.epoch + 1)
