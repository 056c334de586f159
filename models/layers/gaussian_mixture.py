"""A mixture of Gaussians with full covariances."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_WEIGHT = 1e-12  # of a component that no sample belongs to: its logarithm stays finite


class Mixture(NamedTuple):
    """K Gaussians in D dimensions, float64."""

    weights: Tensor  # (K,) φ, they sum to 1
    means: Tensor  # (K, D) μ
    covariances: Tensor  # (K, D, D) Σ, positive definite

    def cholesky(self) -> Tensor:
        """``(K, D, D)`` lower L with Σ = L Lᵀ; NaN where there is none, so that the loss shows it."""
        factors, failed = torch.linalg.cholesky_ex(self.covariances)
        return factors.masked_fill((failed > 0)[:, None, None], math.nan)

    def energy(self, z: Tensor) -> Tensor:
        """``−log Σ_k φ_k N(z; μ_k, Σ_k)`` in nats (equation 6): ``(B, D)`` to ``(B,)``, float64.

        With Σ = L Lᵀ the Mahalanobis distance is the length of one triangular solve and log|Σ| = 2 Σ_j log L_jj, so
        no covariance is ever inverted.
        """
        cholesky = self.cholesky()
        centred = (z.double()[None] - self.means[:, None]).mT  # (K, D, B)
        whitened = torch.linalg.solve_triangular(cholesky, centred, upper=False)
        half_log_determinant = cholesky.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        constant = 0.5 * z.shape[1] * math.log(2 * math.pi)
        log_component = -0.5 * whitened.square().sum(dim=1) - (half_log_determinant + constant)[:, None]
        return -torch.logsumexp(self.weights.clamp(min=SMALLEST_WEIGHT).log()[:, None] + log_component, dim=0)

    def inverse_variances(self) -> Tensor:
        """``Σ_k Σ_j 1 / Σ_kjj``: DAGMM's penalty on components that collapse (section 3.4), a scalar."""
        return self.covariances.diagonal(dim1=1, dim2=2).reciprocal().sum()

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, D)`` draws, float64; the generator is on the CPU."""
        index = torch.multinomial(self.weights.cpu(), num, replacement=True, generator=generator)
        noise = torch.randn(num, self.means.shape[1], 1, dtype=torch.float64, generator=generator)
        index, noise = index.to(self.means.device), noise.to(self.means.device)
        return self.means[index] + (self.cholesky()[index] @ noise).squeeze(2)
