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
from experiments import run, train_flags
from models.base import Autoencoder
from utils import checkpoint, cli, devices, distributed, files, loop, plots
from utils.errors import Diverged

SAVE_EVERY = 600  # seconds between the checkpoints inside a long epoch
LEAST_VALIDATED = 128  # images of a validation batch, whatever --batch-size: fewer launches on a GPU
SHOWN_IMAGES = 32  # of the reconstructions in TensorBoard


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
    """What is trained and where it is kept; ``record`` is the checkpoint's content, its tensors as last saved."""

    path: Path
    record: run.Checkpoint
    model: Autoencoder
    optimizer: torch.optim.Optimizer
    device: torch.device
    step: loop.Step

    def restore(self) -> None:
        """Weights, optimiser and random state from the checkpoint; the learning rate stays the command line's."""
        # "capturable" belongs to the device: a run may go on where there is a GPU, or none.
        own = [{key: group[key] for key in ("lr", "capturable")} for group in self.optimizer.param_groups]
        checkpoint.require_finite(self.record.weights, self.path)
        self.model.load_state_dict(self.record.weights)
        self.optimizer.load_state_dict(self.record.optimizer)
        devices.match_layout(self.optimizer)
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)
        torch.set_rng_state(self.record.random["cpu"])
        if self.device.type == "cuda" and self.record.random["cuda"] is not None:
            torch.cuda.set_rng_state(self.record.random["cuda"])

    def save(self, totals: loop.Totals) -> None:
        """Write the checkpoint, of finite losses only. Of several processes all call this and the first writes."""
        self.check_finite(totals.means())
        distributed.average_buffers(self.model)
        if distributed.rank() != 0:
            return
        cuda = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        self.record.weights = self.model.state_dict()
        self.record.optimizer = self.optimizer.state_dict()
        self.record.running = totals.state()
        self.record.random = {"cpu": torch.get_rng_state(), "cuda": cuda}
        self.record.save(self.path)

    def check_finite(self, losses: dict[str, float]) -> None:
        """Raises Diverged, before anything is saved, where a loss is not a finite number."""
        wrong = [f"{key} = {value}" for key, value in losses.items() if not math.isfinite(value)]
        if wrong:
            kept = f"{self.path} holds the last good state" if self.path.exists() else "nothing was saved"
            epoch = self.record.epoch + 1
            raise Diverged(f"the training diverged in epoch {epoch} ({', '.join(wrong)}); {kept}; try a lower --lr")

    def leave(self, totals: loop.Totals, status: int) -> NoReturn:
        """Save between two steps and end with the exit status."""
        self.save(totals)
        distributed.wait()
        with contextlib.suppress(OSError):  # the terminal may have gone
            print(
                f"{self.path.name}: interrupted in epoch {self.record.epoch + 1} after {self.record.step} steps; "
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


def train_epoch(training: Run, train_set: data.Dataset, args: argparse.Namespace, interrupt: Interrupt) -> loop.Totals:
    """The rest of the epoch under way: all of it, or what an interrupted run has not seen. Losses of all processes."""
    record = training.record
    epoch = record.epoch + 1
    totals = loop.Totals(**record.running) if distributed.rank() == 0 else loop.Totals()
    # The order depends on seed and epoch alone, so that what is left of an epoch is known.
    order = torch.Generator().manual_seed(args.seed * 1_000_003 + epoch)
    indices = train_set.order(order).to(train_set.store.device).split(args.batch_size)[record.step :]
    batches = ((index[distributed.part(len(index))], len(index)) for index in indices)
    steps = -(-len(train_set) // args.batch_size)
    last_save = time.monotonic()
    with tqdm(
        total=steps, initial=record.step, desc=f"epoch {epoch}/{args.epochs}", leave=False, disable=hidden()
    ) as bar:
        for _ in loop.take_steps(training.step, batches, totals):
            record.step += 1
            if bar.update():  # true when the bar is redrawn; reading the loss each step would wait for the device
                bar.set_postfix(loss=f"{totals.means()['loss']:.4f}", refresh=False)  # of this process
            due = distributed.rank() == 0 and time.monotonic() - last_save > SAVE_EVERY
            if due:
                last_save = time.monotonic()
            wanted = interrupt.wants(save=due)
            if wanted > Interrupt.SAVE:
                training.leave(totals.of_all_processes(), wanted)
            if wanted == Interrupt.SAVE:
                training.save(totals.of_all_processes())
    return totals.of_all_processes()


def validate(training: Run, valid_set: data.Dataset, args: argparse.Namespace, interrupt: Interrupt) -> dict | None:
    """Mean losses over the validation images; None when interrupted."""
    size = max(args.batch_size, LEAST_VALIDATED)
    batches = valid_set.batches(size, training.device)
    shown = tqdm(batches, "validation", -(-len(valid_set) // size), leave=False, disable=hidden())
    images = ((x[distributed.part(len(x))], len(x)) for x in shown)
    return loop.evaluate(training.model, images, args.precision, stop=lambda: interrupt.wants() > Interrupt.SAVE)


def hidden() -> bool | None:
    """``disable`` of tqdm: the first process alone shows a bar, and only on a terminal."""
    return True if distributed.rank() else None


def finish_epoch(training: Run, totals: loop.Totals, valid_losses: dict, seconds: float) -> dict:
    """The epoch's row of metrics, into the checkpoint and the CSV beside it."""
    record = training.record
    row = {"epoch": record.epoch + 1, "lr": record.config.lr, "seconds": round(seconds, 3)}
    row |= {f"train_{key}": value for key, value in totals.means().items()}
    row |= {f"valid_{key}": value for key, value in valid_losses.items()}
    training.check_finite(row)
    record.metrics.append(row)
    record.epoch, record.step = row["epoch"], 0
    training.save(loop.Totals())
    if distributed.rank() == 0:
        files.write_csv(training.path.with_name(training.path.name + ".csv"), record.metrics)
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
    args = train_flags.parse()
    config = run.RunConfig.from_args(args)
    path = checkpoint.path_of(args.checkpoint, args.dataset, args.model_name or config.model)
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
        train(args, config, path, computing_on)


def train(args: argparse.Namespace, config: run.RunConfig, path: Path, computing_on: torch.device) -> None:
    """All epochs, from the beginning or from where the checkpoint at ``path`` stopped."""
    resuming = args.resume and path.exists()
    if resuming:
        record = run.read(path)
        run.check_resumable(record, config, path)
        record.config = config
    else:
        record = run.Checkpoint(config, {})
    if args.resume and not resuming:
        print(f"{path}: nothing to resume, starting from scratch")
    if record.epoch >= args.epochs:
        print(f"{path}: already trained for {record.epoch} epochs (--epochs {args.epochs})")
        return

    with distributed.first_alone():
        train_set = config.load_data("train", args.train_size)
        valid_set = config.load_data("valid", args.valid_size)
    train_set, valid_set = train_set.to(computing_on), valid_set.to(computing_on)

    devices.set_precision(args.precision)
    torch.manual_seed(args.seed)
    model = config.build_model().to(computing_on)
    model.train_size = len(train_set)
    if not args.eager:
        devices.prepare(model, computing_on)
    optimizer = loop.make_optimizer(model, args.lr)
    step = loop.Step(model, optimizer, train_set, args.precision, args.eager)
    training = Run(path, record, model, optimizer, computing_on, step)
    if resuming:
        training.restore()
        print(f"resuming {path} after {record.epoch} epochs and {record.step} steps")
    elif distributed.rank() == 0 and (aside := checkpoint.set_aside(path)) is not None:
        print(f"the earlier {path} is now {aside}")
    processes = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    print(
        f"{config.model} on {args.dataset}: n = {model.latent_dim}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_set):,} training and "
        f"{len(valid_set):,} validation images, {computing_on}{processes}, {args.precision}, seed {args.seed}"
    )

    if not resuming:
        pretrain(model, train_set, args.lr, computing_on)
    distributed.start_equal(model)
    interrupt = Interrupt()
    folder = path.parent / "tensorboard" / path.name
    writer = None  # until there is something to show: a run that fails before leaves nothing
    while record.epoch < args.epochs:
        started = time.monotonic()
        totals = train_epoch(training, train_set, args, interrupt)
        distributed.average_buffers(model)
        valid_losses = validate(training, valid_set, args, interrupt)
        if valid_losses is None:
            training.leave(totals, interrupt.wants())
        row = finish_epoch(training, totals, valid_losses, time.monotonic() - started)
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
        if wanted > Interrupt.SAVE and record.epoch < args.epochs:
            training.leave(loop.Totals(), wanted)
    if writer is not None:
        writer.close()
    epochs = f"{row['epoch']} epoch{'s' if row['epoch'] > 1 else ''}"
    loss = f"validation loss {row['valid_loss']:.5f} after {epochs}"
    print(f"{path.name} on {args.dataset}: {loss}; saved {path}")


if __name__ == "__main__":
    cli.run(main)
