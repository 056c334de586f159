"""Convolutions with generalised divisive normalisation: the network of RaDOGAGA's CelebA experiment.

Source: Kato et al. 2020 (arXiv 1910.04329), section 5.1 and the released code.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.gdn import GDN
from models.networks.base import Decoder, full_precision

HALVINGS = 4  # convolutions of stride 2
WIDTH, HIDDEN_WIDTH = 64, 8192


class GDNEncoder(nn.Module):
    """Images ``(B, channels, S, S)`` to ``(B, code_width)``; S is a multiple of 16.

    9x9 and three 5x5 convolutions of stride 2, GDN after the first three; one hidden layer of softplus units.
    """

    def __init__(self, image_size: int, channels: int, code_width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 9, stride=2, padding=4), GDN(WIDTH)]
        for _ in range(HALVINGS - 2):
            layers += [nn.Conv2d(WIDTH, WIDTH, 5, stride=2, padding=2), GDN(WIDTH)]
        self.dcnn = nn.Sequential(*layers, nn.Conv2d(WIDTH, WIDTH, 5, stride=2, padding=2, bias=False))
        self.hidden = nn.Linear(WIDTH * (image_size // 2**HALVINGS) ** 2, HIDDEN_WIDTH)
        self.fc = nn.Linear(HIDDEN_WIDTH, code_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.softplus(self.hidden(self.dcnn(x).flatten(1))))


class GDNDecoder(Decoder):
    """Codes ``(B, n)`` to images ``(B, channels, S, S)``: ``GDNEncoder`` in reverse, with inverse GDN.

    The last block before the image has half the channels.
    """

    def __init__(self, image_size: int, channels: int, latent_dim: int, output: nn.Module):
        super().__init__(output)
        self.first_shape = (WIDTH, image_size // 2**HALVINGS, image_size // 2**HALVINGS)
        self.hidden = nn.Linear(latent_dim, HIDDEN_WIDTH)
        self.fc = nn.Linear(HIDDEN_WIDTH, math.prod(self.first_shape))
        widths = (*[WIDTH] * (HALVINGS - 1), WIDTH // 2)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            # The output padding makes an odd kernel double the size exactly.
            layers.append(nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1))
            layers.append(GDN(outputs, inverse=True))
        layers.append(nn.ConvTranspose2d(widths[-1], channels, 9, stride=2, padding=4, output_padding=1))
        self.dcnn = nn.Sequential(*layers)

    def logits(self, z: Tensor) -> Tensor:
        features = F.softplus(self.fc(F.softplus(self.hidden(z))))
        return full_precision(self.dcnn(features.unflatten(1, self.first_shape)))
