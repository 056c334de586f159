"""Generalised divisive normalisation, each channel divided by a learned pool of all channels, and the networks of it.

Source: Ballé, Laparra, Simoncelli 2016, "Density Modeling of Images using a Generalized Normalization
Transformation", arXiv 1511.06281, equation 1, with the exponents fixed to 2 and 1/2 as in image compression
(arXiv 1611.01704, equation 3).
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import full_precision
from models.layers.convolutions import Conv2d, ConvTranspose2d
from models.layers.lower_bound import lower_bound

PEDESTAL = 2**-36  # added under the root: the gradient of a stored value stays finite where its square is 0


class GDN(nn.Module):
    """``y_i = x_i / sqrt(β_i + Σ_j γ_ij x_j²)``; the inverse multiplies by the root instead of dividing.

    β > 0 and γ ≥ 0 are kept so by reparametrisation: what is stored and trained is sqrt(β + pedestal), bounded from
    below where it is used, by a bound whose gradient passes when it should. A step of any size leaves a valid
    transformation. Where β = 1, the inverse with the same parameters undoes GDN up to terms of the order (γ x²)².

    Args:
        channels: C.
        inverse: the approximate inverse, for decoders.
        beta_min: smallest β.
        gamma_init: γ_ii before training; the channels do not touch each other then.
    """

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1):
        super().__init__()
        self.inverse = inverse
        self.beta_min = beta_min
        self.beta_root = nn.Parameter(torch.sqrt(torch.ones(channels) + PEDESTAL))
        self.gamma_root = nn.Parameter(torch.sqrt(gamma_init * torch.eye(channels) + PEDESTAL))

    @property
    def beta(self) -> Tensor:
        """β ``(C,)``, at least ``beta_min``."""
        return lower_bound(self.beta_root, (self.beta_min + PEDESTAL) ** 0.5).square() - PEDESTAL

    @property
    def gamma(self) -> Tensor:
        """γ ``(C, C)``, at least 0."""
        return lower_bound(self.gamma_root, PEDESTAL**0.5).square() - PEDESTAL

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        pool = F.conv2d(x.square(), self.gamma[:, :, None, None], self.beta)
        return x * (torch.sqrt(pool) if self.inverse else torch.rsqrt(pool))


HALVINGS = 4  # convolutions of stride 2


class GDNEncoder(nn.Module):
    """Images ``(B, channels, S, S)`` to ``(B, code_width)``: the network of RaDOGAGA's CelebA experiment.

    9x9 and three 5x5 convolutions of stride 2, GDN after the first three; one hidden layer of softplus units.

    Source: Kato et al. 2020 (arXiv 1910.04329), section 5.1 and the released code.
    """

    def __init__(self, image_size: int, channels: int, code_width: int, width: int = 64, hidden_width: int = 8192):
        super().__init__()
        layers: list[nn.Module] = [Conv2d(channels, width, 9, stride=2, padding=4), GDN(width)]
        for _ in range(HALVINGS - 2):
            layers += [Conv2d(width, width, 5, stride=2, padding=2), GDN(width)]
        self.dcnn = nn.Sequential(*layers, Conv2d(width, width, 5, stride=2, padding=2, bias=False))
        self.hidden = nn.Linear(width * (image_size // 2**HALVINGS) ** 2, hidden_width)
        self.fc = nn.Linear(hidden_width, code_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.softplus(self.hidden(self.dcnn(x).flatten(1))))


class GDNDecoder(nn.Module):
    """Codes ``(B, n)`` to images ``(B, channels, S, S)``: ``GDNEncoder`` in reverse, with inverse GDN.

    The last block before the image has half the channels. Unless ``output`` is given nothing bounds the pixels.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        output: nn.Module,
        width: int = 64,
        hidden_width: int = 8192,
    ):
        super().__init__()
        self.seed_shape = (width, image_size // 2**HALVINGS, image_size // 2**HALVINGS)
        self.hidden = nn.Linear(latent_dim, hidden_width)
        self.fc = nn.Linear(hidden_width, math.prod(self.seed_shape))
        widths = (*[width] * (HALVINGS - 1), width // 2)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            # The output padding makes an odd kernel double the size exactly.
            layers.append(ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1))
            layers.append(GDN(outputs, inverse=True))
        layers.append(ConvTranspose2d(widths[-1], channels, 9, stride=2, padding=4, output_padding=1))
        self.dcnn = nn.Sequential(*layers)
        self.output = output

    def logits(self, z: Tensor) -> Tensor:
        """The image before the output function, at least float32."""
        features = F.softplus(self.fc(F.softplus(self.hidden(z))))
        return full_precision(self.dcnn(features.unflatten(1, self.seed_shape)))

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.logits(z))
