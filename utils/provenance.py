"""Where a number comes from: the command, the machine and the versions that made it."""

import platform
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


@cache
def commit() -> str:
    """The commit of this repository, ``-dirty`` appended where its files differ from it; "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError):  # no git
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return "unknown"


@cache
def processor() -> str:
    """The name of the CPU."""
    with suppress(OSError, IndexError):  # not Linux, or a processor without a name
        return re.findall(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0]
    return platform.processor() or platform.machine()


def provenance(device: torch.device, seed: int, precision: str = "fp32", threads: int | None = None) -> dict:
    """What a result of this process depends on beside the data, as plain values for JSON files and checkpoints.

    On a CPU the number of threads decides in which order sums are computed: results differ by rounding.
    """
    cuda = device.type == "cuda"
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "precision": precision,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if cuda else processor(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which checkpoints cannot hold
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
