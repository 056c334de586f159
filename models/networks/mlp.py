"""Fully connected encoders and decoders, of vectors and of images."""

import math
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import Decoder, full_precision

HIDDEN_WIDTH = 400  # of the networks for images, as in InfoCatVAE (arXiv 1806.08240)


def fully_connected(widths: tuple[int, ...], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of these widths, with the activation between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class VectorEncoder(nn.Module):
    """Vectors ``(B, features)`` to ``(B, code_width)``: linear layers with tanh between them."""

    def __init__(self, hidden_widths: tuple[int, ...], features: int, code_width: int):
        super().__init__()
        self.layers = fully_connected((features, *hidden_widths, code_width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class VectorDecoder(Decoder):
    """Codes ``(B, n)`` to vectors ``(B, features)``: the encoder's widths in reverse."""

    def __init__(self, hidden_widths: tuple[int, ...], features: int, latent_dim: int, output: nn.Module):
        super().__init__(output)
        self.layers = fully_connected((latent_dim, *reversed(hidden_widths), features))

    def logits(self, z: Tensor) -> Tensor:
        return full_precision(self.layers(z))


class ImageMLPEncoder(nn.Module):
    """Images ``(B, C, S, S)`` of the shape ``pixels`` = (C, S, S) to ``(B, code_width)`` through one hidden layer."""

    def __init__(self, pixels: tuple[int, int, int], code_width: int, dropout: float):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(math.prod(pixels), HIDDEN_WIDTH), nn.Dropout(dropout), nn.ReLU())
        self.fc = nn.Linear(HIDDEN_WIDTH, code_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x.flatten(1)))


class ImageMLPDecoder(Decoder):
    """Codes ``(B, n)`` to images ``(B, C, S, S)`` through one hidden layer."""

    def __init__(self, pixels: tuple[int, int, int], latent_dim: int, output: nn.Module, dropout: float):
        super().__init__(output)
        self.pixels = pixels
        self.hidden = nn.Sequential(nn.Linear(latent_dim, HIDDEN_WIDTH), nn.Dropout(dropout), nn.ReLU())
        self.fc = nn.Linear(HIDDEN_WIDTH, math.prod(pixels))

    def logits(self, z: Tensor) -> Tensor:
        return full_precision(self.fc(self.hidden(z))).unflatten(1, self.pixels)
