#!/usr/bin/env python
"""Does speed change the result? The same training along every path of train.py, and the rank that it ends with.

python benchmarks/paths.py --dataset mnist -l 8 --epochs 1
python benchmarks/paths.py --gpu --dataset mnist -l 8 --epochs 5 --json paths.json

Each path is a run of train.py, with all flags that are not this script's own, and one of singular.py on its checkpoint.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import machine
from experiments import run, train_flags
from utils import checkpoint, cli, devices, files
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
EAGER = "eager, fp32"  # what the others are compared with: plain modules, operation by operation
CPU = "cpu"  # beside a GPU: the same training in fp32 without --gpu
PATHS = {
    EAGER: ("--eager", "--precision", "fp32"),
    "fp32": ("--precision", "fp32"),
    "tf32": ("--precision", "tf32"),
    "bf16": ("--precision", "bf16"),
    CPU: ("--precision", "fp32"),
}
LOSS_TOLERANCE, RANK_TOLERANCE = 0.01, 1
OWN = ("--eager", "--precision", "--model-name", "--checkpoint", "--resume")  # flags of train.py that are set here
COLUMNS = ("path", "training loss", "validation loss", "against eager", "rank", "effective rank", "s per epoch")


def parse_arguments() -> argparse.Namespace:
    """This script's arguments; ``flags`` are train.py's, and ``asked`` is what it makes of them."""
    parser = cli.Parser(f"{__doc__.splitlines()[0]} All other flags are those of train.py.")
    parser.add_argument(
        "--paths",
        nargs="+",
        choices=list(PATHS)[1:],
        metavar="PATH",
        help="fp32, tf32, bf16, cpu: beside the eager one (default: what may be faster here; cpu beside a GPU)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    args, args.flags = parser.parse_known_args()
    for flag in args.flags:
        if flag.split("=")[0] in OWN:
            raise UserError(f"{flag}: this script sets it for each path: leave it out")
    args.asked = train_flags.parse(args.flags)
    args.device = devices.choose(args.asked.gpu)
    useful = [name for name in PATHS if not devices.emulated(name, args.device)]
    args.paths = args.paths or [name for name in useful if name not in ("tf32", CPU) or args.device.type == "cuda"]
    args.paths = [EAGER, *(name for name in args.paths if name != EAGER)]
    return args


def call(script: str, *words: str) -> None:
    """Run a script of the repository to its end. Raises UserError with its last line where it fails."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode != 0:
        lines = done.stderr.decode().strip().splitlines() or ["it said nothing"]
        raise UserError(f"{script} {' '.join(words)}: {lines[-1]}")


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict:
    """A row of the table: losses of the last epoch, its seconds, and the spectrum of the test codes."""
    asked = args.asked
    flags = [flag for flag in args.flags if name != CPU or flag != "--gpu"]
    where = ("--checkpoint", str(folder / "checkpoint"), "--model-name", name.replace(", ", "-"))
    call("train.py", *flags, *PATHS[name], *where)
    evaluated = ["--dataset", asked.dataset, "--save-path", str(folder), *(["--gpu"] if asked.gpu else [])]
    call("singular.py", *evaluated, *where)
    saved = run.read(checkpoint.path_of(folder / "checkpoint", asked.dataset, where[-1]))
    (spectrum,) = json.loads((folder / asked.dataset / "singular" / f"{where[-1]}.json").read_text())
    last = saved.metrics[-1]
    return {
        "path": name,
        "train_loss": last["train_loss"],
        "valid_loss": last["valid_loss"],
        "seconds_per_epoch": last["seconds"],
        "rank": spectrum["rank"],
        "effective_rank": spectrum["effective_rank"],
        "epochs": last["epoch"],
    }


def compare(row: dict, eager: dict) -> None:
    """Into the row: how far its validation loss is from the eager one, and whether loss and rank agree."""
    row["difference"] = row["valid_loss"] / eager["valid_loss"] - 1
    close = abs(row["difference"]) <= LOSS_TOLERANCE
    row["agrees"] = close and abs(row["rank"] - eager["rank"]) <= RANK_TOLERANCE


def show_row(row: dict) -> str:
    numbers = (
        f"{row['train_loss']:.5f}",
        f"{row['valid_loss']:.5f}",
        f"{100 * row['difference']:+.1f} %",
        str(row["rank"]),
        f"{row['effective_rank']:.2f}",
        f"{row['seconds_per_epoch']:.1f}",
    )
    return "| " + " | ".join((row["path"], *numbers)) + " |"


def main() -> None:
    args = parse_arguments()
    about = machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    print(f"python train.py {' '.join(args.flags)}, seed and order of images the same")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.paths:
            row = measure(name, args, Path(folder))
            rows.append(row)
            compare(row, rows[0])
            print(show_row(row), flush=True)
    if args.json:
        files.write_json(args.json, {"machine": about, "train": args.flags, "rows": rows})
    different = [row["path"] for row in rows if not row["agrees"]]
    verdict = f"NOT so: {', '.join(different)}" if different else "so on every path"
    print(f"loss within {LOSS_TOLERANCE:.0%} of eager fp32 and rank within {RANK_TOLERANCE}: {verdict}")


if __name__ == "__main__":
    cli.run(main)
