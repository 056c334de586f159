"""Maximum mean discrepancy between two samples.

Source: Gretton et al. 2012, "A Kernel Two-Sample Test" (JMLR 13); kernels and estimator as in WAE
(arXiv 1711.01558) and its released code.
"""

from collections.abc import Callable

import torch
from torch import Tensor

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``(N, n)`` and ``(M, n)`` to ``(N, M)``; by a matrix product, so that no ``(N, M, n)`` is ever stored."""
    norms = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return (norms - 2 * a @ b.T).clamp(min=0)  # rounding can take the distance of equal points below zero


def mmd(codes: Tensor, prior: Tensor, kernel: str = "imq", scale: float = 1.0) -> Tensor:
    """Estimate of the squared MMD between the distributions of two samples of the same size.

    The terms within a sample leave out its diagonal and are unbiased; the term across the samples is over all pairs,
    as in the released code. The estimate can be negative, and is zero for a single code.

    Args:
        codes, prior: ``(B, n)``, of the encoder and drawn from N(0, σ_z² I).
        kernel: "imq", the inverse multiquadratics C / (C + d²) summed over seven scales of C = 2 n σ_z²; or "rbf",
            exp(−d² / 2σ²), σ² the sum of the (B² − B)/2-th largest d² of all B² pairs across the samples and of all B²
            within the codes (each pair twice, and B zeros). It is differentiated, as in the released code.
        scale: σ_z.
    """
    num, latent_dim = codes.shape
    if num < 2:
        return codes.sum() * 0
    off_diagonal = 1 - torch.eye(num, device=codes.device, dtype=codes.dtype)
    with torch.autocast(codes.device.type, enabled=False):  # bfloat16 would round the distances to 1/256
        within_codes = squared_distances(codes, codes) * off_diagonal
        within_prior = squared_distances(prior, prior)
        across = squared_distances(codes, prior)

    kernels: list[Callable[[Tensor], Tensor]]
    if kernel == "imq":
        constants = [2 * latent_dim * scale**2 * factor for factor in IMQ_SCALES]
        kernels = [lambda distances, c=c: c / (c + distances) for c in constants]  # type: ignore[misc]
    else:
        half = (num * num - num) // 2
        bandwidth = across.flatten().topk(half).values[-1] + within_codes.flatten().topk(half).values[-1]
        kernels = [lambda distances: torch.exp(-distances / (2 * bandwidth))]

    total = codes.new_zeros(())
    for k in kernels:
        within = (k(within_codes) + k(within_prior)) * off_diagonal
        total = total + within.sum() / (num * (num - 1)) - 2 * k(across).mean()
    return total
