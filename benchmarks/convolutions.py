#!/usr/bin/env python
"""The forms of a convolution that were tried on a CPU, each layer of MNIST's network by itself: milliseconds.

python benchmarks/convolutions.py --threads 1

Why models/convolutions.py looks as it does: forward and backward pass of each form on the same channels-last tensors,
the gradient by the input included, in turn --rounds times; medians.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.convolutions import convolve_patches
from utils import cli, devices

BATCH_SIZE = 32
REPEATS = 5  # passes of one form in a round
CONVOLUTIONS = ((32, 64, 16), (64, 128, 8), (128, 256, 4))  # channels in and out, height and width of the input
TRANSPOSED = ((128, 64, 8), (64, 32, 16))
SETTINGS = {"stride": 2, "padding": 1}  # kernel 4

Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, bias, **SETTINGS)


def bias_apart(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, None, **SETTINGS).add_(bias[:, None, None])


def phases(weight: Tensor) -> Tensor:
    """Weights ``(C, C', 4, 4)`` as ``(C, C', 2, 2, 2, 2)``: tap (rows, columns), then phase of the output pixel.

    Output pixel 2j - 1 + s, s = 0 or 1, sees input pixels j - 1 and j (t = 0 and 1) through row 2 + s - 2t.
    """
    return weight.flip(2, 3).unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(3, 5).permute(0, 1, 2, 4, 3, 5)


def sub_pixel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 2x2 convolution to the four phases of the output, which are then interleaved (Shi et al. 2016)."""
    kernel = phases(weight).permute(1, 4, 5, 0, 2, 3).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias.repeat_interleave(4), padding=1), 2)[:, :, 1:-1, 1:-1]


def sub_pixel_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as one matrix product: 2x2 patches by the weights of the four phases."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    patches = torch.cat([padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], dim=3)
    kernel = phases(weight).permute(2, 3, 0, 4, 5, 1).flatten(3).flatten(0, 2)
    y = (patches @ kernel).unflatten(3, (2, 2, -1)).permute(0, 1, 3, 2, 4, 5)
    return (y.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1] + bias).permute(0, 3, 1, 2)


def columns(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One matrix product to the 16 contributions of every input pixel, which are then added up."""
    contributions = torch.matmul(weight.flatten(1).t(), x.flatten(2))
    return F.fold(contributions, (2 * x.shape[2], 2 * x.shape[3]), 4, **SETTINGS) + bias[:, None, None]


def library_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, **SETTINGS)


def patches_by_index(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return convolve_patches(x, weight, bias, (2, 2), (1, 1))


TRANSPOSED_FORMS: dict[str, Form] = {
    "nn.ConvTranspose2d": library,
    "bias apart (ours)": bias_apart,
    "sub-pixel convolution": sub_pixel,
    "sub-pixel, matrix product": sub_pixel_product,
    "columns, added up": columns,
}
FORMS: dict[str, Form] = {"nn.Conv2d": library_convolution, "patches by index (ours)": patches_by_index}


def tensors(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> list[Tensor]:
    """Random tensors, those of four dimensions channels-last, whose gradients are wanted."""
    made = [torch.randn(shape).to(dtype) for shape in shapes]
    made = [each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each for each in made]
    return [each.requires_grad_() for each in made]


def milliseconds(form: Form, inputs: list[Tensor], gradient: Tensor) -> float:
    """A forward and a backward pass, mean of a few."""
    started = time.perf_counter()
    for _ in range(REPEATS):
        torch.autograd.grad(form(*inputs), inputs, gradient)
    return 1e3 * (time.perf_counter() - started) / REPEATS


def compare(forms: dict[str, Form], inputs: list[Tensor], rounds: int) -> dict[str, float]:
    gradient = torch.randn_like(next(iter(forms.values()))(*inputs))
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, form in forms.items():
            taken = milliseconds(form, inputs, gradient)
            if number:  # the first round warms up
                seconds[name].append(taken)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    parser = cli.Parser(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=cli.positive, metavar="N", help="default: PyTorch's")
    parser.add_argument("--rounds", type=cli.positive, default=5, help="medians of so many")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    devices.keep_freed_memory()
    torch.manual_seed(0)
    print(f"batch {BATCH_SIZE}, {torch.get_num_threads()} threads, forward and backward, ms")
    print("| layer | form | fp32 | bf16 |\n|---|---|---|---|")
    for transposed, layers in ((False, CONVOLUTIONS), (True, TRANSPOSED)):
        for inputs, outputs, size in layers:
            weight = (inputs, outputs, 4, 4) if transposed else (outputs, inputs, 4, 4)
            shapes = ((BATCH_SIZE, inputs, size, size), weight, (outputs,))
            forms = TRANSPOSED_FORMS if transposed else FORMS
            taken = [compare(forms, tensors(shapes, dtype), args.rounds) for dtype in (torch.float32, torch.bfloat16)]
            for name in forms:
                kind = "transposed" if transposed else "convolution"
                numbers = " | ".join(f"{each[name]:.2f}" for each in taken)
                print(f"| {kind} {inputs}→{outputs}, {size}x{size} | {name} | {numbers} |", flush=True)
    print("the smallest number of a layer is the form to use")


if __name__ == "__main__":
    cli.run(main)
