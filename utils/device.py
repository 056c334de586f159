"""Which processor to compute on, and in which precision."""

import contextlib
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
            raise UserError(
                f"--gpu: torchrun started process {number} on a machine with {torch.cuda.device_count()} CUDA devices: "
                "lower --nproc_per_node"
            )
        torch.cuda.set_device(number)
        return torch.device("cuda", number) if distributed.launched() else torch.device("cuda")
    if gpu and distributed.local_rank() == 0:
        print("warning: --gpu: no CUDA device found, using the CPU", file=sys.stderr)
    return torch.device("cpu")


def set_precision(precision: str) -> None:
    """Whether CUDA may use TF32: only where "tf32" is asked for. PyTorch's own default has it in convolutions.

    What this repository measures are small singular values beside large ones, down to a thousandth; a mantissa of 10
    bits is as coarse as that. "fp32" therefore means the same arithmetic on a CPU and a GPU.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context of a forward pass: "bf16" multiplies in bfloat16, the others leave everything as it is."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
