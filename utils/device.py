"""Which processor to compute on, and in which precision."""

import contextlib
import sys

import torch


def choose(gpu: bool) -> torch.device:
    """The GPU when asked for and there, otherwise the CPU; asking in vain is a warning, not an error."""
    if gpu and torch.cuda.is_available():
        return torch.device("cuda")
    if gpu:
        print("warning: --gpu: no CUDA device found, using the CPU", file=sys.stderr)
    return torch.device("cpu")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context of a forward pass: "fp32" leaves everything as it is, "bf16" multiplies in bfloat16."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
