"""The structural similarity of images.

Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural
similarity".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels: width and standard deviation of the Gaussian window
C1, C2 = 0.01**2, 0.03**2  # (K1 L)² and (K2 L)² for images of range L = 1


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of each pair of images in [0, 1], ``(B, C, H, W)`` to ``(B,)``; H and W are at least 11.

    Equation 13, averaged over channels and over the positions where the whole window lies inside the image: no padding.
    """
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(5, 1, 1, -1)
    with torch.autocast(x.device.type, enabled=False):  # the variances are small differences of large numbers
        # The two images, their squares and their product as five channels: (B C, 5, H, W).
        maps = torch.stack([x, y, x * x, y * y, x * y], dim=2).flatten(0, 1)
        maps = F.conv2d(F.conv2d(maps, window, groups=5), window.mT, groups=5)
        mean_x, mean_y, square_x, square_y, product = maps.unbind(dim=1)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    similarity = luminance * (2 * covariance + C2) / (variances + C2)
    return similarity.unflatten(0, x.shape[:2]).flatten(1).mean(dim=1)
