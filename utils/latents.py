"""The spectrum of the covariance of codes, and the densities that are fitted to them.

scikit-learn is imported where it is used: --help does not wait for it.
"""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

RANK_THRESHOLD = 1e-3
FLOOR = 1e-12  # of σ / σ₁: below it is what training in float32 leaves, not structure


@dataclass(frozen=True)
class Spectrum:
    """Singular values of the covariance of a set of codes."""

    values: np.ndarray  # (n,) float64, largest first, divided by it; all zero where the codes do not vary at all
    largest: float  # σ1, before the division

    def rank(self, threshold: float = RANK_THRESHOLD) -> int:
        """How many are above the threshold: the "non-zero" singular values of IRMAE's tables."""
        return int((self.values > threshold).sum())

    def falls(self, floor: float = FLOOR) -> np.ndarray:
        """``(n - 1,)``: log10 of each value over the next; one below the floor counts as the floor, as it is noise."""
        return -np.diff(np.log10(np.maximum(self.values, floor)))

    def effective_rank(self) -> float:
        """Exponential of the entropy of the values as a distribution (Roy & Vetterli 2007, "The effective rank")."""
        positive = self.values[self.values > 0]
        if len(positive) == 0:
            return 0.0
        p = positive / self.values.sum()
        return float(np.exp(-(p * np.log(p)).sum()))


def spectrum(codes: Tensor) -> Spectrum:
    """Spectrum of the covariance of codes ``(N, n)``, in float64. Raises UserError for fewer than 2 codes."""
    if len(codes) < 2:
        raise UserError(f"a covariance needs at least 2 codes, found {len(codes)}")
    values = np.linalg.svd(covariance(codes.double().numpy()), compute_uv=False)
    return Spectrum(values / values[0] if values[0] > 0 else values, float(values[0]))


@dataclass(frozen=True)
class Basis:
    """The orthonormal basis of the singular vectors of codes' covariance, about their mean."""

    mean: Tensor  # (n,) float64, as all
    vectors: Tensor  # (n, n), columns by falling singular value
    spectrum: Spectrum

    def coordinates(self, codes: Tensor, rank: int | None = None) -> Tensor:
        """The first ``rank`` coordinates ``(N, rank)`` of codes ``(N, n)``; None: the spectrum's rank."""
        rank = self.spectrum.rank() if rank is None else rank
        if not 0 <= rank <= len(self.mean):
            raise UserError(f"rank {rank}: expected a number from 0 to n = {len(self.mean)}")
        return (codes.double() - self.mean) @ self.vectors[:, :rank]

    def codes(self, coordinates: Tensor | np.ndarray) -> Tensor:
        """Codes ``(N, n)`` of the first coordinates ``(N, rank)``, the others being 0."""
        kept, n = torch.as_tensor(coordinates).double(), len(self.mean)
        if kept.ndim != 2 or kept.shape[1] > n:
            raise UserError(f"coordinates of shape {tuple(kept.shape)}: expected (N, d), d at most n = {n}")
        return self.mean + kept @ self.vectors[:, : kept.shape[1]].T


def basis(codes: Tensor) -> Basis:
    """The basis of codes ``(N, n)``; the sign of each vector is such that its largest entry is positive."""
    found = spectrum(codes)
    vectors = torch.from_numpy(np.linalg.svd(covariance(codes.double().numpy()))[0])
    largest = vectors.abs().argmax(dim=0)
    return Basis(codes.double().mean(dim=0), vectors * vectors[largest, torch.arange(len(vectors))].sign(), found)


def covariance(values: np.ndarray) -> np.ndarray:
    """``(n, n)`` sample covariance of rows ``(N, n)``, for n = 1 too."""
    return np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1])


def sample_gaussian(codes: Tensor, num: int, seed: int) -> Tensor:
    """``(num, n)`` draws of the multivariate Gaussian with the codes' mean and covariance."""
    values = codes.double().numpy()
    # By eigenvectors: the covariance of a low-rank code has no Cholesky factor.
    generator = np.random.default_rng(seed)
    draws = generator.multivariate_normal(values.mean(axis=0), covariance(values), num, method="eigh")
    return torch.from_numpy(draws).float()


def fit_mixture(codes: Tensor, components: int, seed: int):
    """A GaussianMixture of full covariances. Raises UserError for fewer codes than that, or codes that do not vary."""
    from sklearn.mixture import GaussianMixture

    if not 1 <= components <= len(codes):
        raise UserError(f"-d {components}: expected 1 to {len(codes)} components, at least one code for each")
    require_variation(codes)
    # The regulariser of the covariances must be small beside the codes' own variance, whatever their scale.
    values = codes.double().numpy()
    floor = max(1e-6 * float(values.var(axis=0).max()), 1e-12)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        mixture = GaussianMixture(components, covariance_type="full", reg_covar=floor, random_state=seed).fit(values)
    if raised:
        print(f"warning: -d {components}: {str(raised[0].message).splitlines()[0]}", file=sys.stderr)
    return mixture


def sample_mixture(mixture, num: int, seed: int | None = None) -> Tensor:
    """``(num, n)`` draws of a fitted mixture, component by component; in random order with a ``seed``."""
    draws = torch.from_numpy(mixture.sample(num)[0]).float()
    return draws if seed is None else draws[torch.randperm(num, generator=torch.Generator().manual_seed(seed))]


def fit_pca(codes: Tensor, dimensions: int, seed: int):
    """A PCA, principal components. Raises UserError for more than the codes have, or codes that do not vary."""
    from sklearn.decomposition import PCA

    if dimensions > min(codes.shape):
        most = f"{len(codes)} codes of dimension n = {codes.shape[1]} have at most {min(codes.shape)}"
        raise UserError(f"-d {dimensions}: {most} principal components")
    require_variation(codes)
    return PCA(dimensions, random_state=seed).fit(codes.double().numpy())


def require_variation(codes: Tensor) -> None:
    """Raises UserError where all codes ``(N, n)`` are the same up to the rounding of float32."""
    if len(codes) < 2 or codes.double().std(dim=0).max() <= 1e-6 * codes.abs().max():
        why = "the images do not differ, or the encoder ignores them; there is nothing to fit"
        raise UserError(f"all {len(codes)} codes are the same: {why}")


def predict(codes: Tensor, values: np.ndarray, seed: int) -> np.ndarray:
    """``(N, K)`` predictions of values ``(N, K)`` from the codes ``(N, n)`` of other samples: 5-fold cross-validation.

    Ridge regression on 500 random features of the radial basis function kernel exp(−|z − z'|² / n), of codes that are
    scaled to a variance of 1.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = Nystroem(n_components=min(500, len(codes) // 2), random_state=seed)
    regression = make_pipeline(StandardScaler(), features, Ridge(1e-2))
    return cross_val_predict(regression, codes.double().numpy(), values, cv=KFold(5, shuffle=True, random_state=seed))


def traverse(codes: Tensor, dimensions: int, steps: int, reach: float = 2.0) -> tuple[Tensor, Tensor]:
    """Straight walks through the mean of codes ``(N, n)``, along each of the dimensions with most variance.

    ``reach``: standard deviations to either side of it; 2 as published (RaDOGAGA, section 5.1).

    Returns:
        ``(min(dimensions, n) * steps, n)`` codes, dimension by dimension, and all n dimensions by falling variance.
    """
    deviation, mean = torch.std_mean(codes.double(), dim=0)
    order = deviation.argsort(descending=True)
    positions = torch.linspace(-reach, reach, steps, dtype=torch.float64)
    directions = torch.diag(deviation)[order[:dimensions]]
    return (mean + positions[:, None] * directions[:, None]).flatten(0, 1).float(), order
