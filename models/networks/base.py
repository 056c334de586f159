"""What all encoders and decoders share."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def full_precision(tensor: Tensor) -> Tensor:
    """Half-precision output of autocast as float32; float32 and float64 pass unchanged.

    Losses and codes are always computed in at least float32: an error of 1/256 in a pixel or a code would
    swamp the small singular values that this repository is about.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def named(**layers: nn.Module) -> nn.Sequential:
    """The layers one after the other; parameters are named after them."""
    return nn.Sequential(OrderedDict(layers))


class Decoder(nn.Module):
    """Codes ``(B, n)`` to images ``(B, C, S, S)`` or vectors ``(B, F)``: the named layers, then ``output``."""

    def __init__(self, output: nn.Module, **layers: nn.Module):
        super().__init__()
        self.output, self.names = output, list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def logits(self, z: Tensor) -> Tensor:
        """The image before the output function, at least float32: a cross-entropy is computed from it."""
        for name in self.names:
            z = getattr(self, name)(z)
        return full_precision(z)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.logits(z))
