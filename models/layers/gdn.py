"""Generalised divisive normalisation: each channel divided by a learned pool of all channels.

Source: Ballé, Laparra, Simoncelli 2016, "Density Modeling of Images using a Generalized Normalization
Transformation", arXiv 1511.06281, equation 1, with the exponents fixed to 2 and 1/2 as in image compression
(arXiv 1611.01704, equation 3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.lower_bound import lower_bound

BETA_MIN, GAMMA_INIT = 1e-6, 0.1
PEDESTAL = 2**-36  # added under the root: the gradient of a stored value stays finite where its square is 0


class GDN(nn.Module):
    """``y_i = x_i / sqrt(β_i + Σ_j γ_ij x_j²)``; the inverse multiplies by the root instead of dividing.

    β > 0 and γ ≥ 0 are kept so by reparametrisation: what is stored and trained is sqrt(β + pedestal), bounded from
    below where it is used, by a bound whose gradient passes when it should. A step of any size leaves a valid
    transformation. Where β = 1, the inverse with the same parameters undoes GDN up to terms of the order (γ x²)².
    Before training γ is 0.1 times the identity: the channels do not touch each other.
    """

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.sqrt(torch.ones(channels) + PEDESTAL))
        self.gamma_root = nn.Parameter(torch.sqrt(GAMMA_INIT * torch.eye(channels) + PEDESTAL))

    @property
    def beta(self) -> Tensor:
        """β ``(C,)``, at least ``BETA_MIN``."""
        return lower_bound(self.beta_root, (BETA_MIN + PEDESTAL) ** 0.5).square() - PEDESTAL

    @property
    def gamma(self) -> Tensor:
        """γ ``(C, C)``, at least 0."""
        return lower_bound(self.gamma_root, PEDESTAL**0.5).square() - PEDESTAL

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        pool = F.conv2d(x.square(), self.gamma[:, :, None, None], self.beta)
        return x * (torch.sqrt(pool) if self.inverse else torch.rsqrt(pool))
