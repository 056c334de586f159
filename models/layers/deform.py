"""Random affine maps of images: what changes the slant and size of a drawing and not the thing that is drawn."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Each uniform up to so much in either direction.
ROTATION = 20.0  # degrees
SCALING, SHEAR = 0.15, 0.3
TRANSLATION = 1 / 16  # of the image's height and width


def deform(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)``, each under a random affine map of its own; what comes in at the border is black."""

    def draw(most: float) -> Tensor:
        return most * (2 * torch.rand_like(x[:, 0, 0, 0]) - 1)

    angle = draw(math.radians(ROTATION))
    cos, sin, shear = angle.cos(), angle.sin(), draw(SHEAR)
    wide, high = 1 + draw(SCALING), 1 + draw(SCALING)
    rows = (  # rotation · shear · scaling, and the translation in units of half an image
        torch.stack([cos * wide, (cos * shear - sin) * high, draw(2 * TRANSLATION)], dim=1),
        torch.stack([sin * wide, (sin * shear + cos) * high, draw(2 * TRANSLATION)], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
