"""How a decoder maps small steps in latent space to steps in data space: the metric it pulls back, and isometry.

Source: RaDOGAGA (Kato et al. 2020, arXiv 1910.04329), sections 4 and 5.1. A decoder g is isometric, up to a factor c,
where the inner product of any two steps v, w satisfies  <J v, J w>_A = c <v, w>,  with its Jacobian J at z and the
metric A of the distortion in data space: D(x, x + d) = <d, d>_A to second order.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

WINDOW, WINDOW_SIGMA = 11, 1.5  # pixels: SSIM's Gaussian (Wang et al. 2004)
ROUNDINGS = 100  # a step of so many changes products by half a per cent and r by less than 0.001 (docs/isometry.md)
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for values in [0, 1]

Decoder = Callable[[Tensor], Tensor]  # codes (B, n) to data (B, ...)
Pairs = tuple[Tensor, Tensor]  # vectors v and w, each (N, n)


def released_pairs(num: int, dimensions: int, generator: torch.Generator | None = None) -> Pairs:
    """Pairs of vectors ``(num, n)`` as RaDOGAGA's release draws them (``sample_vw``), the cosine uniform on (−1, 1).

    Both lie in the plane of the first axis and of a vector x in the other dimensions, whose hyperspherical angles α are
    uniform on (0, 2π): x_i = cos α_i sin α_1 ... sin α_(i−1). That product halves its energy from one dimension to the
    next, so the first 8 have 99.6 % of it, however large n is. Lengths are 1 up to a last product of sines that the
    release leaves out: within 2^(1 − n) of it on average.
    """
    uniform = torch.rand(num, dimensions + 1, generator=generator, dtype=torch.float64)
    alpha, rotation = 2 * torch.pi * uniform[:, 2:], 2 * torch.pi * uniform[:, :1]
    between = torch.acos(2 * uniform[:, 1:2] - 1)
    x = alpha.cos()
    x[:, 1:] *= alpha[:, :-1].sin().cumprod(dim=1)
    v, w = (torch.cat([angle.cos(), -angle.sin() * x], dim=1) for angle in (rotation, rotation - between))
    return v.float(), w.float()


def uniform_pairs(num: int, dimensions: int, generator: torch.Generator | None = None) -> Pairs:
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


def shortest_step(codes: Tensor) -> float:
    """The δ that is ``ROUNDINGS`` times the rounding of codes ``(N, n)``; what they decode to is rounded likewise."""
    return ROUNDINGS * torch.finfo(codes.dtype).eps * float(codes.square().sum(dim=1).mean().sqrt())


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
    profile /= profile.sum()

    def windowed(values: Tensor) -> Tensor:
        # Row by row, then column by column: a convolution in float64 copies each pixel once for each one of its window.
        for axis in (-2, -1):
            length = values.shape[axis] - WINDOW + 1
            values = sum(weight * values.narrow(axis, k, length) for k, weight in enumerate(profile))
        return values

    x, v, w = x.double(), v.double(), w.double()
    mean_x, mean_v, mean_w = windowed(x), windowed(v), windowed(w)
    variance = windowed(x.square()) - mean_x.square()
    covariance = windowed(v * w) - mean_v * mean_w
    inner = mean_v * mean_w / (2 * mean_x.square() + C1) + covariance / (2 * variance + C2)
    return inner.flatten(1).mean(dim=1)


def pushforward(decode: Decoder, z: Tensor, v: Tensor) -> Tensor:
    """J v, exact, by forward-mode differentiation: steps ``(B, n)`` at codes ``(B, n)`` to steps in data space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, about how it loads its own formulas
        return torch.func.jvp(decode, (z,), (v,))[1].detach()


def finite_difference(decode: Decoder, z: Tensor, v: Tensor) -> Tensor:
    """g(z + v) − g(z), as published: to first order the same as ``pushforward``."""
    return decode(z + v) - decode(z)


@torch.no_grad()
def data_products(decode: Decoder, codes: Tensor, steps: list[Tensor], length: float, batch_size: int) -> dict:
    """Inner products in data space, divided by ``length``², of the first and the last step ``(N, n)`` at each code.

    ``(N,)`` float64 for each metric and way to take the step: "mse-difference", "mse-jacobian", "ssim-difference",
    "ssim-jacobian"; no SSIM where an image is smaller than its window.
    """
    found: dict[str, list[Tensor]] = {}
    batches = [part.split(batch_size) for part in (codes, *(step.to(codes) for step in steps))]
    for z, *vectors in tqdm(zip(*batches, strict=True), "inner products", len(batches[0]), leave=False, disable=None):
        x = decode(z)
        metrics = {"mse": mse_inner}
        if x.ndim == 4 and min(x.shape[2:]) >= WINDOW:
            metrics["ssim"] = ssim_inner
        for way, step in (("difference", finite_difference), ("jacobian", pushforward)):
            pushed = [step(decode, z, vector) / length for vector in vectors]
            for metric, inner in metrics.items():
                found.setdefault(f"{metric}-{way}", []).append(inner(x, pushed[0], pushed[-1]).cpu())
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}


def inner_products(
    decode: Decoder,
    codes: Tensor,
    pairs: Pairs,
    delta: float,
    batch_size: int = 100,
    scale: Tensor | float = 1.0,
) -> dict[str, np.ndarray]:
    """Inner products of steps δ v and δ w at codes ``(N, n)``: "latent" and those of ``data_products``.

    With ``scale`` ``(n,)`` in a latent space whose dimension i is divided by scale_i: the same steps are longer in z.
    """
    v, w = (delta * vectors for vectors in pairs)
    latent = {"latent": (v.double() * w.double()).sum(dim=1).numpy()}
    return latent | data_products(decode, codes, [v * scale, w * scale], 1.0, batch_size)


def metric_along_dimensions(
    decode: Decoder, codes: Tensor, delta: float, batch_size: int = 100
) -> dict[str, np.ndarray]:
    """``data_products``, each ``(N, n)``, of a unit step along each dimension with itself; the one taken is of δ."""
    n = codes.shape[1]
    axes = delta * torch.eye(n, dtype=codes.dtype).repeat(len(codes), 1)
    found = data_products(decode, codes.repeat_interleave(n, dim=0), [axes], delta, batch_size)
    return {key: values.reshape(-1, n) for key, values in found.items()}


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation of two samples ``(N,)``; None where one of them does not vary, or of fewer than three."""
    from scipy.stats import pearsonr  # loading it takes long

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(pearsonr(a, b).statistic)
