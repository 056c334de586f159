#!/usr/bin/env python
"""Train any model of the repository on any of its data sets.

python train.py --gpu -l 8 --dataset mnist          IRMAE
python train.py --gpu -l 0 --dataset mnist          the plain autoencoder
python train.py --gpu --vae --dataset mnist         VAE
python train.py --gpu --vae --resume                go on after Ctrl-C, a kill or a power cut
torchrun --nproc_per_node=2 train.py --gpu -l 8     the same, on two GPUs
"""

import contextlib
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

import torch
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

import data
from experiments import best, ema, samples, tracking, train_flags
from experiments.logs import Logs
from experiments.progress import Pace
from experiments.run import Checkpoint, Run, RunConfig, read
from models.base import Autoencoder
from utils import checkpoint, cli, devices, distributed, interrupt, loop
from utils.interrupt import Interrupt
from utils.provenance import provenance

# Checkpoints: inside a long epoch every so many seconds; after an epoch where the last one is so many seconds old, and
# after so many epochs, the first and the last. On a GPU a small network's epoch is shorter than writing one.
SAVE_EVERY, SAVE_AFTER, SAVE_EPOCHS = 600, 60, 10
VALID_BATCH_SIZE, VALID_PIXELS = (128, 1000), 2**20  # of validation: the range, and what bounds its memory
SHOWN_IMAGES = 32  # of the reconstructions in TensorBoard


def main() -> None:
    args = train_flags.parse()
    config = RunConfig.from_args(args)
    name = config.model if args.model_name is None else args.model_name
    path = checkpoint.path_of(args.checkpoint, config.dataset, name)
    device = devices.choose(args.gpu)
    # Adam's moments of weights without a gradient (dark pixels) decay to subnormal numbers, on which CPUs are slow. Set
    # before the first threads start, which inherit it.
    torch.set_flush_denormal(device.type == "cpu")
    if devices.emulated(config.precision, device) and distributed.local_rank() == 0:
        print("warning: --precision bf16: this processor only emulates bfloat16: slower than fp32", file=sys.stderr)

    def advice() -> str:
        return f"{path} holds what was saved last; --resume goes on there" if path.exists() else "nothing was saved yet"

    interrupt.exit_on_signals()  # until the first step there is nothing to save, but a lock to release
    with distributed.process_group(device, advice), checkpoint.exclusive_run(path, distributed.rank() == 0):
        train(config, path, device, args.resume)


def train(config: RunConfig, path: Path, device: torch.device, resume: bool) -> None:
    """All epochs, from the beginning or, with ``resume``, from where the checkpoint at ``path`` stopped."""
    state = Checkpoint(config, {})
    resuming = resume and path.exists()
    if resuming:
        state = read(path)
        train_flags.check_resumable(state, config, path)
        state.config = config
        if distributed.rank() == 0:
            Logs(path).complete(state.metrics)
    elif resume:
        print(f"{path}: nothing to resume, starting from scratch")
    if best.finished(state):
        patience = f", --patience {config.patience}" * (state.epoch < config.epochs)
        print(f"{path}: already trained for {state.epoch} epochs (--epochs {config.epochs}{patience})")
        return

    with distributed.main_process_first():
        train_set = config.load_data("train", config.train_size).to(device)
        valid_set = config.load_data("valid", config.valid_size).to(device)

    devices.set_precision(config.precision)
    torch.manual_seed(config.seed)
    model = config.build_model().to(device)
    model.train_size = len(train_set)
    if not config.eager:
        devices.prepare(model, device)
    scheduled = config.lr_schedule != "constant"
    optimizer = loop.make_optimizer(model, config.lr, config.weight_decay, scheduled)
    run = Run(path, state, model, optimizer, device)
    if resuming:
        run.restore()
    state.provenance.append(provenance(device, config.seed, config.precision))
    logs = Logs(path, tracking.start(path, state))
    logs.track(state.metrics, {})
    if resuming:
        print(f"resuming {path} after {state.epoch} epochs and {state.step} steps")
    elif distributed.rank() == 0 and (archived := checkpoint.archive_previous_run(path)) is not None:
        print(f"the earlier {path} is now {archived}")
    processes = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    print(
        f"{config.model} on {config.dataset}: n = {model.latent_dim}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_set):,} training and "
        f"{len(valid_set):,} validation {config.rows}, {device}{processes}, {config.precision}, seed {config.seed}"
    )
    if not resuming:
        pretrain(model, train_set, config.lr, device)
    distributed.seed_noise(config.seed, state.epoch, state.step)
    ema.start(run, resuming)
    ema.caution(config, len(train_set))
    step = loop.Step(model, optimizer, train_set, config.precision, config.eager)
    fit(run, step, valid_set, logs)


def pretrain(model: Autoencoder, train_set: data.Dataset, lr: float, device: torch.device) -> None:
    """What some models do before their first epoch, on random training images; with a bar, where it takes a while."""
    with tqdm(desc="before the first epoch", unit=" steps", delay=1, leave=False, disable=hidden()) as bar:

        def draw(num: int) -> torch.Tensor:
            bar.update()
            return train_set[torch.randint(len(train_set), (num,))].to(device)

        model.pretrain(draw, lr)


def fit(run: Run, step: loop.Step, valid_set: data.Dataset, logs: Logs) -> None:
    """The remaining epochs: train, validate, save, and show the losses."""
    state, config, name, signals = run.state, run.state.config, run.path.name, Interrupt()
    steps, epochs = -(-len(step.dataset) // config.batch_size), config.epochs - state.epoch
    pace = Pace(name, run.device, epochs, epochs * steps - state.step)
    scheduler = LambdaLR(run.optimizer, run.lr_factor, last_epoch=state.epoch - 1)
    while not best.finished(state):
        run.started = time.monotonic()
        totals = train_epoch(run, step, signals, pace)
        valid_losses = validate(run, valid_set, signals)
        if valid_losses is None:
            save_and_exit(run, totals, signals.poll())
        row, saved = finish_epoch(run, totals, valid_losses)
        scheduler.step()
        if distributed.rank() == 0:
            drawn = config.samples_every > 0 and row["epoch"] % config.samples_every == 0
            shown = reconstructions(run, valid_set) if (saved or drawn) and not config.file else None
            logs.add(state.metrics, {"reconstruction": shown} if saved and shown is not None else {})
            if drawn:
                samples.write(run, step.dataset, shown)
        terms = "  ".join(f"{key} {value:.4f}" for key, value in valid_losses.items() if key != "loss")
        print(
            f"{name}: epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.5f}  "
            f"valid {row['valid_loss']:.5f}  ({terms})  {row['seconds']:.1f} s",
            flush=True,
        )
        status = signals.poll()
        if status and not best.finished(state):
            save_and_exit(run, loop.Totals(), status)
    print(f"curves of all runs: tensorboard --logdir {shlex.quote(str(logs.folder.parent))}")
    after = f"{row['epoch']} epoch{'s' if row['epoch'] > 1 else ''}"
    after += f", the last {config.patience} of them without a lower one" * (state.epoch < config.epochs)
    kept = f"; {run.path.name}{checkpoint.BEST} is of epoch {best.best_epoch(state.metrics)}"
    kept *= config.keep_best and run.path.with_name(run.path.name + checkpoint.BEST).exists()
    print(f"{name} on {config.dataset}: validation loss {row['valid_loss']:.5f} after {after}; saved {run.path}{kept}")


def train_epoch(run: Run, step: loop.Step, signals: Interrupt, pace: Pace) -> loop.Totals:
    """The epoch under way: all of it, or what an interrupted run has not seen. Returns the losses of all processes."""
    state, config = run.state, run.state.config
    totals = loop.Totals(**state.running) if distributed.rank() == 0 else loop.Totals()
    shuffle = config.order == "shuffled"
    steps = loop.epoch(step, config.batch_size, config.seed, state.epoch + 1, state.step, totals, shuffle)
    title, length = f"epoch {state.epoch + 1}/{config.epochs}", -(-len(step.dataset) // config.batch_size)
    with tqdm(desc=title, total=length, initial=state.step, leave=False, disable=hidden()) as bar:
        for _ in steps:
            state.step += 1
            if run.average is not None:
                run.average.step()
            pace.step(totals.means)
            if bar.update():  # true when the bar is redrawn; reading the loss each step would wait for the device
                bar.set_postfix(loss=f"{totals.means()['loss']:.4f}", **pace.left(), refresh=False)  # of this process
            request = signals.poll(save=time.monotonic() - run.saved > SAVE_EVERY, now=False)
            if request > Interrupt.SAVE:
                save_and_exit(run, totals.of_all_processes(), request)
            if request == Interrupt.SAVE:
                run.save(totals.of_all_processes())
    return totals.of_all_processes()


def validate(run: Run, valid_set: data.Dataset, signals: Interrupt) -> dict | None:
    """Mean losses over the validation images; None where a signal interrupted it."""
    distributed.broadcast_buffers(run.model)
    least, most = VALID_BATCH_SIZE
    pixels = max(1, run.state.config.image_size**2)
    size = max(run.state.config.batch_size, least, min(most, VALID_PIXELS // pixels))
    batches = valid_set.batches(size, run.device)
    shown = tqdm(batches, "validation", -(-len(valid_set) // size), leave=False, disable=hidden())
    model = ema.evaluated(run)
    return loop.evaluate(model, shown, run.state.config.precision, lambda: signals.poll(now=False) > Interrupt.SAVE)


def hidden() -> bool | None:
    """``disable`` of tqdm: only rank 0 shows a bar, and only on a terminal."""
    return True if distributed.rank() else None


def finish_epoch(run: Run, totals: loop.Totals, valid_losses: dict) -> tuple[dict, bool]:
    """The epoch's row of metrics, and whether a checkpoint was due."""
    state = run.state
    lr = state.config.lr * run.lr_factor(state.epoch)
    row = {"epoch": state.epoch + 1, "lr": lr, "seconds": round(run.seconds(), 3)}
    row |= {f"train_{key}": value for key, value in totals.means().items()}
    row |= {f"valid_{key}": value for key, value in valid_losses.items()}
    run.check_finite(row)
    state.metrics.append(row)
    state.epoch, state.step, state.running = row["epoch"], 0, loop.Totals().state()
    run.started, state.seconds = time.monotonic(), 0.0
    best.keep(run)
    due = row["epoch"] == 1 or best.finished(state) or row["epoch"] % SAVE_EPOCHS == 0
    due = due or time.monotonic() - run.saved > SAVE_AFTER
    if saved := distributed.largest(int(due)) > 0:
        run.save(loop.Totals())
    return row, saved


def save_and_exit(run: Run, totals: loop.Totals, status: int) -> NoReturn:
    """Save between two steps and end with the exit status of the signal."""
    run.save(totals)
    distributed.barrier()
    with contextlib.suppress(OSError):  # the terminal may have gone
        print(
            f"{run.path.name}: interrupted in epoch {run.state.epoch + 1} after {run.state.step} steps; "
            f"saved {run.path}: the evaluation scripts take it as it is; the same command with --resume goes on",
            flush=True,
        )
    sys.exit(status)


@torch.no_grad()
def reconstructions(run: Run, valid_set: data.Dataset) -> torch.Tensor:
    """Validation images beside their reconstructions, a picture ``(3, H, W)``."""
    from utils import plots

    model = ema.evaluated(run).eval()
    x = next(valid_set.batches(SHOWN_IMAGES, run.device))
    return plots.image_grid(plots.side_by_side(x, model(x)), columns=16)


if __name__ == "__main__":
    cli.run(main)
