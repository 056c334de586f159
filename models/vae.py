"""The variational autoencoder with a standard normal prior.

Source: Kingma & Welling 2014 (arXiv 1312.6114), with the weighting of IRMAE's baseline.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Autoencoder, full_precision
from models.networks.conv import build_networks


class GaussianPosterior(Autoencoder):
    """What VAEs share: q(z | x) is a Gaussian with diagonal covariance, the prior is N(0, I), the code is the mean.

    Args:
        architecture: a key of ``models.networks.ARCHITECTURES``, or ``"mlp:64-32"`` for vectors.
        channels: of the image, or the number of features.
        latent_dim: n.
        output: the decoder's last function; unless given, the architecture's.
    """

    def __init__(self, architecture: str, channels: int, latent_dim: int, output: nn.Module | None = None):
        super().__init__()
        self.latent_dim = latent_dim
        self.enc, self.dec = build_networks(architecture, channels, latent_dim, 2 * latent_dim, output)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each ``(B, n)``."""
        mean, logvar = full_precision(self.enc(x)).chunk(2, dim=1)
        return mean, logvar

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        parameter = next(self.parameters())
        return torch.randn(num, self.latent_dim, generator=generator).to(parameter)


class VAE(GaussianPosterior):
    """VAE whose decoder gives the probabilities of pixels.

    The loss is the mean binary cross-entropy over pixels plus β times ``mean(μ² + σ² − 1 − log σ²)`` over the batch and
    the n dimensions. That mean is 2/n times the Kullback-Leibler divergence of a sample: the halving of the
    divergence and the number of dimensions are part of β, as in the code released with IRMAE.

    Args:
        architecture, channels, latent_dim: see ``GaussianPosterior``.
        beta: β.
    """

    def __init__(self, architecture: str, channels: int, latent_dim: int, beta: float = 0.1):
        super().__init__(architecture, channels, latent_dim, nn.Sigmoid())
        self.beta = beta

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        # From the logits: a saturated sigmoid has no logarithm.
        reconstruction = F.binary_cross_entropy_with_logits(self.dec.logits(z), x)
        kl = torch.mean(mean.square() + logvar.exp() - 1 - logvar)
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}
