"""Codes of a whole data set, their spectrum, and the densities fitted to them."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor
from tqdm import tqdm

from utils.errors import UserError

RANK_THRESHOLD = 1e-3


@torch.no_grad()
def encode(model, dataset, batch_size: int = 500, device: torch.device | str = "cpu") -> Tensor:
    """The codes of all images in their order: ``(N, n)`` float32 in main memory. Raises UserError unless finite."""
    model.eval()
    batches = dataset.batches(batch_size, device=device)
    total = -(-len(dataset) // batch_size)
    # Copied once, at the end: no batch waits for the host.
    codes = torch.cat([model.encode(x) for x in tqdm(batches, "encoding", total, leave=False, disable=None)]).cpu()
    if not torch.isfinite(codes).all():
        raise UserError("the codes of this checkpoint are not finite numbers: train again with a lower --lr")
    return codes


@torch.no_grad()
def decode(model, codes: Tensor, batch_size: int = 500, device: torch.device | str = "cpu") -> Tensor:
    """Images ``(N, C, H, W)`` of codes ``(N, n)``, clamped to [0, 1], in main memory."""
    model.eval()
    return torch.cat([model.decode(z.to(device)).clamp(0, 1).cpu() for z in codes.float().split(batch_size)])


@dataclass(frozen=True)
class Spectrum:
    """Singular values of the covariance of a set of codes, largest first, divided by the largest.

    Attributes:
        values: ``(n,)`` float64; all zero where the codes do not vary at all.
        largest: σ1, before the division.
    """

    values: np.ndarray
    largest: float

    def rank(self, threshold: float = RANK_THRESHOLD) -> int:
        """How many are above the threshold: the "non-zero" singular values of IRMAE's tables."""
        return int((self.values > threshold).sum())

    def effective_rank(self) -> float:
        """Exponential of the entropy of the values as a distribution (Roy & Vetterli 2007, "The effective rank")."""
        total = self.values.sum()
        if total == 0:
            return 0.0
        p = self.values[self.values > 0] / total
        return float(np.exp(-(p * np.log(p)).sum()))


def spectrum(codes: Tensor) -> Spectrum:
    """Spectrum of the covariance of codes ``(N, n)``, in float64. Raises UserError for fewer than 2 codes."""
    if len(codes) < 2:
        raise UserError(f"a covariance needs at least 2 codes, found {len(codes)}: raise --test-size")
    covariance = np.cov(codes.double().numpy(), rowvar=False).reshape(codes.shape[1], codes.shape[1])
    values = np.linalg.svd(covariance, compute_uv=False)
    return Spectrum(values / values[0] if values[0] > 0 else values, float(values[0]))


def sample_gaussian(codes: Tensor, num: int, seed: int) -> Tensor:
    """``(num, n)`` draws of the multivariate Gaussian with the codes' mean and covariance."""
    values = codes.double().numpy()
    covariance = np.cov(values, rowvar=False).reshape(codes.shape[1], codes.shape[1])
    # By eigenvectors: the covariance of a low-rank code has no Cholesky factor.
    draws = np.random.default_rng(seed).multivariate_normal(values.mean(axis=0), covariance, num, method="eigh")
    return torch.from_numpy(draws).float()


def traverse(codes: Tensor, dimensions: int, steps: int, reach: float = 2.0) -> tuple[Tensor, Tensor]:
    """Straight walks through the mean code, along each of the dimensions with most variance.

    Args:
        codes: ``(N, n)``.
        reach: standard deviations to either side of the mean; 2 as published (RaDOGAGA, section 5.1).

    Returns:
        ``(min(dimensions, n) * steps, n)`` codes, dimension by dimension, and all n dimensions by falling variance.
    """
    deviation, mean = torch.std_mean(codes.double(), dim=0)
    order = deviation.argsort(descending=True)
    walked = mean.repeat(len(order[:dimensions]), steps, 1)
    for row, dimension in enumerate(order[:dimensions]):
        walked[row, :, dimension] += torch.linspace(-reach, reach, steps, dtype=torch.float64) * deviation[dimension]
    return walked.flatten(0, 1).float(), order


def fit_mixture(codes: Tensor, components: int, seed: int) -> GaussianMixture:
    """A Gaussian mixture with full covariances. Raises UserError for more components than codes."""
    if components > len(codes):
        raise UserError(f"-d {components}: a mixture needs at least one code per component, found {len(codes)} codes")
    # The regulariser of the covariances must be small beside the codes' own variance, whatever their scale.
    values = codes.double().numpy()
    floor = max(1e-6 * float(values.var(axis=0).max()), 1e-12)
    return GaussianMixture(components, covariance_type="full", reg_covar=floor, random_state=seed).fit(values)


def fit_pca(codes: Tensor, dimensions: int, seed: int) -> PCA:
    """Principal components. Raises UserError for more than the codes have."""
    most = min(codes.shape)
    if dimensions > most:
        raise UserError(
            f"-d {dimensions}: {len(codes)} codes of dimension n = {codes.shape[1]} have at most {most} principal "
            "components"
        )
    return PCA(dimensions, random_state=seed).fit(codes.double().numpy())
