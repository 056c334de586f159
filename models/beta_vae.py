"""β-VAE with the reconstruction taken apart: RaDOGAGA's baseline, trained on the same two distortions.

Source: Higgins et al. 2017, "beta-VAE", and the code released with RaDOGAGA (Kato et al. 2020, arXiv 1910.04329).
"""

import torch
from torch import Tensor

from models.radogaga import choose_distortion
from models.vae import GaussianPosterior


class BetaVAE(GaussianPosterior):
    """Minimises  λ1 D(x, x̂) + λ2 D(x̂, x̆) + KL(q(z | x) ‖ N(0, I)),  x̂ = g(μ), x̆ = g(μ + σ ε), ε standard normal.

    ``joint`` is the ordinary β-VAE, λ1 D(x, x̆) + KL, with β = 1/λ1. The KL is in nats for a whole code; D is
    the mean over pixels or features for one sample. The code is the posterior's mean.

    Args:
        architecture: a key of ``models.networks.ARCHITECTURES``, or ``"mlp:64-32"`` for vectors.
        channels: of the image, or the number of features.
        latent_dim: n.
        lambda1: λ1, weight of the reconstruction.
        lambda2: λ2, weight of the effect of the posterior's noise; in the joint form it has no part.
        distortion: "mse", or "ssim" for D = 1 − SSIM.
        joint: the ordinary form, without the split.
    """

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        lambda1: float = 1e5,
        lambda2: float = 1e5,
        distortion: str = "mse",
        joint: bool = False,
    ):
        super().__init__(architecture, channels, latent_dim)
        self.lambda1, self.lambda2, self.joint = lambda1, lambda2, joint
        self.distortion = choose_distortion(distortion, architecture)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        decoded_noisy = self.decode(mean + torch.randn_like(mean) * torch.exp(0.5 * logvar))
        if self.joint:
            reconstruction = self.distortion(decoded_noisy, x).mean()
            return {"loss": self.lambda1 * reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        decoded = self.decode(mean)
        reconstruction = self.distortion(decoded, x).mean()
        noise_effect = self.distortion(decoded_noisy, decoded).mean()
        return {
            "loss": self.lambda1 * reconstruction + self.lambda2 * noise_effect + kl,
            "reconstruction": reconstruction,
            "noise_effect": noise_effect,
            "kl": kl,
        }
