"""One training loop in a process of its own, ours or the reference, and what is measured of it."""

import argparse
import os
import resource
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import data
from benchmarks import reference
from data.base import Dataset
from experiments import train_flags
from experiments.run import RunConfig
from utils import devices, loop
from utils.provenance import processor, provenance

ROUND_SECONDS = 5.0  # a round of a slow model ends before --steps
PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}  # rows and columns of the square matrices of the yardstick
COUNTED = 4  # images that the arithmetic is counted for
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

# What the profile adds up, by the beginning of the operator's name; the first that fits counts.
KINDS = {
    "convolutions, backward": ("aten::convolution_backward", "aten::cudnn_convolution_backward"),
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::_convolution", "aten::cudnn_convolution"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear"),
    "optimiser": ("aten::_fused_adam_", "Optimizer."),
    "copies, casts, fills": ("aten::copy_", "aten::fill_", "aten::cat", "aten::empty", "aten::_to_copy"),
    "activations": ("aten::clamp_min", "aten::relu", "aten::threshold_backward", "aten::tanh", "aten::sigmoid"),
    "sums, means, additions": ("aten::sum", "aten::mean", "aten::add", "aten::mul", "aten::div", "aten::mse_loss"),
    "everything else": ("",),
}


@dataclass(frozen=True)
class Setting:
    """What a row of the table is about."""

    model: str
    dataset: str
    batch_size: int
    precision: str


def configuration(model: str, dataset: str) -> RunConfig:
    """The model on the data set with train.py's defaults."""
    return RunConfig.from_args(train_flags.parse(["--model", model, "--dataset", dataset]))


def load_images(name: str, num: int, path: Path | None) -> data.Dataset:
    """``num`` images as train.py holds them; noise unless there is a path. Shapes are rendered as always."""
    if name == "shape" or path is not None:
        return data.load(name, "train", path or "", num)
    described, generator = data.describe(name), torch.Generator().manual_seed(0)
    shape = (num, described["channels"], described["image_size"], described["image_size"])
    return Dataset(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


def our_steps(
    config: RunConfig, setting: Setting, dataset: data.Dataset, device: torch.device
) -> Iterator[loop.Totals]:
    """The steps that train.py takes, without end."""
    devices.set_precision(setting.precision)
    model = devices.prepare(config.build_model(), device)
    model.train_size = len(dataset)
    step = loop.Step(model, loop.make_optimizer(model, 1e-4), dataset.to(device), setting.precision)
    totals = loop.Totals()
    for number in count(1):
        yield from loop.epoch(step, setting.batch_size, 0, number, totals=totals)


def flops_per_step(setting: Setting) -> float:
    """Multiplications and additions of a forward and backward pass, as the plain modules need them.

    Counted with a few images: what grows faster than the batch, distances between codes say, is small beside the rest.
    """
    config = configuration(setting.model, setting.dataset)
    model = config.build_model().train()
    model.train_size = COUNTED
    with FlopCounterMode(display=False) as counter:
        model.losses(torch.rand(COUNTED, config.channels, config.image_size, config.image_size))["loss"].backward()
    return counter.get_total_flops() / COUNTED * setting.batch_size


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_per_step(steps_of_a_loop: Iterator, steps: int, limit: float, device: torch.device) -> float:
    """Of so many steps, or as many as the limit (seconds) holds."""
    wait(device)
    started, done = time.perf_counter(), 0
    while done < steps and (done == 0 or time.perf_counter() - started < limit):
        next(steps_of_a_loop)
        done += 1
    wait(device)
    return (time.perf_counter() - started) / done


def product_rate(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product: what this machine can do."""
    size = PRODUCT_SIZES[device.type]
    matrix = torch.ones(size, size, dtype=DTYPES[precision], device=device)
    products = (matrix @ matrix for _ in repeat(None))
    next(products)
    return 2 * size**3 / seconds_per_step(products, 10, 1.0, device)


def peak_memory(device: torch.device) -> int:
    """Bytes: of CUDA's allocator on a GPU, else of the whole process, Python and the libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def set_up(args: argparse.Namespace, device: torch.device) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*DataLoader will create.*")
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


LOOP: dict = {}  # of a process that runs one loop: the loop itself and what it computes on


def start(kind: str, args: argparse.Namespace, setting: Setting) -> None:
    """Make this process the one of a loop, "ours" or "reference", which ``advance`` then goes on with."""
    device = devices.choose(args.gpu)
    set_up(args, device)
    config = configuration(setting.model, setting.dataset)
    if kind == "ours":
        images = load_images(setting.dataset, args.images, args.data_path)
        steps = our_steps(config, setting, images, device)
    else:
        raw = reference.Images(setting.dataset, args.data_path)
        steps = reference.steps(config, raw, setting.batch_size, args.workers, device)
    LOOP.update(steps=steps, device=device)


def advance(steps: int, limit: float) -> float:
    return seconds_per_step(LOOP["steps"], steps, limit, LOOP["device"])


def memory() -> int:
    return peak_memory(LOOP["device"])


def rate(precision: str) -> float:
    return product_rate(precision, LOOP["device"])


def profile(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of this process's loop by kind of operator."""
    steps, device = LOOP["steps"], LOOP["device"]
    seconds_per_step(steps, args.steps, ROUND_SECONDS, device)
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(args.steps):
            next(steps)
        wait(device)
    milliseconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages():
        kind = next(kind for kind, names in KINDS.items() if event.key.startswith(names))
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        milliseconds[kind] += own / 1e3 / args.steps
    return milliseconds


def machine(device: torch.device, threads: int | None = None) -> dict:
    """What the numbers depend on besides the code; a row names its precision."""
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    about = provenance(device, seed=0, threads=threads)
    del about["precision"]
    return about | {"cpu": f"{processor()}, {os.cpu_count()} cores", "gpu": gpu}
