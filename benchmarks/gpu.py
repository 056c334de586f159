#!/usr/bin/env python
"""What the choices of the training loop are worth on a GPU: memory format, cuDNN's search, compilation, company.

python benchmarks/gpu.py variants --json variants.json     formats, precisions, cuDNN's search, torch.compile, eager
python benchmarks/gpu.py together --json together.json     1 to 8 trainings at once: as processes, as streams of one

Steps are those of train.py on images of noise; a row is written as soon as it is measured. Under NVIDIA's MPS, where
CUDA_MPS_PIPE_DIRECTORY is set, kernels of several processes run at the same time, else in turn.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import cycle, product
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import measurement
from benchmarks.measurement import DTYPES, Setting, seconds_per_step, steps_of
from utils import cli, devices, files, loop
from utils.errors import UserError

SECONDS, WARM_UP = 1.5, 0.5  # of a measurement, before it
IMAGES = 10_240  # whole batches only: a smaller last one is not replayed, and compiled code is compiled again for it
DEVICE = torch.device("cuda")
SETTINGS = [("irmae", "mnist", 32), ("irmae", "celeba", 32), ("irmae", "celeba", 512)]
COMPANY = (1, 4, 8)


def make_step(setting: Setting, channels_last: bool, eager: bool = False, compiled: bool = False) -> loop.Step:
    """The step of train.py with one choice or another."""
    devices.set_precision(setting.precision)
    config = measurement.configuration(setting.model, setting.dataset)
    torch.manual_seed(0)
    model = config.build_model().to(DEVICE)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train_size = IMAGES
    images = measurement.load_images(setting.dataset, IMAGES, None).to(DEVICE)
    step = loop.Step(model, loop.make_optimizer(model, 1e-4), images, setting.precision, eager)
    if compiled:
        step.losses = torch.compile(step.losses)
    return step


def variant(setting: Setting, channels_last: bool, search=False, eager=False, compiled=False) -> dict:
    """Milliseconds of a step and of its replay alone."""
    torch.backends.cudnn.benchmark = search
    step = make_step(setting, channels_last, eager, compiled)
    steps = steps_of(step, setting.batch_size)
    started = time.perf_counter()
    next(steps)
    measurement.wait(DEVICE)
    first = time.perf_counter() - started
    seconds_per_step(steps, WARM_UP, DEVICE)
    found = {"ms_per_step": 1e3 * seconds_per_step(steps, SECONDS, DEVICE), "first_step_seconds": first}
    if (replay := step.replay) is not None:
        found["ms_of_replay"] = 1e3 * seconds_per_step((replay() for _ in cycle((0,))), SECONDS, DEVICE)
    achieved = measurement.flops_per_step(setting) / found["ms_per_step"] * 1e3  # operations a second
    rate = measurement.product_rate(setting.precision, DEVICE)
    return found | {
        "captured": replay is not None,
        "product_flops_per_second": rate,
        "product_fraction": achieved / rate,
    }


def alone(setting: Setting, begin: float) -> float:
    """Steps a second of one training that is measured from a moment on, at the same time as others."""
    steps = steps_of(make_step(setting, channels_last=True), setting.batch_size)
    while time.time() < begin:
        seconds_per_step(steps, 0.2, DEVICE)
    return 1 / seconds_per_step(steps, 2 * SECONDS, DEVICE)


def streams(setting: Setting, number: int) -> float:
    """Steps a second of so many trainings in this process: graphs on streams of their own, launched in turn."""
    trainings = [make_step(setting, channels_last=True) for _ in range(number)]
    for step in trainings:
        next(steps_of(step, setting.batch_size))
    places = [torch.cuda.Stream() for _ in trainings]
    measurement.wait(DEVICE)

    def launches() -> Iterator[None]:
        while True:
            for step, place in zip(trainings, places, strict=True):
                assert step.replay is not None
                with torch.cuda.stream(place):
                    step.replay()
            yield

    seconds_per_step(running := launches(), WARM_UP, DEVICE)
    return number / seconds_per_step(running, SECONDS, DEVICE)


def choices() -> Iterator[tuple[Setting, dict[str, bool]]]:
    """What is compared: every choice beside the others of its network, batch and precision."""
    for model, dataset, batch in SETTINGS:
        for precision in DTYPES if batch <= 32 else ("bf16",):
            for channels_last, search in product((True, False), (False, True)):
                yield Setting(model, dataset, batch, precision), {"channels_last": channels_last, "search": search}
        for precision, extra in product(("fp32", "bf16"), ("eager", "compiled") if batch <= 32 else ()):
            yield Setting(model, dataset, batch, precision), {"channels_last": True, extra: True}


def measure_variants(args: argparse.Namespace) -> Iterator[dict]:
    for setting, chosen in choices():
        try:
            found = variant(setting, **chosen)
        except Exception as error:  # a choice that fails is a result
            found = {"error": str(error).strip().partition("\n")[0]}
        yield {**asdict(setting), **chosen, **found}
        gc.collect()
        torch.cuda.empty_cache()


def measure_together(args: argparse.Namespace) -> Iterator[dict]:
    setting, mps = Setting("irmae", "mnist", 32, args.precision), "CUDA_MPS_PIPE_DIRECTORY" in os.environ
    for number in COMPANY:
        with ProcessPoolExecutor(number, get_context("spawn")) as pool:
            begin = time.time() + 12 + number
            rates = list(pool.map(alone, [setting] * number, [begin] * number))
        yield {**asdict(setting), "processes": number, "mps": mps, "steps_per_second": sum(rates), "each": rates}
    for number in () if mps else COMPANY:
        yield {**asdict(setting), "streams": number, "steps_per_second": streams(setting, number)}


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    stages = {"variants": measure_variants, "together": measure_together}
    parser.add_argument("stage", choices=list(stages))
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32", help="of the trainings together")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written after every row (default: STAGE.json)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError("no CUDA device found: these measurements are of one")
    path, rows = args.json or Path(f"{args.stage}.json"), []
    for row in stages[args.stage](args):
        rows.append(row)
        print(row, flush=True)
        files.write_json(path, {"machine": measurement.machine(DEVICE), "stage": args.stage, "rows": rows})


if __name__ == "__main__":
    cli.run(main)
