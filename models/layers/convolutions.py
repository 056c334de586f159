"""Convolutions in the forms that a CPU computes fastest; parameters and results are those of ``torch.nn``.

A module takes its own form on a CPU and when its weights are stored channels-last, which ``utils.devices.prepare`` does
to a whole model; otherwise it is exactly the module of ``torch.nn``. On CUDA cuDNN chooses among such forms by itself.
Measured in docs/benchmarks.md, with the forms that lost: a sub-pixel convolution, and columns for the transposed ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below so many output pixels, and with at least so many input channels, one matrix product over unfolded patches beats
# the library's convolution: its gradient by the weights is parallel over pixels, of which there are too few.
UNFOLDED_PIXELS = 16
UNFOLDED_CHANNELS = 128


def channels_last(tensor: Tensor) -> bool:
    """Whether ``(B, C, H, W)`` is stored with the channels innermost, and the sizes tell it from the default order."""
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, as one matrix product where the feature map it makes is small and deep. No groups, no dilation."""

    def forward(self, x: Tensor) -> Tensor:
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        pixels = math.prod((size + 2 * padding - kernel) // stride + 1 for size, kernel, stride, padding in sizes)
        small = pixels <= UNFOLDED_PIXELS and self.in_channels >= UNFOLDED_CHANNELS
        if small and x.device.type == "cpu" and channels_last(self.weight):
            return convolve_patches(x, self.weight, self.bias, self.stride, self.padding)
        return super().forward(x)


def convolve_patches(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """``F.conv2d`` as a matrix product of the weights with every patch of the image."""
    (rows, columns), (down, right), (above, left) = weight.shape[2:], stride, padding
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, above, above))
    along = torch.arange(0, padded.shape[1] - rows + 1, down)[:, None] + torch.arange(rows)
    across = torch.arange(0, padded.shape[2] - columns + 1, right)[:, None] + torch.arange(columns)
    pixels = along[:, None, :, None] * padded.shape[2] + across[None, :, None, :]  # of every patch
    patches = padded.flatten(1, 2).index_select(1, pixels.flatten()).view(len(x), len(along), len(across), -1)
    # With the channels innermost the weights are a matrix already, no copy.
    return F.linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with the bias added apart, and as a matrix product where the kernel is 1x1."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or output_size is not None:
            return super().forward(x, output_size)
        if self.kernel_size == (1, 1) and channels_last(x):
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1).t(), self.bias).permute(0, 3, 1, 2)
        if self.bias is None or not channels_last(self.weight):
            return super().forward(x)
        # The library's gradient by the bias takes as long in bfloat16 as half the gradient by the weights.
        y = F.conv_transpose2d(
            x.contiguous(memory_format=torch.channels_last),
            self.weight,
            None,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
        return y.add_(self.bias.to(y.dtype)[:, None, None])
