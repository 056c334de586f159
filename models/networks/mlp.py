"""Fully connected encoders and decoders, of vectors and of images."""

import math
from itertools import pairwise

from torch import nn

from models.networks.base import Decoder, named

HIDDEN_WIDTH = 400  # of the networks for images, as in InfoCatVAE (arXiv 1806.08240)


def fully_connected(widths: tuple[int, ...], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of these widths, with the activation between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def networks(
    kind: str, widths: str, shape: tuple[int, ...], code_width: int, latent_dim: int, output: nn.Module
) -> tuple[nn.Module, Decoder]:
    """Of vectors or images ``(B, *shape)``: linear layers, the activation between them; the decoder's in reverse order.

    Args:
        kind: "mlp", tanh, or "relu".
        widths: of the hidden layers, "64-32".
    """
    size, activation = math.prod(shape), {"mlp": nn.Tanh, "relu": nn.ReLU}[kind]
    hidden = tuple(int(width) for width in widths.split("-"))
    encoder = named(flatten=nn.Flatten(), layers=fully_connected((size, *hidden, code_width), activation))
    decoder = fully_connected((latent_dim, *reversed(hidden), size), activation)
    return encoder, Decoder(output, layers=decoder, image=nn.Unflatten(1, shape))


def image_networks(
    pixels: tuple[int, int, int], code_width: int, latent_dim: int, output: nn.Module, dropout: float
) -> tuple[nn.Module, Decoder]:
    """Of images ``(B, C, S, S)`` of the shape ``pixels`` = (C, S, S), each through one hidden layer."""

    def hidden(inputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, HIDDEN_WIDTH), nn.Dropout(dropout), nn.ReLU())

    size = math.prod(pixels)
    encoder = named(flatten=nn.Flatten(), hidden=hidden(size), fc=nn.Linear(HIDDEN_WIDTH, code_width))
    fc = {"hidden": hidden(latent_dim), "fc": nn.Linear(HIDDEN_WIDTH, size)}
    return encoder, Decoder(output, **fc, image=nn.Unflatten(1, pixels))
