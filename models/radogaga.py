"""RaDOGAGA: an autoencoder whose code is isometric to the data, by rate-distortion optimisation.

Source: Kato, Zhou, Sasaki, Nakagawa 2020, "Rate-Distortion Optimization Guided Autoencoder for Isometric Embedding in
Euclidean Latent Space", arXiv 1910.04329.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Autoencoder, full_precision
from models.layers.entropy_bottleneck import EntropyBottleneck
from models.layers.gaussian_mixture import MixtureEstimator
from models.networks.conv import build_networks
from utils.errors import UserError

LOG_FLOOR = 1e-3  # in log(D + floor), as in the released code: a perfect reconstruction has no logarithm


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each sample: ``(B, ...)`` to ``(B,)``."""
    return F.mse_loss(x, y, reduction="none").flatten(1).mean(dim=1)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """1 − SSIM of each image: ``(B, C, H, W)`` to ``(B,)``. Gaussian window of 11 pixels, σ = 1.5.

    For images in [0, 1]. SSIM of an image and its negative −x is 1 too (both factors change sign), and a decoder that
    ends in tanh or in nothing finds that: what lies outside [0, 1] is cut off before, and its mean absolute
    difference added. Averaged over the positions where the window fits, as published; torchmetrics itself would go on
    to the edge with mirrored pixels.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural
    similarity".
    """
    # Imported where it is needed: loading it takes longer than loading PyTorch.
    from torchmetrics.functional.image import structural_similarity_index_measure

    inside = x.clamp(0, 1), y.clamp(0, 1)
    outside = ((x - inside[0]) - (y - inside[1])).abs().flatten(1).mean(dim=1)
    _, everywhere = structural_similarity_index_measure(
        *inside, data_range=1.0, reduction="none", return_full_image=True
    )
    return 1 - everywhere[..., 5:-5, 5:-5].flatten(1).mean(dim=1) + outside


DISTORTIONS = {"mse": mse, "ssim": ssim}


def choose_distortion(name: str, architecture: str):
    """The function D of that name. Raises UserError for SSIM on vectors, which have no neighbouring pixels."""
    if name == "ssim" and architecture.startswith("mlp:"):
        raise UserError("--distortion ssim compares images, but this data set holds vectors: use --distortion mse")
    return DISTORTIONS[name]


class RaDOGAGA(Autoencoder):
    """Minimises  −log P(z) + λ1 h(D(x, x̂)) + λ2 D(x̂, x̆),  x̂ = g(z), x̆ = g(z + ε)  (equation 7).

    ε is uniform on (−w/2, w/2) in every dimension. The second distortion is to first order the squared length of
    the decoder's Jacobian times ε, so that the rate, which wants the code small, and this term, which wants the
    decoder's steps small, balance where the Jacobian's columns are orthogonal and of one and the same length:
    1 / sqrt(2 λ2 w²/12) in the metric of D. The code is then isometric to the data up to that factor.

    The rate is in nats for a whole code; D is the mean over pixels or features for one sample.

    Args:
        architecture: a key of ``models.networks.ARCHITECTURES``, or ``"mlp:64-32"`` for vectors.
        channels: of the image, or the number of features.
        latent_dim: n.
        lambda1: λ1, weight of the reconstruction.
        lambda2: λ2, weight of the effect of the noise: how fine a difference in data space the code resolves.
        h: "d": h(D) = D. "log": h(D) = log(D + 0.001), which keeps its pull where the reconstruction is already good.
        distortion: "mse", or "ssim" for D = 1 − SSIM.
        prior: "factorized": an entropy bottleneck, and P is the probability of the interval of width w around z + ε.
            "gmm": a Gaussian mixture over z whose memberships are estimated by a network.
        noise_width: w, the unit of the code: a times the width makes the same code, a times as large (the paper has
            1). Training is quickest where a fresh network has that size already, w near sqrt(6 N / λ2) for N pixels or
            features.
        components: K, of the prior "gmm". More than the data has find its modes more surely.
        estimation_dropout: of the network behind the prior "gmm", as in DAGMM. 0 finds the modes of data in few
            dimensions more surely (docs/density.md).
        estimation_width: hidden units of that network. DAGMM's 10 keep a handful of components apart, not dozens.
    """

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        lambda1: float = 1e6,
        lambda2: float = 1e5,
        h: str = "d",
        distortion: str = "mse",
        prior: str = "factorized",
        noise_width: float = 0.3,
        components: int = 3,
        estimation_dropout: float = 0.5,
        estimation_width: int = 10,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.lambda1, self.lambda2, self.h, self.noise_width = lambda1, lambda2, h, noise_width
        self.distortion = choose_distortion(distortion, architecture)
        self.enc, self.dec = build_networks(architecture, channels, latent_dim)
        self.factorized = prior == "factorized"
        if self.factorized:
            self.prior = EntropyBottleneck(latent_dim)
        else:
            self.prior = MixtureEstimator(latent_dim, components, estimation_width, estimation_dropout)

    def encode(self, x: Tensor) -> Tensor:
        return full_precision(self.enc(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)

    def energy(self, z: Tensor) -> Tensor:
        """−log P of codes ``(B, n)``, nats ``(B,)``: low where the training data is dense."""
        if self.factorized:
            return -self.prior.log_likelihood(z / self.noise_width).sum(dim=1)
        return self.prior(z)[0]

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        noisy = z + self.noise_width * (torch.rand_like(z) - 0.5)
        decoded, decoded_noisy = self.decode(z), self.decode(noisy)
        reconstruction = self.distortion(decoded, x)
        noise_effect = self.distortion(decoded_noisy, decoded).mean()
        rate = self.energy(noisy if self.factorized else z).mean().to(z.dtype)  # a mixture computes in float64
        penalty = reconstruction if self.h == "d" else torch.log(reconstruction + LOG_FLOOR)
        return {
            "loss": rate + self.lambda1 * penalty.mean() + self.lambda2 * noise_effect,
            "reconstruction": reconstruction.mean(),
            "rate": rate,
            "noise_effect": noise_effect,
        }

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        if self.factorized:
            return self.noise_width * self.prior.sample(num, generator)
        return self.prior.fixed().sample(num, generator).to(next(self.parameters()).dtype)

    def sample_energy(self, x: Tensor) -> Tensor:
        """−log P of the codes of ``x``, nats ``(B,)``: high where the sample is unlike the training data."""
        return self.energy(self.encode(x))

    def fit_prior(self, batches: Iterable[Tensor], em: bool = False, seed: int = 0) -> None:
        """Fix a mixture prior to that of a whole training set (batches of ``x``); the factorised one needs nothing.

        ``em``: by expectation-maximisation on the codes, from the seed, and not by the estimation network.
        """
        if not self.factorized:
            self.eval()
            with torch.no_grad():
                codes = (self.encode(x) for x in batches)
                if em:
                    self.prior.fit_em(codes, seed)
                else:
                    self.prior.fit(codes)
