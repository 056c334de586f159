"""A Gaussian mixture whose soft memberships come from a network, trained with the codes that it describes.

Source: Zong et al. 2018, "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection" (DAGMM),
section 3.3, equations 4 to 6. RaDOGAGA (arXiv 1910.04329) uses the same mixture as a prior.
"""

import warnings
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from models.layers.gaussian_mixture import SMALLEST_WEIGHT, Mixture
from utils.errors import Diverged, UserError
from utils.flags import Flag, positive

Components = Annotated[int, Flag("K, Gaussians of the mixture", positive, needs=("prior", "gmm"))]
MOMENTUM = 0.01  # of the running statistics: an average over about the last hundred batches
EM_SAMPLES = 50_000  # at most: twice as many change F1 on KDD Cup by less than 0.001


class MixtureEstimator(nn.Module):
    """The estimation network, and the mixture that its memberships make of a set of features.

    In training the mixture is that of the batch, and gradients flow through it. Running averages of the same
    statistics are buffers, as in batch normalisation: they make the mixture of evaluation and are part of a
    checkpoint. ``fit`` replaces them by the statistics of a whole training set.

    ``covariance_floor`` is added to every variance, in the features' own squared units: a batch that does not vary
    along some direction, or has fewer samples than dimensions, still has a Cholesky factor.
    """

    mass: Tensor
    first: Tensor
    second: Tensor
    batches_seen: Tensor

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
        """Energies ``(B,)``, float64 nats, of features ``(B, D)``, and the mixture that they were computed with.

        In training the mixture of this batch, in evaluation that of the running statistics.
        """
        if not self.training:
            mixture = self.running_mixture()
            return mixture.energy(z), mixture
        statistics = self.statistics(z)
        self.batches_seen += 1
        momentum = (1 / self.batches_seen).clamp(min=MOMENTUM)
        for buffer, value in zip((self.mass, self.first, self.second), statistics, strict=True):
            buffer.lerp_(value.detach(), momentum)
        mixture = self.mixture(*statistics)
        return mixture.energy(z), mixture

    def energy(self, z: Tensor) -> Tensor:
        """The energies of ``forward``."""
        return self(z)[0]

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, D)`` draws, float64; the generator is on the CPU."""
        return self.running_mixture().sample(num, generator)

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
    def fit(self, batches: Iterable[Tensor]) -> Mixture:
        """Set the running statistics to those of all features in ``batches``, without dropout; returns the mixture.

        Raises UserError where there are fewer samples than components.
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
        return self._set_statistics(*(total / count for total in sums))

    @torch.no_grad()
    def fit_em(self, batches: Iterable[Tensor], seed: int = 0) -> Mixture:
        """Set the mixture to the one that expectation-maximisation finds for all features, started by k-means.

        Not in the papers. The estimation network does not change and is not used in evaluation. Its memberships are a
        smooth function of the code, so small modes close to large ones share a component with them; the likelihood of
        the same number of Gaussians on the same features is higher after this.

        Raises UserError for fewer samples than components, Diverged for features that are not finite.
        """
        # Imported here: loading it takes longer than loading PyTorch.
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
        return self._set_statistics(mass, first, second)

    def _set_statistics(self, mass: Tensor, first: Tensor, second: Tensor) -> Mixture:
        for buffer, value in ((self.mass, mass), (self.first, first), (self.second, second)):
            buffer.copy_(value)
        self.batches_seen.clamp_(min=1)
        return self.running_mixture()

    def _require_enough(self, count: int) -> None:
        if count < len(self.mass):
            raise UserError(
                f"a mixture of {len(self.mass)} components needs at least as many training samples, found {count}: "
                "give more data or lower --components"
            )
