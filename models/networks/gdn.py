"""Convolutions with generalised divisive normalisation: the network of RaDOGAGA's CelebA experiment.

Source: Kato et al. 2020 (arXiv 1910.04329), section 5.1 and the released code.
"""

import math
from itertools import pairwise

from torch import nn

from models.layers.gdn import GDN
from models.networks.base import Decoder, named

HALVINGS = 4  # convolutions of stride 2
WIDTH, HIDDEN_WIDTH = 64, 8192


def networks(
    image_size: int, channels: int, code_width: int, latent_dim: int, output: nn.Module
) -> tuple[nn.Module, Decoder]:
    """Of images ``(B, channels, S, S)``, S a multiple of 16.

    The encoder has a 9x9 and three 5x5 convolutions of stride 2, GDN after the first three, and one hidden layer of
    softplus units; the decoder is its reverse with inverse GDN and half the channels in the last block.
    """
    smallest = (WIDTH, image_size // 2**HALVINGS, image_size // 2**HALVINGS)
    layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 9, stride=2, padding=4), GDN(WIDTH)]
    for _ in range(HALVINGS - 2):
        layers += [nn.Conv2d(WIDTH, WIDTH, 5, stride=2, padding=2), GDN(WIDTH)]
    encoder = named(
        dcnn=nn.Sequential(*layers, nn.Conv2d(WIDTH, WIDTH, 5, stride=2, padding=2, bias=False)),
        flatten=nn.Flatten(),
        hidden=nn.Linear(math.prod(smallest), HIDDEN_WIDTH),
        softplus=nn.Softplus(),
        fc=nn.Linear(HIDDEN_WIDTH, code_width),
    )
    hidden, fc = nn.Linear(latent_dim, HIDDEN_WIDTH), nn.Linear(HIDDEN_WIDTH, math.prod(smallest))
    widths = (*[WIDTH] * (HALVINGS - 1), WIDTH // 2)
    layers = []
    for inputs, outputs in pairwise(widths):
        # The output padding makes an odd kernel double the size exactly.
        layers.append(nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1))
        layers.append(GDN(outputs, inverse=True))
    dcnn = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 9, stride=2, padding=4, output_padding=1))
    between = {"softplus_1": nn.Softplus(), "fc": fc, "softplus_2": nn.Softplus()}
    return encoder, Decoder(output, hidden=hidden, **between, image=nn.Unflatten(1, smallest), dcnn=dcnn)
