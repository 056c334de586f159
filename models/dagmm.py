"""DAGMM: an autoencoder and a Gaussian mixture over its code and reconstruction error, trained together.

Source: Zong et al. 2018, "Deep Autoencoding Gaussian Mixture Model for Unsupervised Anomaly Detection", ICLR. It is the
baseline of RaDOGAGA (arXiv 1910.04329) for density estimation and anomaly detection.
"""

from typing import Annotated

from torch import Tensor

from models.base import DensityModel
from models.layers.mixture_estimator import Components, MixtureEstimator
from models.layers.residual import RESIDUAL_FEATURES, Residual, append_residual
from utils.flags import Flag, non_negative_float


class DAGMM(DensityModel):
    """Minimises  mean ‖x − x̂‖² + λ1 · mean E(f) + λ2 · Σ 1/diag(Σ)  (equation 7 of the paper).

    f = (z, ‖x − x̂‖ / ‖x‖, cos(x, x̂)) is the code with two measures of its reconstruction error; E is its energy,
    −log of its density under the mixture that an estimation network makes of the batch. The last term prevents
    components from collapsing onto single points. Without ``residual`` f is the code alone.

    The squared error is summed over pixels or features, as in the paper, whose network is ``"mlp:60-30-10"``; energies
    are in nats.
    """

    title = "DAGMM (Zong et al. 2018): Gaussian mixture over code and reconstruction error"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        components: Components = 4,
        lambda_energy: Annotated[float, Flag("λ1, weight of the energy", non_negative_float)] = 0.1,
        lambda_covariance: Annotated[float, Flag("λ2, weight of Σ 1/diag(covariance)", non_negative_float)] = 0.005,
        residual: Residual = True,
    ):
        super().__init__(architecture, channels, latent_dim)
        self.lambda_energy, self.lambda_covariance = lambda_energy, lambda_covariance
        self.residual = residual
        self.prior = MixtureEstimator(latent_dim + RESIDUAL_FEATURES * residual, components)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        decoded = self.decode(z)
        reconstruction = (decoded - x).square().flatten(1).sum(dim=1).mean()
        energies, mixture = self.prior(append_residual(z, x, decoded) if self.residual else z)
        energy, covariance = energies.mean(), mixture.inverse_variances()
        loss = reconstruction + self.lambda_energy * energy + self.lambda_covariance * covariance
        return {"loss": loss, "reconstruction": reconstruction, "energy": energy, "covariance": covariance}
