#!/usr/bin/env python
"""Train any model of the repository on any of its data sets.

python train.py --gpu -l 8 --dataset mnist          IRMAE
python train.py --gpu -l 0 --dataset mnist          the plain autoencoder
python train.py --gpu --vae --dataset mnist         VAE
python train.py --gpu --vae --resume                go on after Ctrl-C, a kill or a power cut
torchrun --nproc_per_node=2 train.py --gpu -l 8     the same, on two GPUs
"""

import argparse
import contextlib
import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import data
import models
from experiments.presets import PRESETS
from models.base import Autoencoder
from utils import checkpoint, cli, devices, distributed, files, loop, plots
from utils.errors import Diverged, UserError

SAVE_EVERY = 600  # seconds between the checkpoints inside a long epoch
TARGET = 100  # epochs unless --epochs says otherwise, as published
LEAST_VALIDATED = 128  # images of a validation batch, whatever --batch-size: fewer launches on a GPU
SHOWN_IMAGES = 32  # of the reconstructions in TensorBoard


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
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
    cli.add_options(parser, models.MODELS, models.options)
    group = cli.add_run(parser, batch_size=32)
    group.add_argument("--epochs", type=cli.positive, default=TARGET, help="passes over the training images")
    group.add_argument("--lr", type=cli.positive_float, default=1e-4, help="learning rate of Adam")
    group.add_argument(
        "--precision",
        choices=list(devices.PRECISIONS),
        default="fp32",
        help="; ".join(f"{key}: {title}" for key, title in devices.PRECISIONS.items()),
    )
    group.add_argument("--eager", action="store_true", help="as PyTorch has it: no CUDA graph, no faster form")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on where the checkpoint of this name stopped, with its flags where none are given",
    )
    group = parser.add_argument_group("files")
    group.add_argument("--checkpoint", default="./checkpoint", metavar="DIR", help="folder of the checkpoints")
    args = parser.parse_args(arguments)
    preset = PRESETS[args.preset].flags if args.preset is not None else {}
    parser.set_defaults(**preset)
    if args.resume:
        first = first_flags(parser.parse_args(arguments))
        parser.set_defaults(**first | preset)  # a preset that is given counts as its flags
    return parser.parse_args(arguments)


def first_flags(args: argparse.Namespace) -> dict[str, object]:
    """What ``--resume`` takes from the checkpoint where the command line says nothing; nothing if there is none."""
    asked = models.choose(args.model, args.linear_layers, args.vae)
    path = checkpoint.path_of(args.checkpoint, args.dataset, args.model_name or asked)
    said = args.model is not None or args.vae or args.linear_layers is not None
    if not path.exists() and args.model_name and not said:
        others = ", ".join(checkpoint.available(path.parent)) or "none"
        raise UserError(
            f"--resume: {path}: no such checkpoint (there are: {others}); to begin a run of that name say which model "
            "(-l, --vae or --model)"
        )
    record = checkpoint.load(path) if path.exists() else {}
    if not {"model", "data", "training"} <= record.keys():
        return {}
    name, config, images = record["model"]["name"], record["model"]["config"], record["data"]
    flags = {key: images.get(key) for key in ("image_size", "channels", "skip_corrupt", "train_size", "valid_size")}
    flags |= {"epochs": record.get("target", TARGET), "eager": record.get("eager", False), **record["training"]}
    flags["data_path"] = args.data_path or data.recorded_path(args.dataset, images["path"], path)
    if said and asked != name:
        return flags  # continue_run says that these are two models
    own = {key: value for key, value in config.items() if key not in ("architecture", "channels")}
    return flags | {"model": name, "arch": models.arch(config["architecture"])} | own


def new_run(args: argparse.Namespace) -> dict:
    """The record of a run that has not begun, from the command line: plain values only."""
    name = models.choose(args.model, args.linear_layers, args.vae)
    described = data.describe(args.dataset, args.image_size, args.channels)
    config = {
        "architecture": models.architecture(name, args.arch, described),
        "channels": described["channels"],
        "latent_dim": args.latent_dim or described["latent_dim"],
    }
    for key, default in models.options(name).items():
        given = getattr(args, key)
        config[key] = default if given is None else given
    models.refuse_foreign_options(name, vars(args))
    derived = models.row(name).latent_dim
    if derived is not None and args.latent_dim is None:
        config["latent_dim"] = derived(config)
    return {
        "model": {"name": name, "config": config},
        "data": {
            "name": args.dataset,
            "image_size": described["image_size"],
            "channels": described["channels"],
            "path": str(Path(args.data_path or data.DEFAULT_PATH).resolve()),
            "files": data.fingerprint(args.dataset, args.data_path or data.DEFAULT_PATH),
            "skip_corrupt": args.skip_corrupt,
            "train_size": args.train_size,
            "valid_size": args.valid_size,
        },
        "training": {"batch_size": args.batch_size, "seed": args.seed, "lr": args.lr, "precision": args.precision},
        "target": args.epochs,
        "eager": args.eager,
        "epoch": 0,  # finished ones
        "step": 0,  # finished ones of the epoch under way
        "running": {"sums": {}, "count": 0},
        "metrics": [],
    }


def continue_run(record: dict, asked: dict, path: Path) -> dict:
    """The record of an interrupted run, to go on with. Learning rate and precision may change; the rest may not.

    Raises:
        UserError: the command line asks for another model, data set, batch size or seed than the file has.
    """
    if "format" not in record:
        raise UserError(f"{path}: a checkpoint of the released code has no optimiser to resume: train without --resume")
    checkpoint.require(record, path, *(asked.keys() - {"target", "eager"}), "weights", "optimizer", "random")
    pairs = [("model", record["model"]["name"], asked["model"]["name"])]
    for part, keys in (
        ("model", asked["model"]["config"]),
        ("data", ("name", "image_size", "channels", "train_size", "valid_size")),
        ("training", ("batch_size", "seed")),
    ):
        old, new = record[part], asked[part]
        if part == "model":
            old, new = old["config"], new["config"]
        pairs += [(key, old.get(key), new[key]) for key in keys]
    for key, old, new in pairs:
        if old != new:
            raise UserError(
                f"--resume: {key} is {old} in {path} but {new} on the command line: give the flags of the first run, "
                "or train anew under another --model-name"
            )
    was, now = record["data"].get("files"), asked["data"]["files"]
    if was is not None and was != now:
        if record["step"] > 0:
            raise UserError(
                f"--resume: the images in {asked['data']['path']} are not those of the first run, which stopped in the "
                "middle of an epoch of them: put them back, or train anew under another --model-name"
            )
        print(f"the images in {asked['data']['path']} have changed since {path} was saved: going on with those there")
    return record | {key: asked[key] for key in ("training", "data", "target", "eager")}


class Interrupt:
    """Remembers that a signal came, so that the loop can end between two steps; a second one ends at once.

    Of several processes all end between the same two steps, whichever of them got the signal.
    """

    # Ctrl-C, a scheduler, a terminal that was closed (which Windows has no signal for).
    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
    SAVE = 1  # what ``wants`` says of a checkpoint that is due; less than every exit status

    def __init__(self):
        self.status = 0
        self.vote = distributed.Vote()
        # One that is ignored stays so: that is how nohup keeps a run alive.
        self.caught = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self.caught:
            signal.signal(number, self)

    def __call__(self, number: int, frame: object) -> None:
        self.status = 128 + number  # as a shell has it
        # torchrun, which passes signals on, ends by itself what has not ended in 30 seconds.
        for each in self.caught:
            signal.signal(each, signal.SIG_IGN if distributed.launched() else signal.SIG_DFL)

    def wants(self, save: bool = False) -> int:
        """The exit status for the signal that came, else ``SAVE`` if that is due, else 0: the same in all processes."""
        return self.vote(self.status or (self.SAVE if save else 0))


@dataclass
class Run:
    """What is trained and where it is kept; ``record`` is the checkpoint's content but for the tensors."""

    path: Path
    record: dict
    model: Autoencoder
    optimizer: torch.optim.Optimizer
    device: torch.device
    step: loop.Step

    def restore(self) -> None:
        """Weights, optimiser and random state from the record; the learning rate stays the command line's."""
        # "capturable" belongs to the device: a run may go on where there is a GPU, or none.
        own = [{key: group[key] for key in ("lr", "capturable")} for group in self.optimizer.param_groups]
        checkpoint.require_finite(self.record["weights"], self.path)
        self.model.load_state_dict(self.record["weights"])
        self.optimizer.load_state_dict(self.record["optimizer"])
        devices.match_layout(self.optimizer)
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)
        torch.set_rng_state(self.record["random"]["cpu"])
        if self.device.type == "cuda" and self.record["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(self.record["random"]["cuda"])

    def save(self, totals: loop.Totals) -> None:
        """Write the checkpoint, of finite losses only. Of several processes all call this and the first writes."""
        self.check_finite(totals.means())
        distributed.average_buffers(self.model)
        if distributed.rank() != 0:
            return
        cuda = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        self.record.update(
            weights=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            running=totals.state(),
            random={"cpu": torch.get_rng_state(), "cuda": cuda},
        )
        checkpoint.save(self.path, self.record)

    def check_finite(self, losses: dict[str, float]) -> None:
        """Raises Diverged, before anything is saved, where a loss is not a finite number."""
        wrong = [f"{key} = {value}" for key, value in losses.items() if not math.isfinite(value)]
        if wrong:
            kept = f"{self.path} holds the last good state" if self.path.exists() else "nothing was saved"
            epoch = self.record["epoch"] + 1
            raise Diverged(f"the training diverged in epoch {epoch} ({', '.join(wrong)}); {kept}; try a lower --lr")

    def leave(self, totals: loop.Totals, status: int) -> NoReturn:
        """Save between two steps and end with the exit status."""
        self.save(totals)
        distributed.wait()
        with contextlib.suppress(OSError):  # the terminal may have gone
            print(
                f"{self.path.name}: interrupted in epoch {self.record['epoch'] + 1} after {self.record['step']} steps; "
                f"saved {self.path}; the same command with --resume goes on",
                flush=True,
            )
        sys.exit(status)


def pretrain(model: Autoencoder, train_set: data.Dataset, lr: float, computing_on: torch.device) -> None:
    """What some models do before their first epoch, on random training images; a bar, where it takes a while."""
    with tqdm(desc="before the first epoch", unit=" steps", delay=1, leave=False, disable=hidden()) as bar:

        def draw(num: int) -> torch.Tensor:
            bar.update()
            return train_set[torch.randint(len(train_set), (num,))].to(computing_on)

        model.pretrain(draw, lr)


def train_epoch(run: Run, train_set: data.Dataset, args: argparse.Namespace, interrupt: Interrupt) -> loop.Totals:
    """The rest of the epoch under way: all of it, or what an interrupted run has not seen. Losses of all processes."""
    record = run.record
    epoch = record["epoch"] + 1
    totals = loop.Totals(**record["running"]) if distributed.rank() == 0 else loop.Totals()
    # The order depends on seed and epoch alone, so that what is left of an epoch is known.
    order = torch.Generator().manual_seed(args.seed * 1_000_003 + epoch)
    indices = train_set.order(order).to(train_set.store.device).split(args.batch_size)[record["step"] :]
    batches = ((index[distributed.part(len(index))], len(index)) for index in indices)
    steps = -(-len(train_set) // args.batch_size)
    last_save = time.monotonic()
    with tqdm(
        total=steps, initial=record["step"], desc=f"epoch {epoch}/{args.epochs}", leave=False, disable=hidden()
    ) as bar:
        for _ in loop.take_steps(run.step, batches, totals):
            record["step"] += 1
            if bar.update():  # true when the bar is redrawn; reading the loss each step would wait for the device
                bar.set_postfix(loss=f"{totals.means()['loss']:.4f}", refresh=False)  # of this process
            due = distributed.rank() == 0 and time.monotonic() - last_save > SAVE_EVERY
            if due:
                last_save = time.monotonic()
            wanted = interrupt.wants(save=due)
            if wanted > Interrupt.SAVE:
                run.leave(totals.of_all_processes(), wanted)
            if wanted == Interrupt.SAVE:
                run.save(totals.of_all_processes())
    return totals.of_all_processes()


def validate(run: Run, valid_set: data.Dataset, args: argparse.Namespace, interrupt: Interrupt) -> dict | None:
    """Mean losses over the validation images; None when interrupted."""
    size = max(args.batch_size, LEAST_VALIDATED)
    batches = valid_set.batches(size, run.device)
    shown = tqdm(batches, "validation", -(-len(valid_set) // size), leave=False, disable=hidden())
    images = ((x[distributed.part(len(x))], len(x)) for x in shown)
    return loop.evaluate(run.model, images, args.precision, stop=lambda: interrupt.wants() > Interrupt.SAVE)


def hidden() -> bool | None:
    """``disable`` of tqdm: the first process alone shows a bar, and only on a terminal."""
    return True if distributed.rank() else None


def finish_epoch(run: Run, totals: loop.Totals, valid_losses: dict, seconds: float) -> dict:
    """The epoch's row of metrics, into the checkpoint and the CSV beside it."""
    record = run.record
    row = {"epoch": record["epoch"] + 1, "lr": record["training"]["lr"], "seconds": round(seconds, 3)}
    row |= {f"train_{key}": value for key, value in totals.means().items()}
    row |= {f"valid_{key}": value for key, value in valid_losses.items()}
    run.check_finite(row)
    record["metrics"].append(row)
    record.update(epoch=row["epoch"], step=0, running=loop.Totals().state())
    run.save(loop.Totals())
    if distributed.rank() == 0:
        files.write_csv(run.path.with_name(run.path.name + ".csv"), record["metrics"])
    return row


@torch.no_grad()
def log_epoch(
    writer: SummaryWriter, model: torch.nn.Module, valid_set: data.Dataset, row: dict, computing_on: torch.device
) -> None:
    """TensorBoard scalars of the epoch, and validation images beside their reconstructions."""
    for key, value in row.items():
        if key != "epoch":
            writer.add_scalar(key.replace("_", "/", 1), value, row["epoch"])
    model.eval()
    x = next(valid_set.batches(SHOWN_IMAGES, device=computing_on))
    pairs = plots.side_by_side(x, model(x))
    writer.add_image("reconstruction", plots.image_grid(pairs, columns=16), row["epoch"])
    writer.flush()


def main() -> None:
    args = parse_arguments()
    record = new_run(args)
    path = checkpoint.path_of(args.checkpoint, args.dataset, args.model_name or record["model"]["name"])
    computing_on = devices.choose(args.gpu)
    if devices.emulated(args.precision, computing_on) and distributed.local_rank() == 0:
        print("warning: --precision bf16: this processor only emulates bfloat16: slower than fp32", file=sys.stderr)

    def advice() -> str:
        return f"{path} holds what was saved last; --resume goes on there" if path.exists() else "nothing was saved yet"

    # Until the first step there is nothing to save, but something to tidy up.
    for number in set(Interrupt.SIGNALS) - {signal.SIGINT}:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    with distributed.together(computing_on, advice), checkpoint.alone(path, distributed.rank() == 0):
        train(args, record, path, computing_on)


def train(args: argparse.Namespace, record: dict, path: Path, computing_on: torch.device) -> None:
    """All epochs, from the beginning or from where the checkpoint at ``path`` stopped."""
    resuming = args.resume and path.exists()
    if resuming:
        record = continue_run(checkpoint.load(path), record, path)
    elif args.resume:
        print(f"{path}: nothing to resume, starting from scratch")
    if record["epoch"] >= args.epochs:
        print(f"{path}: already trained for {record['epoch']} epochs (--epochs {args.epochs})")
        return

    images = (args.image_size, args.channels, args.skip_corrupt)
    with distributed.first_alone():
        train_set = data.load(args.dataset, "train", record["data"]["path"], args.train_size, *images)
        valid_set = data.load(args.dataset, "valid", record["data"]["path"], args.valid_size, *images)
    train_set, valid_set = train_set.to(computing_on), valid_set.to(computing_on)

    devices.set_precision(args.precision)
    torch.manual_seed(args.seed)
    model = models.build(record["model"]["name"], **record["model"]["config"]).to(computing_on)
    if not args.eager:
        devices.prepare(model, computing_on)
    optimizer = loop.make_optimizer(model, args.lr)
    step = loop.Step(model, optimizer, train_set, args.precision, args.eager)
    run = Run(path, record, model, optimizer, computing_on, step)
    if resuming:
        run.restore()
        print(f"resuming {path} after {record['epoch']} epochs and {record['step']} steps")
    elif distributed.rank() == 0 and (aside := checkpoint.set_aside(path)) is not None:
        print(f"the earlier {path} is now {aside}")
    processes = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    print(
        f"{record['model']['name']} on {args.dataset}: n = {model.latent_dim}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_set):,} training and "
        f"{len(valid_set):,} validation images, {computing_on}{processes}, {args.precision}, seed {args.seed}"
    )

    if not resuming:
        pretrain(model, train_set, args.lr, computing_on)
    distributed.start_equal(model)
    interrupt = Interrupt()
    folder = path.parent / "tensorboard" / path.name
    writer = None  # until there is something to show: a run that fails before leaves nothing
    while record["epoch"] < args.epochs:
        started = time.monotonic()
        totals = train_epoch(run, train_set, args, interrupt)
        distributed.average_buffers(model)
        valid_losses = validate(run, valid_set, args, interrupt)
        if valid_losses is None:
            run.leave(totals, interrupt.wants())
        row = finish_epoch(run, totals, valid_losses, time.monotonic() - started)
        if distributed.rank() == 0:
            writer = writer or SummaryWriter(folder, purge_step=row["epoch"])
            log_epoch(writer, model, valid_set, row, computing_on)
        terms = "  ".join(f"{key} {value:.4f}" for key, value in valid_losses.items() if key != "loss")
        print(
            f"{path.name}: epoch {row['epoch']}/{args.epochs}  loss {row['train_loss']:.5f}  "
            f"valid {row['valid_loss']:.5f}  ({terms})  {row['seconds']:.1f} s",
            flush=True,
        )
        wanted = interrupt.wants()
        if wanted > Interrupt.SAVE and record["epoch"] < args.epochs:
            run.leave(loop.Totals(), wanted)
    if writer is not None:
        writer.close()
    epochs = f"{row['epoch']} epoch{'s' if row['epoch'] > 1 else ''}"
    loss = f"validation loss {row['valid_loss']:.5f} after {epochs}"
    print(f"{path.name} on {args.dataset}: {loss}; saved {path}")


if __name__ == "__main__":
    cli.run(main)
