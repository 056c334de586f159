"""One training loop in a process of its own, ours or the reference, and what is measured of it."""

import argparse
import os
import re
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

WARM_UP_SECONDS = 1.0  # before each measurement: the other loop's workers fill their queues, and caches are cold
PROFILED_STEPS = 20
PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}  # rows and columns of the square matrices of the yardstick
COUNTED = 4  # images that the arithmetic is counted for
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

# What the profile adds up, by the name of the operator or, on a GPU, of the kernel: the first that fits counts.
KINDS = {
    "changes of memory format": r"[Nn]chwTo|[Nn]hwcTo",
    "convolutions, backward": r"aten::(convolution|cudnn_convolution)_backward|dgrad|wgrad|bprop",
    "convolutions, forward": r"aten::(mkldnn_convolution|_convolution|cudnn_convolution)|fprop|conv(?!ert)|cudnn",
    "matrix products": r"aten::(mm|addmm|bmm|linear)\b|gemm|cutlass|gemv|splitK",
    "optimiser": r"aten::_fused_adam|Optimizer\.|[Ff]usedAdam|multi_tensor",
    "copies, casts, fills": r"aten::(copy_|fill_|cat|empty|_to_copy)|[Mm]em(cpy|set)|copy|Fill|gather|index",
    "activations": r"aten::(clamp_min|relu|threshold_backward|tanh|sigmoid)|relu|threshold|clamp|tanh|sigmoid",
    "sums, means, additions": r"aten::(sum|mean|add|mul|div|mse_loss)|reduce|add|mul|div|[Mm]se|[Mm]ean",
    "everything else": "",
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
    yield from steps_of(step, setting.batch_size)


def steps_of(step: loop.Step, batch_size: int) -> Iterator[loop.Totals]:
    """Epoch after epoch of a step, without end."""
    totals = loop.Totals()
    for number in count(1):
        yield from loop.epoch(step, batch_size, 0, number, totals=totals)


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


def seconds_per_step(steps_of_a_loop: Iterator, seconds: float, device: torch.device) -> float:
    """Of as many steps as take at least so many seconds."""
    wait(device)
    started, done, block = time.perf_counter(), 0, 1
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(block):
            next(steps_of_a_loop)
        wait(device)  # the host runs ahead of a GPU: without this its clock would say nothing
        done, block = done + block, 2 * block if elapsed < seconds / 4 else block
    return elapsed / done


def product_rate(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product: what this machine can do."""
    size = PRODUCT_SIZES[device.type]
    a, b = torch.randn(2, size, size, device=device).to(DTYPES[precision])  # of zeros or ones it is faster
    products = (a @ b for _ in repeat(None))
    seconds_per_step(products, WARM_UP_SECONDS, device)
    return 2 * size**3 / seconds_per_step(products, 1.0, device)


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


def advance(seconds: float) -> float:
    return seconds_per_step(LOOP["steps"], seconds, LOOP["device"])


def memory() -> int:
    return peak_memory(LOOP["device"])


def rate(precision: str) -> float:
    return product_rate(precision, LOOP["device"])


def profile() -> dict[str, float]:
    """Milliseconds of a step of this process's loop by kind of operator or kernel."""
    steps, device = LOOP["steps"], LOOP["device"]
    seconds_per_step(steps, WARM_UP_SECONDS, device)
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(PROFILED_STEPS):
            next(steps)
        wait(device)
    milliseconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages():
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, event.key))
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        milliseconds[kind] += own / 1e3 / PROFILED_STEPS
    return milliseconds


def machine(device: torch.device, threads: int | None = None) -> dict:
    """What the numbers depend on besides the code; a row names its precision."""
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    about = provenance(device, seed=0, threads=threads)
    del about["precision"]
    return about | {"cpu": f"{processor()}, {os.cpu_count()} cores", "gpu": gpu}
