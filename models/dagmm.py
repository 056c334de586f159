"""DAGMM: an autoencoder and a Gaussian mixture over its code and reconstruction error, trained together.

Source: Zong et al. 2018, "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection", ICLR. It is the
baseline of RaDOGAGA (arXiv 1910.04329) for density estimation and anomaly detection.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Autoencoder, full_precision
from models.layers.gaussian_mixture import Mixture, MixtureEstimator
from models.networks.conv import build_networks

ERROR_FEATURES = 2  # relative Euclidean distance and cosine similarity
SMALLEST_NORM = 1e-3  # of an input in the relative distance: a sample of zeros has no relative error


class DAGMM(Autoencoder):
    """Minimises  mean ‖x − x̂‖² + λ1 · mean E(f) + λ2 · Σ 1/diag(Σ)  (equation 7 of the paper).

    f = (z, ‖x − x̂‖ / ‖x‖, cos(x, x̂)) is the code with two measures of how badly it reconstructs; E is its energy,
    −log of its density under the mixture that an estimation network makes of the batch. The last term keeps
    components from collapsing onto single points.

    The squared error is summed over pixels or features, as in the paper; energies are in nats.

    Args:
        architecture: a key of ``models.networks.ARCHITECTURES``, or ``"mlp:60-30-10"`` for vectors (the paper's).
        channels: of the image, or the number of features.
        latent_dim: n.
        components: K, of the mixture.
        lambda_energy: λ1.
        lambda_covariance: λ2.
    """

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        components: int = 4,
        lambda_energy: float = 0.1,
        lambda_covariance: float = 0.005,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.lambda_energy, self.lambda_covariance = lambda_energy, lambda_covariance
        self.enc, self.dec = build_networks(architecture, channels, latent_dim)
        self.prior = MixtureEstimator(latent_dim + ERROR_FEATURES, components)

    def encode(self, x: Tensor) -> Tensor:
        return full_precision(self.enc(x))

    def decode(self, z: Tensor) -> Tensor:
        return full_precision(self.dec(z))

    def features(self, x: Tensor, z: Tensor, decoded: Tensor) -> Tensor:
        """``(B, n + 2)``: the code, the relative Euclidean distance and the cosine similarity (section 3.2)."""
        x, decoded = x.flatten(1), decoded.flatten(1)
        distance = torch.linalg.vector_norm(x - decoded, dim=1)
        relative = distance / torch.linalg.vector_norm(x, dim=1).clamp(min=SMALLEST_NORM)
        return torch.cat([z, relative[:, None], F.cosine_similarity(x, decoded)[:, None]], dim=1)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        decoded = self.decode(z)
        reconstruction = (decoded - x).square().flatten(1).sum(dim=1).mean()
        energies, mixture = self.prior(self.features(x, z, decoded))
        energy, covariance = energies.mean(), mixture.inverse_variances()
        return {
            "loss": reconstruction + self.lambda_energy * energy + self.lambda_covariance * covariance,
            "reconstruction": reconstruction,
            "energy": energy,
            "covariance": covariance,
        }

    def sample_energy(self, x: Tensor) -> Tensor:
        """−log of the density of the features of ``x``, nats ``(B,)``: high where unlike the training data."""
        z = self.encode(x)
        return self.prior(self.features(x, z, self.decode(z)))[0]

    def fit_prior(self, batches: Iterable[Tensor], em: bool = False, seed: int = 0) -> Mixture:
        """Fix the mixture to that of a whole training set (batches of ``x``) instead of the running averages.

        ``em``: by expectation-maximisation on the features, from the seed, and not by the estimation network.
        """
        self.eval()
        with torch.no_grad():
            features = (self.features(x, z, self.decode(z)) for x in batches for z in (self.encode(x),))
            return self.prior.fit_em(features, seed) if em else self.prior.fit(features)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        # Leaving coordinates of a Gaussian mixture out is marginalising over them.
        draws = self.prior.fixed().sample(num, generator)[:, : self.latent_dim]
        return draws.to(next(self.parameters()).dtype)
