"""RaDOGAGA: an autoencoder whose code is isometric to the data, by rate-distortion optimisation.

Source: Kato, Zhou, Sasaki, Nakagawa 2020, "Rate-Distortion Optimization Guided Autoencoder for Isometric Embedding in
Euclidean Latent Space", arXiv 1910.04329.
"""

from typing import Annotated

import torch
from torch import Tensor

from models.base import DensityModel
from models.layers.distortion import Distortion, Distortion2, Lambda1, Lambda2, choose_distortion
from models.layers.entropy_bottleneck import EntropyBottleneck
from models.layers.mixture_estimator import Components, MixtureEstimator
from models.layers.residual import RESIDUAL_FEATURES, Residual, append_residual
from utils.errors import UserError
from utils.flags import Flag, positive, positive_float, probability

GMM = ("prior", "gmm")
LOG_FLOOR = 1e-3  # in log(D + floor), as in the released code: a perfect reconstruction has no logarithm


class RaDOGAGA(DensityModel):
    """Minimises  −log P(z) + λ1 h(D(x, x̂)) + λ2 D(x̂, x̆),  x̂ = g(z), x̆ = g(z + ε)  (equation 7).

    ε is uniform on (−w/2, w/2) in every dimension. The second distortion is to first order the squared length of
    the decoder's Jacobian times ε. The rate favours a small code and this term small steps of the decoder; they balance
    where the Jacobian's columns are orthogonal and have the same length, 1 / sqrt(2 λ2 w²/12) in the metric of D. The
    code is then isometric to the data up to that factor.

    The rate is in nats for a whole code; D is the mean over pixels or features for one sample. The code is isometric in
    the metric of the second D. The release changes that only: the first is the mean squared error in every run.

    h(D) = D, or log(D + 0.001), whose gradient does not vanish where D is small already. With the prior "factorized",
    an entropy bottleneck, P is the probability of the interval of width w around z + ε; "gmm" is a mixture over z whose
    memberships are estimated by a network, with ``residual`` over (z, ‖x − x̂‖ / ‖x‖, cos(x, x̂)) (section 5.3), while z
    alone goes to the decoder. w is the unit of the code: a times the width makes the same code, a times as large (1 in
    the paper). Training is fastest where a new network has that size already, w near sqrt(6 N / λ2) for N pixels. More
    components than modes, and a dropout of 0, find the modes more reliably (docs/density.md).
    """

    title = "RaDOGAGA (arXiv 1910.04329): isometric code by rate and distortion"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        lambda1: Lambda1 = 1e6,
        lambda2: Lambda2 = 1e5,
        h: Annotated[str, Flag("h: D or log D in the reconstruction term", choices=("d", "log"))] = "d",
        distortion: Distortion = "mse",
        distortion2: Distortion2 = "mse",
        prior: Annotated[
            str, Flag("entropy bottleneck, or Gaussian mixture", choices=("factorized", "gmm"))
        ] = "factorized",
        noise_width: Annotated[float, Flag("w, the noise ε is uniform on (−w/2, w/2)", positive_float)] = 0.3,
        components: Components = 3,
        estimation_dropout: Annotated[float, Flag("of the network behind the prior gmm", probability, needs=GMM)] = 0.5,
        estimation_width: Annotated[int, Flag("hidden units behind the prior gmm", positive, needs=GMM)] = 10,
        residual: Residual = False,
    ):
        if residual and prior == "factorized":
            raise UserError("--residual needs --prior gmm: the entropy bottleneck is over the code alone")
        super().__init__(architecture, channels, latent_dim)
        self.lambda1, self.lambda2, self.h, self.noise_width = lambda1, lambda2, h, noise_width
        self.residual = residual
        self.distortion = choose_distortion(distortion, architecture)
        self.distortion2 = choose_distortion(distortion2, architecture, "--distortion2")
        if prior == "factorized":
            self.prior = EntropyBottleneck(latent_dim, noise_width)
        else:
            features = latent_dim + RESIDUAL_FEATURES * residual
            self.prior = MixtureEstimator(features, components, estimation_width, estimation_dropout)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        noisy = z + self.noise_width * (torch.rand_like(z) - 0.5)
        decoded, decoded_noisy = self.decode(z), self.decode(noisy)
        reconstruction = self.distortion(decoded, x)
        noise_effect = self.distortion2(decoded_noisy, decoded).mean()
        if isinstance(self.prior, EntropyBottleneck):
            rate = self.prior.energy(noisy).mean()
        else:  # a mixture computes in float64
            rate = self.prior.energy(append_residual(z, x, decoded) if self.residual else z).mean().to(z.dtype)
        penalty = reconstruction if self.h == "d" else torch.log(reconstruction + LOG_FLOOR)
        loss = rate + self.lambda1 * penalty.mean() + self.lambda2 * noise_effect
        return {"loss": loss, "reconstruction": reconstruction.mean(), "rate": rate, "noise_effect": noise_effect}
