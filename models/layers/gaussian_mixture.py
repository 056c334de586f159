"""A Gaussian mixture whose soft memberships come from a network, trained together with the codes it describes.

Source: Zong et al. 2018, "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection" (DAGMM),
section 3.3, equations 4 to 6. RaDOGAGA (arXiv 1910.04329) uses the same mixture as a prior.
"""

import math
import warnings
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn

from utils.errors import Diverged, UserError
from utils.flags import Flag, positive

Components = Annotated[int, Flag("--components", type=positive, help="K, Gaussians of the mixture")]
MOMENTUM = 0.01  # of the running statistics: an average over about the last hundred batches
EM_SAMPLES = 50_000  # at most, drawn from the seed: twice as many change F1 on KDD Cup by less than 0.001
SMALLEST_WEIGHT = 1e-12  # of a component that no sample belongs to: its logarithm stays finite


class Mixture(NamedTuple):
    """K Gaussians in D dimensions, float64.

    Attributes:
        weights: ``(K,)`` φ, they sum to 1.
        means: ``(K, D)`` μ.
        covariances: ``(K, D, D)`` Σ, positive definite.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

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
        """``(num, D)`` draws, float64. The generator lives on the CPU, whatever the device of the mixture."""
        index = torch.multinomial(self.weights.cpu(), num, replacement=True, generator=generator)
        noise = torch.randn(num, self.means.shape[1], 1, dtype=torch.float64, generator=generator)
        index, noise = index.to(self.means.device), noise.to(self.means.device)
        return self.means[index] + (self.cholesky()[index] @ noise).squeeze(2)


class MixtureEstimator(nn.Module):
    """The estimation network, and the mixture that its memberships make of a set of features.

    In training the mixture is that of the batch, and gradients flow through it. Running averages of the same
    statistics are kept in buffers, as batch normalisation keeps its own, so that evaluation, and a checkpoint, have a
    fixed mixture; ``fit`` replaces them by those of a whole training set.

    Args:
        features: D.
        components: K.
        hidden_width: of the network D → hidden (tanh, dropout) → K (softmax).
        dropout: probability after the hidden layer.
        covariance_floor: added to every variance, in the features' own squared units: a batch that does not vary
            along some direction, or has fewer samples than dimensions, still has a Cholesky factor.
    """

    def __init__(
        self,
        features: int,
        components: int,
        hidden_width: int = 10,
        dropout: float = 0.5,
        covariance_floor: float = 1e-6,
    ):
        super().__init__()
        self.covariance_floor = covariance_floor
        self.network = nn.Sequential(
            nn.Linear(features, hidden_width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, components),
            nn.Softmax(dim=1),
        )
        shapes = {"mass": (components,), "first": (components, features), "second": (components, features, features)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor) -> tuple[Tensor, Mixture]:
        """Energies ``(B,)`` float64 of features ``(B, D)``, and the mixture they were measured with.

        Training: the mixture of this batch. Evaluation: the fixed one.
        """
        if self.training:
            statistics = self.statistics(z)
            self._update_running_statistics(statistics)
            mixture = self.mixture(*statistics)
        else:
            mixture = self.running_mixture()
        return mixture.energy(z), mixture

    def statistics(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means over the batch of γ_k, γ_k z and γ_k z zᵀ: ``(K,)``, ``(K, D)``, ``(K, D, D)``, float64."""
        memberships = self.network(z).double()
        z = z.double()
        weighted = memberships.T[:, :, None] * z[None]  # (K, B, D)
        return memberships.mean(dim=0), weighted.mean(dim=1), weighted.mT @ z / len(z)

    def mixture(self, mass: Tensor, first: Tensor, second: Tensor) -> Mixture:
        """The mixture of such statistics (equation 5)."""
        divisor = mass.clamp(min=SMALLEST_WEIGHT)
        means = first / divisor[:, None]
        covariances = second / divisor[:, None, None] - means[:, :, None] * means[:, None, :]
        # Rounding of the difference grows with the values themselves, and so must what covers it.
        scale = second.detach().diagonal(dim1=1, dim2=2).amax(dim=1) / divisor.detach()
        floor = self.covariance_floor + 1e-12 * scale
        identity = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
        return Mixture(mass, means, covariances + floor[:, None, None] * identity)

    def running_mixture(self) -> Mixture:
        """The mixture of the buffers. Raises UserError before any training or ``fit``."""
        if self.batches_seen == 0:
            raise UserError("the Gaussian mixture has seen no data yet: train the model first")
        return self.mixture(self.mass, self.first, self.second)

    @torch.no_grad()
    def _update_running_statistics(self, statistics: tuple[Tensor, Tensor, Tensor]) -> None:
        self.batches_seen += 1
        momentum = (1 / self.batches_seen).clamp(min=MOMENTUM)
        for buffer, value in zip((self.mass, self.first, self.second), statistics, strict=True):
            buffer.lerp_(value, momentum)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> Mixture:
        """Fix the mixture to that of all the features in ``batches`` together, in evaluation mode; returns it.

        Raises:
            UserError: fewer samples than components.
        """
        was_training, count = self.training, 0
        self.eval()
        sums = [torch.zeros_like(buffer) for buffer in (self.mass, self.first, self.second)]
        for z in batches:
            for total, value in zip(sums, self.statistics(z), strict=True):
                total += value * len(z)
            count += len(z)
        self.train(was_training)
        self._require_enough(count)
        for buffer, total in zip((self.mass, self.first, self.second), sums, strict=True):
            buffer.copy_(total / count)
        self.batches_seen.fill_(max(1.0, float(self.batches_seen)))
        return self.running_mixture()

    @torch.no_grad()
    def fit_em(self, batches: Iterable[Tensor], seed: int = 0) -> Mixture:
        """Fix the mixture to what expectation-maximisation, from a k-means start, finds for all the features together.

        Ours, not the papers': the estimation network stays as it was trained and is passed over from now on. Its
        memberships are a smooth function of the code, so small modes that lie close to large ones share a component
        with them; the likelihood of the same K Gaussians on the same features is higher after this.

        Raises:
            UserError: fewer samples than components. Diverged: features that are no finite numbers.
        """
        # Imported where it is needed: loading it takes longer than loading PyTorch.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        z = torch.cat([batch.double() for batch in batches])
        self._require_enough(len(z))
        if not torch.isfinite(z).all():
            raise Diverged("the codes are not finite, so no mixture can be fitted: try a lower --lr")
        if len(z) > EM_SAMPLES:
            z = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))[:EM_SAMPLES].to(z.device)]
        found = GaussianMixture(len(self.mass), reg_covar=self.covariance_floor, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 100 rounds what is left to gain is small
            found.fit(z.cpu().numpy())
        mass, means, covariances = map(torch.from_numpy, (found.weights_, found.means_, found.covariances_))
        covariances.diagonal(dim1=1, dim2=2).sub_(self.covariance_floor)  # ``mixture`` adds it again
        first = mass[:, None] * means
        second = mass[:, None, None] * (covariances + means[:, :, None] * means[:, None, :])
        for buffer, value in zip((self.mass, self.first, self.second), (mass, first, second), strict=True):
            buffer.copy_(value)
        self.batches_seen.fill_(max(1.0, float(self.batches_seen)))
        return self.running_mixture()

    def _require_enough(self, count: int) -> None:
        if count < len(self.mass):
            raise UserError(
                f"a mixture of {len(self.mass)} components needs at least as many training samples, found {count}: "
                "give more data or lower --components"
            )
