"""How a decoder maps small steps in latent space to steps in data space: the metric it pulls back, and isometry.

Source: RaDOGAGA (Kato et al. 2020, arXiv 1910.04329), sections 4 and 5.1. A decoder g is isometric, up to a factor c,
where the inner product of any two steps v, w satisfies  <J v, J w>_A = c <v, w>,  with its Jacobian J at z and the
metric A of the distortion in data space: D(x, x + d) = <d, d>_A to second order.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

WINDOW = 11  # pixels, and σ of its Gaussian: SSIM's (Wang et al. 2004)
WINDOW_SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for values in [0, 1]


def random_pairs(num: int, dimensions: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Pairs of unit vectors ``(num, n)``: in a uniformly random plane, the cosine between them uniform on (−1, 1).

    Independent directions would be almost orthogonal in many dimensions; this way every inner product occurs.
    """
    if dimensions == 1:  # no plane, only two directions
        signs = torch.randint(0, 2, (2, num, 1), generator=generator).float() * 2 - 1
        return signs[0], signs[1]
    frame = torch.randn(num, dimensions, 2, generator=generator, dtype=torch.float64)
    first, second = torch.linalg.qr(frame).Q.unbind(dim=2)
    cosine = 2 * torch.rand(num, 1, generator=generator, dtype=torch.float64) - 1
    return first.float(), (cosine * first + torch.sqrt(1 - cosine.square()) * second).float()


def mse_inner(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """``(B,)`` float64: the mean over pixels of v·w, the metric of the mean squared error (the same at every x)."""
    return (v.double() * w.double()).flatten(1).mean(dim=1)


def ssim_inner(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """``(B,)`` float64: v·w in the metric of 1 − SSIM at the images x ``(B, C, H, W)``, all of one shape.

    With means μ and covariances σ over a Gaussian window, 1 − SSIM(x, x + d) is to second order the average of
    μ_d² / (2 μ_x² + C1) + σ_d² / (2 σ_x² + C2) over windows and channels (RaDOGAGA, appendix).
    """
    offsets = torch.arange(WINDOW, device=x.device, dtype=torch.float64) - WINDOW // 2
    profile = torch.exp(-0.5 * (offsets / WINDOW_SIGMA).square())
    kernel = torch.outer(profile, profile)[None, None] / profile.sum().square()

    def windowed(values: Tensor) -> Tensor:
        return F.conv2d(values.flatten(0, 1)[:, None], kernel).unflatten(0, values.shape[:2])

    x, v, w = x.double(), v.double(), w.double()
    mean_x, mean_v, mean_w = windowed(x), windowed(v), windowed(w)
    variance = windowed(x.square()) - mean_x.square()
    covariance = windowed(v * w) - mean_v * mean_w
    inner = mean_v * mean_w / (2 * mean_x.square() + C1) + covariance / (2 * variance + C2)
    return inner.flatten(1).mean(dim=1)


def metrics_for(shape: torch.Size) -> dict[str, Callable]:
    """The inner products that a sample of that shape allows: SSIM needs an image at least as large as its window."""
    if len(shape) == 3 and min(shape[1:]) >= WINDOW:
        return {"mse": mse_inner, "ssim": ssim_inner}
    return {"mse": mse_inner}


def pushforward(decode: Callable[[Tensor], Tensor], z: Tensor, v: Tensor) -> Tensor:
    """J v, exact, by forward-mode differentiation: steps ``(B, n)`` at codes ``(B, n)`` to steps in data space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, about how it loads its own formulas
        return torch.func.jvp(decode, (z,), (v,))[1].detach()


def finite_difference(decode: Callable[[Tensor], Tensor], z: Tensor, v: Tensor) -> Tensor:
    """g(z + v) − g(z), as published: to first order the same as ``pushforward``."""
    return decode(z + v) - decode(z)


STEPS = {"difference": finite_difference, "jacobian": pushforward}


@torch.no_grad()
def inner_products(
    decode: Callable[[Tensor], Tensor], codes: Tensor, delta: float, generator: torch.Generator, batch_size: int = 100
) -> dict[str, np.ndarray]:
    """Inner products of pairs of steps of length δ at each code, in latent space and in data space.

    Args:
        codes: ``(N, n)`` on the decoder's device.

    Returns:
        ``"latent"`` and, for each metric and each way to take the step, ``"mse-difference"``, ``"mse-jacobian"``,
        ``"ssim-difference"``, ``"ssim-jacobian"``: ``(N,)`` float64.
    """
    v, w = (delta * vectors for vectors in random_pairs(len(codes), codes.shape[1], generator))
    found: dict[str, list[Tensor]] = {"latent": [(v.double() * w.double()).sum(dim=1)]}
    batches = [part.split(batch_size) for part in (codes, v.to(codes), w.to(codes))]
    for z, v, w in tqdm(zip(*batches, strict=True), "inner products", len(batches[0]), leave=False, disable=None):
        x = decode(z)
        for way, step in STEPS.items():
            pushed = step(decode, z, v), step(decode, z, w)
            for metric, inner in metrics_for(x.shape[1:]).items():
                found.setdefault(f"{metric}-{way}", []).append(inner(x, *pushed).cpu())
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}


@torch.no_grad()
def metric_along_dimensions(
    decode: Callable[[Tensor], Tensor], codes: Tensor, delta: float, batch_size: int = 100
) -> dict[str, np.ndarray]:
    """Squared length of a unit step along each latent dimension, measured in data space at each code.

    Returns:
        The keys of ``inner_products`` without "latent": ``(N, n)`` float64. The published difference takes a step of δ.
    """
    n = codes.shape[1]
    points = codes.repeat_interleave(n, dim=0)
    axes = torch.eye(n, device=codes.device, dtype=codes.dtype).repeat(len(codes), 1)
    found: dict[str, list[Tensor]] = {}
    batches = list(zip(points.split(batch_size), axes.split(batch_size), strict=True))
    for z, axis in tqdm(batches, "metric", leave=False, disable=None):
        x = decode(z)
        for way, step in STEPS.items():
            pushed = step(decode, z, delta * axis) / delta
            for metric, inner in metrics_for(x.shape[1:]).items():
                found.setdefault(f"{metric}-{way}", []).append(inner(x, pushed, pushed).cpu())
    return {key: torch.cat(parts).view(-1, n).numpy() for key, parts in found.items()}


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation of two samples ``(N,)``; None where one of them does not vary, or of fewer than three."""
    from scipy.stats import pearsonr  # loading it takes long

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(pearsonr(a, b).statistic)
