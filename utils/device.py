"""Which processor to compute on, and in which precision."""

import contextlib
import ctypes
import platform
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


def prepare(model: torch.nn.Module, computing_on: torch.device) -> torch.nn.Module:
    """The model on the device, its convolutions in the memory format and form that are fast there.

    Channels-last: matrix units want the channels innermost. The values, and the names and shapes of a state dict, stay
    what they are. Called once, before the optimiser is made: its moments take the format of the parameters.
    """
    if computing_on.type == "cpu":
        keep_freed_memory()
    return model.to(computing_on, memory_format=torch.channels_last)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next ones, instead of returning it to the system.

    A training step frees what the next one asks for again; fresh pages, which the kernel must clear, cost a tenth of a
    step. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no allocation is mapped on its own, whatever its size
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Store what the optimiser keeps of each parameter in that parameter's memory format.

    Needed after a state from elsewhere was loaded: on a CPU fused optimisers pair the elements by their place in
    memory and do not check that the formats agree.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
