"""Which processor to compute on, and in which precision."""

import contextlib
import ctypes
import platform
import sys

import torch

from utils import distributed
from utils.errors import UserError

PRECISIONS = {
    "fp32": "full float32 everywhere",
    "tf32": "on CUDA, products of matrices and convolutions round their factors to 10 bits",
    "bf16": "products in bfloat16, losses and codes in float32",
}


def choose(gpu: bool) -> torch.device:
    """The GPU when asked for and there, otherwise the CPU; asking in vain is a warning, not an error.

    Of several processes each has a GPU of its own. Raises UserError where there are fewer.
    """
    if gpu and torch.cuda.is_available():
        number = distributed.local_rank()
        if number >= torch.cuda.device_count():
            found = f"{torch.cuda.device_count()} CUDA devices"
            raise UserError(
                f"--gpu: torchrun started process {number} on a machine with {found}: lower --nproc_per_node"
            )
        torch.cuda.set_device(number)
        set_precision("fp32")
        return torch.device("cuda", number) if distributed.launched() else torch.device("cuda")
    if gpu and distributed.local_rank() == 0:
        print("warning: --gpu: no CUDA device found, using the CPU", file=sys.stderr)
    return torch.device("cpu")


def set_precision(precision: str) -> None:
    """Whether CUDA may use TF32: only where "tf32" is asked for. PyTorch's own default has it in convolutions.

    Singular values are measured down to a thousandth of the largest; a mantissa of 10 bits is as coarse as that.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def emulated(precision: str, device: torch.device) -> bool:
    """Whether the processor has no instructions for that precision and emulates them, at a fraction of the speed."""
    if precision != "bf16" or device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context of a forward pass: "bf16" multiplies in bfloat16, the others leave everything as it is."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def prepare(model: torch.nn.Module, device: torch.device, training: bool = True) -> torch.nn.Module:
    """The model on the device, in the memory format that is fast there.

    Called once, before the optimiser is made: its moments take the format of the parameters. Only for ``training`` is
    freed memory kept: codes that stay of a batch would cut up the block that the next images need.
    """
    if training and device.type == "cpu":
        keep_freed_memory()
    return model.to(device).to(memory_format=torch.channels_last)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next ones, instead of returning it to the system.

    Fresh pages, which the kernel must clear, cost a tenth of a training step. Only glibc can.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no allocation is mapped on its own, whatever its size
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Store what the optimiser keeps of each parameter in that parameter's memory format.

    After a state was loaded: on a CPU fused optimisers pair elements by their place in memory, whatever the format.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
