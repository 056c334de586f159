#!/usr/bin/env python
"""How fast the training loop is, beside the loop of the released code and the machine's own matrix products.

python benchmarks/throughput.py --models irmae --datasets mnist          fp32 and bf16, batches of 32 and 128
python benchmarks/throughput.py --gpu --batch-sizes 32 512 --json gpu.json
python benchmarks/throughput.py --models irmae --datasets mnist --batch-sizes 32 --profile

For every row each loop has a fresh process of its own; some steps of ours, the same number of the reference, matrix
products, and this --rounds times in turn, so that whatever else the machine does meets both. Images are noise of
the data set's size, and nothing is downloaded, unless --data-path says where real ones are.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from itertools import count, product, repeat
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.flop_counter import FlopCounterMode

import data
import models
from benchmarks import reference
from data.base import Dataset
from utils import cli, devices, files, loop

DATASETS = ("mnist", "shape", "celeba")
ROUND_SECONDS = 5.0  # a round of a slow model ends before --steps
WARM_UP_SECONDS = 1.0  # before each round: the other loop's workers fill their queues, and caches are cold
PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}  # rows and columns of the square matrices of the yardstick
COUNTED = 4  # images that the arithmetic is counted for
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

COLUMNS = (
    "model", "data", "batch", "precision", "ms/step", "images/s", "peak memory", "of matrix products",
    "reference, ms/step", "ratio (range)",
)  # fmt: skip

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


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(models.MODELS), default=["ae", "irmae", "vae", "wae-mmd"])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--batch-sizes", nargs="+", type=cli.positive, default=[32, 128], metavar="B")
    parser.add_argument(
        "--precisions", nargs="+", choices=list(DTYPES), help="default: fp32, and bf16 unless the processor emulates it"
    )
    parser.add_argument("--steps", type=cli.positive, default=20, help="of each loop in a round, or what 5 s hold")
    parser.add_argument("--rounds", type=cli.positive, default=5, help="times that the loops are measured in turn")
    parser.add_argument("--gpu", action="store_true", help="compute on the first CUDA device")
    parser.add_argument(
        "--threads", type=cli.positive, metavar="N", help="of the training process (default: PyTorch's)"
    )
    parser.add_argument(
        "--workers",
        type=cli.positive,
        default=min(os.cpu_count() or 1, 32),
        metavar="N",
        help="processes of the reference's loader; the released code has 32",
    )
    parser.add_argument("--images", type=cli.positive, default=10_000, metavar="N", help="that our loop holds")
    parser.add_argument("--data-path", type=Path, metavar="DIR", help="real images instead of noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--profile", action="store_true", help="show where the time of our step goes")
    return parser.parse_args()


@dataclass(frozen=True)
class Setting:
    """What a row of the table is about."""

    model: str
    dataset: str
    batch_size: int
    precision: str


def configuration(model_name: str, dataset: str) -> dict:
    """The model's configuration, train.py's defaults."""
    described = data.describe(dataset)
    config = {
        "architecture": models.architecture(model_name, None, described),
        "channels": described["channels"],
        "latent_dim": described["latent_dim"],
        **models.options(model_name),
    }
    return config | {"latent_dim": models.find(model_name).default_latent_dim(config) or config["latent_dim"]}


def load_images(name: str, num: int, path: Path | None) -> data.Dataset:
    """``num`` images as train.py holds them; noise unless there is a path. Shapes are rendered as always."""
    if name == "shape" or path is not None:
        return data.load(name, "train", path or "", num)
    described, generator = data.describe(name), torch.Generator().manual_seed(0)
    shape = (num, described["channels"], described["image_size"], described["image_size"])
    return Dataset(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


def our_steps(
    setting: Setting, config: dict, dataset: data.Dataset, computing_on: torch.device
) -> Iterator[loop.Totals]:
    """The steps that train.py takes, for ever."""
    devices.set_precision(setting.precision)
    model = devices.prepare(models.build(setting.model, **config), computing_on)
    dataset = dataset.to(computing_on)
    step = loop.Step(model, loop.make_optimizer(model, 1e-4), dataset, setting.precision)
    totals = loop.Totals()
    for number in count(1):
        yield from loop.epoch(step, setting.batch_size, 0, number, totals=totals)


def flops_per_step(setting: Setting) -> float:
    """Multiplications and additions of a forward and backward pass, as the plain modules need them.

    Counted with a few images: what grows faster than the batch, distances between codes say, is small beside the rest.
    """
    config = configuration(setting.model, setting.dataset)
    size = models.image_size(config["architecture"])
    model = models.build(setting.model, **config).train()
    with FlopCounterMode(display=False) as counter:
        model.losses(torch.rand(COUNTED, config["channels"], size, size))["loss"].backward()
    return counter.get_total_flops() / COUNTED * setting.batch_size


def wait(computing_on: torch.device) -> None:
    """Until the device has done all that it was given."""
    if computing_on.type == "cuda":
        torch.cuda.synchronize()


def seconds_per_step(loop: Iterator, steps: int, limit: float, computing_on: torch.device) -> float:
    """Of so many steps, or as many as the limit (seconds) holds."""
    wait(computing_on)
    started, done = time.perf_counter(), 0
    while done < steps and (done == 0 or time.perf_counter() - started < limit):
        next(loop)
        done += 1
    wait(computing_on)
    return (time.perf_counter() - started) / done


def product_rate(precision: str, computing_on: torch.device) -> float:
    """Floating-point operations a second of a large matrix product: what this machine can do."""
    size = PRODUCT_SIZES[computing_on.type]
    matrix = torch.ones(size, size, dtype=DTYPES[precision], device=computing_on)
    products = (matrix @ matrix for _ in repeat(None))
    next(products)
    return 2 * size**3 / seconds_per_step(products, 10, 1.0, computing_on)


def peak_memory(computing_on: torch.device) -> int:
    """Bytes: of CUDA's allocator on a GPU, else of the whole process, Python and the libraries included."""
    if computing_on.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def set_up(args: argparse.Namespace, computing_on: torch.device) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*DataLoader will create.*")
    torch.manual_seed(0)
    if computing_on.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


LOOP: dict = {}  # of a process that runs one loop: the loop itself and what it computes on


def start(kind: str, args: argparse.Namespace, setting: Setting) -> None:
    """Make this process the one of a loop, "ours" or "reference", which ``advance`` then goes on with."""
    computing_on = devices.choose(args.gpu)
    set_up(args, computing_on)
    config = configuration(setting.model, setting.dataset)
    if kind == "ours":
        images = load_images(setting.dataset, args.images, args.data_path)
        loop = our_steps(setting, config, images, computing_on)
    else:
        raw = reference.Images(setting.dataset, args.data_path)
        loop = reference.steps(setting.model, config, raw, setting.batch_size, args.workers, computing_on)
    LOOP.update(loop=loop, device=computing_on)


def advance(steps: int, limit: float) -> float:
    return seconds_per_step(LOOP["loop"], steps, limit, LOOP["device"])


def memory() -> int:
    return peak_memory(LOOP["device"])


def rate(precision: str) -> float:
    return product_rate(precision, LOOP["device"])


def in_process(kind: str, args: argparse.Namespace, setting: Setting) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), start, (kind, args, setting))


def measure(args: argparse.Namespace, setting: Setting) -> dict:
    """A row of the table: both loops in turn, each in a fresh process, so that neither sees the other's settings."""
    rounds = []
    with in_process("ours", args, setting) as ours, in_process("reference", args, setting) as theirs:
        for _ in range(args.rounds):
            seconds = {}
            for name, process in (("ours", ours), ("reference", theirs)):
                process.submit(advance, 2 * args.workers, WARM_UP_SECONDS).result()
                seconds[name] = process.submit(advance, args.steps, ROUND_SECONDS).result()
            rounds.append(seconds | {"rate": ours.submit(rate, setting.precision).result()})
        peak = ours.submit(memory).result()
    flops = flops_per_step(setting)
    ratios = [each["reference"] / each["ours"] for each in rounds]
    seconds = statistics.median(each["ours"] for each in rounds)
    return {
        **asdict(setting),
        "ms_per_step": 1e3 * seconds,
        "images_per_second": setting.batch_size / seconds,
        "peak_memory_bytes": peak,
        "flops_per_step": flops,
        "product_flops_per_second": statistics.median(each["rate"] for each in rounds),
        "product_fraction": statistics.median(flops / each["ours"] / each["rate"] for each in rounds),
        "reference_ms_per_step": 1e3 * statistics.median(each["reference"] for each in rounds),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rounds,
    }


def profile(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of this process's loop by kind of operator."""
    loop, computing_on = LOOP["loop"], LOOP["device"]
    seconds_per_step(loop, args.steps, ROUND_SECONDS, computing_on)
    on_gpu = computing_on.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        for _ in range(args.steps):
            next(loop)
        wait(computing_on)
    milliseconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages():
        kind = next(kind for kind, names in KINDS.items() if event.key.startswith(names))
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        milliseconds[kind] += own / 1e3 / args.steps
    return milliseconds


def measure_profile(args: argparse.Namespace, setting: Setting) -> dict:
    """Where the time of our step goes."""
    with in_process("ours", args, setting) as ours:
        milliseconds = ours.submit(profile, args).result()
    return {**asdict(setting), "ms_per_step": sum(milliseconds.values()), "ms_by_kind": milliseconds}


def machine(computing_on: torch.device, threads: int | None = None) -> dict:
    """What the numbers depend on besides the code."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {
        "cpu": f"{name}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if computing_on.type == "cuda" else None,
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def show_row(row: dict) -> str:
    cells = (
        row["model"],
        row["dataset"],
        row["batch_size"],
        row["precision"],
        f"{row['ms_per_step']:.3g}" if row["ms_per_step"] < 10 else f"{row['ms_per_step']:.1f}",
        f"{row['images_per_second']:,.0f}",
        f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
        f"{100 * row['product_fraction']:.0f} %",
        f"{row['reference_ms_per_step']:.1f}",
        f"{row['ratio']:.2f} ({row['ratio_min']:.2f}–{row['ratio_max']:.2f})",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def show_profile(row: dict) -> str:
    lines = [f"\n{row['model']}, {row['dataset']}, batch {row['batch_size']}, {row['precision']}: ms of a step"]
    for kind, value in sorted(row["ms_by_kind"].items(), key=lambda item: -item[1]):
        lines.append(f"| {kind} | {value:.2f} | {100 * value / row['ms_per_step']:.0f} % |")
    return "\n".join(lines)


def main() -> None:
    args = parse_arguments()
    computing_on = devices.choose(args.gpu)
    args.precisions = args.precisions or [name for name in ("fp32", "bf16") if not devices.emulated(name, computing_on)]
    about = machine(computing_on, args.threads) | {"loader_workers": args.workers}
    about["images"] = str(args.data_path.resolve()) if args.data_path else "noise"
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    if not args.profile:
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows = []
    measure_row = measure_profile if args.profile else measure
    for values in product(args.models, args.datasets, args.batch_sizes, args.precisions):
        rows.append(measure_row(args, Setting(*values)))
        print(show_profile(rows[-1]) if args.profile else show_row(rows[-1]), flush=True)
    if args.json:
        files.write_json(args.json, {"machine": about, "rows": rows})
    saved = f"; saved {args.json}" if args.json else ""
    if args.profile:
        print(f"\nprofiled {len(rows)} settings{saved}")
        return
    ratios = {precision: [row["ratio"] for row in rows if row["precision"] == precision] for precision in DTYPES}
    summary = ", ".join(f"{min(each):.2f} to {max(each):.2f} in {key}" for key, each in ratios.items() if each)
    print(f"{len(rows)} row{'s' * (len(rows) > 1)}: {summary} times as fast as the reference loop{saved}")


if __name__ == "__main__":
    cli.run(main)
