"""The distortions D of RaDOGAGA and of its baseline, and the flags of both."""

from collections.abc import Callable
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from models.layers.ssim import ssim
from models.networks import any_range
from utils.errors import UserError
from utils.flags import Flag, non_negative_float

Lambda1 = Annotated[float, Flag("λ1, weight of the reconstruction D(x, x̂)", non_negative_float)]
Lambda2 = Annotated[float, Flag("λ2, weight of the noise's effect D(x̂, x̆)", non_negative_float, needs=("joint", False))]
DISTORTIONS = ("mse", "ssim")
Distortion = Annotated[str, Flag("D(x, x̂): mean squared error or 1 − SSIM", choices=DISTORTIONS)]
Distortion2 = Annotated[
    str, Flag("D(x̂, x̆), likewise: --loss2 of RaDOGAGA's release", choices=DISTORTIONS, needs=("joint", False))
]


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each sample: ``(B, ...)`` to ``(B,)``."""
    return F.mse_loss(x, y, reduction="none").flatten(1).mean(dim=1)


def one_minus_ssim(x: Tensor, y: Tensor) -> Tensor:
    """1 − SSIM of each image: ``(B, C, H, W)`` to ``(B,)``, for images in [0, 1].

    The SSIM of an image and its negative −x is 1 too (both factors change sign), and a decoder that ends in tanh or in
    nothing finds that: values outside [0, 1] are clamped before, and their mean absolute difference is added.
    """
    inside = x.clamp(0, 1), y.clamp(0, 1)
    outside = ((x - inside[0]) - (y - inside[1])).abs().flatten(1).mean(dim=1)
    return 1 - ssim(*inside) + outside


def choose_distortion(name: str, architecture: str, flag: str = "--distortion") -> Callable[[Tensor, Tensor], Tensor]:
    """The function D that ``flag`` names. Raises UserError for SSIM on vectors and fields, which are no images."""
    if name == "ssim" and any_range(architecture):
        raise UserError(f"{flag} ssim compares images, but this data set holds values of any range: use {flag} mse")
    return {"mse": squared_error, "ssim": one_minus_ssim}[name]
