#!/usr/bin/env python
"""How fast the training loop is, beside the loop of the released code and the machine's own matrix products.

python benchmarks/throughput.py --models irmae --datasets mnist          fp32 and bf16, batches of 32 and 128
python benchmarks/throughput.py --gpu --batch-sizes 32 512 --json gpu.json
python benchmarks/throughput.py --models irmae --datasets mnist --batch-sizes 32 --profile

For every row each loop has a fresh process of its own; some seconds of ours, as many of the reference, matrix
products, and this --rounds times in turn, so that whatever else the machine does meets both. Images are noise of
the data set's size, and nothing is downloaded, unless --data-path says where real ones are.
"""

import argparse
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models
from benchmarks import measurement
from benchmarks.measurement import DTYPES, WARM_UP_SECONDS, Setting
from utils import cli, devices, files

DATASETS = ("mnist", "shape", "celeba")

COLUMNS = (
    "model", "data", "batch", "precision", "ms/step", "images/s", "peak memory", "of matrix products",
    "reference, ms/step", "ratio (range)",
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(models.MODELS), default=["ae", "irmae", "vae", "wae-mmd"])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--batch-sizes", nargs="+", type=cli.positive, default=[32, 128], metavar="B")
    parser.add_argument(
        "--precisions", nargs="+", choices=list(DTYPES), help="default: fp32, and bf16 unless the processor emulates it"
    )
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each loop in a round, at least")
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


def in_process(kind: str, args: argparse.Namespace, setting: Setting) -> ProcessPoolExecutor:
    """A fresh process with one loop, ready to take steps."""
    return ProcessPoolExecutor(1, get_context("spawn"), measurement.start, (kind, args, setting))


def measure(args: argparse.Namespace, setting: Setting) -> dict:
    """A row of the table: both loops in turn, each in a fresh process, so that neither sees the other's settings."""
    rounds = []
    with in_process("ours", args, setting) as ours, in_process("reference", args, setting) as theirs:
        for _ in range(args.rounds):
            seconds = {}
            for name, process in (("ours", ours), ("reference", theirs)):
                process.submit(measurement.advance, WARM_UP_SECONDS).result()
                seconds[name] = process.submit(measurement.advance, args.seconds).result()
            rounds.append(seconds | {"rate": ours.submit(measurement.rate, setting.precision).result()})
        peak = ours.submit(measurement.memory).result()
    flops = measurement.flops_per_step(setting)
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


def measure_profile(args: argparse.Namespace, setting: Setting) -> dict:
    """Where the time of our step goes."""
    with in_process("ours", args, setting) as ours:
        milliseconds = ours.submit(measurement.profile).result()
    return {**asdict(setting), "ms_per_step": sum(milliseconds.values()), "ms_by_kind": milliseconds}


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
    device = devices.choose(args.gpu)
    args.precisions = args.precisions or [name for name in ("fp32", "bf16") if not devices.emulated(name, device)]
    about = measurement.machine(device, args.threads) | {"loader_workers": args.workers}
    about["images"] = str(args.data_path.resolve()) if args.data_path else "noise"
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    if not args.profile:
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows = []
    measure_row = measure_profile if args.profile else measure
    for values in product(args.models, args.datasets, args.batch_sizes, args.precisions):
        rows.append(measure_row(args, Setting(*values)))
        print(show_profile(rows[-1]) if args.profile else show_row(rows[-1]), flush=True)
        if args.json:  # after every row: a run that is killed keeps what it has measured
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
