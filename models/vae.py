"""Variational autoencoders with a standard normal prior: VAE, β-VAE and β-TCVAE."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Autoencoder, sample_gaussian
from models.layers.distortion import Distortion, Distortion2, Lambda1, Lambda2, choose_distortion
from models.networks.base import full_precision
from utils.errors import UserError
from utils.flags import Flag, non_negative_float

Beta = Annotated[float, Flag("β, weight of the KL term, or in beta-tcvae of TC", non_negative_float)]


class GaussianPosterior(Autoencoder):
    """q(z | x) is a Gaussian with diagonal covariance, the prior is N(0, I), and the code is the posterior's mean."""

    pz_scale = 1.0

    def __init__(self, architecture: str, channels: int, latent_dim: int, output: nn.Module | None = None):
        super().__init__(architecture, channels, latent_dim, 2 * latent_dim, output)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each ``(B, n)``."""
        mean, logvar = full_precision(self.enc(x)).chunk(2, dim=1)
        return mean, logvar

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def sample_codes(self, x: Tensor) -> Tensor:
        return sample_gaussian(*self.posterior(x))


class VAE(GaussianPosterior):
    """VAE whose decoder gives the probabilities of pixels.

    The loss is the mean binary cross-entropy over pixels plus β times ``mean(μ² + σ² − 1 − log σ²)`` over the batch and
    the n dimensions. That mean is 2/n times the Kullback-Leibler divergence of a sample: the halving of the
    divergence and the number of dimensions are part of β, as in the code released with IRMAE.

    Source: Kingma & Welling 2014 (arXiv 1312.6114), with the weights of IRMAE's baseline.
    """

    title = "VAE (arXiv 1312.6114): KL to N(0, I)"
    bernoulli = True

    def __init__(self, architecture: str, channels: int, latent_dim: int, beta: Beta = 0.1):
        super().__init__(architecture, channels, latent_dim, nn.Sigmoid())
        self.beta = beta

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        z = sample_gaussian(mean, logvar)
        # From the logits: a saturated sigmoid has no logarithm.
        reconstruction = F.binary_cross_entropy_with_logits(self.dec.logits(z), x)
        kl = torch.mean(mean.square() + logvar.exp() - 1 - logvar)
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}


class BetaVAE(GaussianPosterior):
    """Minimises  λ1 D(x, x̂) + λ2 D(x̂, x̆) + KL(q(z | x) ‖ N(0, I)),  x̂ = g(μ), x̆ = g(μ + σ ε), ε standard normal.

    RaDOGAGA's baseline, trained on the same two distortions. ``joint`` is the ordinary β-VAE, λ1 D(x, x̆) + KL, with
    β = 1/λ1. The KL is in nats for a whole code; D is the mean over pixels or features for one sample.

    Source: Higgins et al. 2017, "beta-VAE", and the code released with RaDOGAGA (Kato et al. 2020, arXiv 1910.04329).
    """

    title = "beta-vae: RaDOGAGA's variational baseline, KL to N(0, I) and the same two distortions"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        lambda1: Lambda1 = 1e5,
        lambda2: Lambda2 = 1e5,
        distortion: Distortion = "mse",
        distortion2: Distortion2 = "mse",
        joint: Annotated[bool, Flag("one distortion D(x, x̆): the ordinary β-VAE", switch=True)] = False,
    ):
        super().__init__(architecture, channels, latent_dim)
        self.lambda1, self.lambda2, self.joint = lambda1, lambda2, joint
        self.distortion = choose_distortion(distortion, architecture)
        self.distortion2 = choose_distortion(distortion2, architecture, "--distortion2")

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        decoded_noisy = self.decode(sample_gaussian(mean, logvar))
        if self.joint:
            reconstruction = self.distortion(decoded_noisy, x).mean()
            return {"loss": self.lambda1 * reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        decoded = self.decode(mean)
        reconstruction = self.distortion(decoded, x).mean()
        noise_effect = self.distortion2(decoded_noisy, decoded).mean()
        loss = self.lambda1 * reconstruction + self.lambda2 * noise_effect + kl
        return {"loss": loss, "reconstruction": reconstruction, "noise_effect": noise_effect, "kl": kl}


class BetaTCVAE(GaussianPosterior):
    """VAE that weights the total correlation of the code apart: dimensions of the code become independent.

    The KL term of a VAE, averaged over the training set, is the sum of three (equation 2): the mutual information of
    image and code, the total correlation KL(q(z) ‖ Π_j q(z_j)), and Σ_j KL(q(z_j) ‖ p(z_j)). The loss of an image is
    the binary cross-entropy summed over its pixels plus their sum with weights 1, β and 1, in nats (equation 4);
    β = 1 is the evidence lower bound.

    Source: Chen, Li, Grosse, Duvenaud 2018, "Isolating Sources of Disentanglement in Variational Autoencoders",
    arXiv 1802.04942.
    """

    title = "beta-tcvae (arXiv 1802.04942): VAE with a weight on the total correlation"
    bernoulli = True

    def __init__(self, architecture: str, channels: int, latent_dim: int, beta: Beta = 6.0):
        super().__init__(architecture, channels, latent_dim, nn.Sigmoid())
        self.beta = beta

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        z = sample_gaussian(mean, logvar)
        reconstruction = F.binary_cross_entropy_with_logits(self.dec.logits(z), x, reduction="none")
        reconstruction = reconstruction.flatten(1).sum(dim=1).mean()
        # (B, B, n): log q(z_j | x) of dimension j of code a, in row a, under the posterior of image b, in column b.
        log_q = log_gaussian(z[:, None], mean, logvar)
        weights = stratified_weights(len(x), self.train_size, z)
        log_joint = torch.logsumexp(log_q.sum(dim=2) + weights.log(), dim=1)  # log q(z)
        log_marginals = torch.logsumexp(log_q + weights.log()[:, :, None], dim=1).sum(dim=1)  # log Π_j q(z_j)
        mutual_information = (log_gaussian(z, mean, logvar).sum(dim=1) - log_joint).mean()
        total_correlation = (log_joint - log_marginals).mean()
        zero = torch.zeros_like(z)
        dimension_kl = (log_marginals - log_gaussian(z, zero, zero).sum(dim=1)).mean()
        return {
            "loss": reconstruction + mutual_information + self.beta * total_correlation + dimension_kl,
            "reconstruction": reconstruction,
            "mutual_information": mutual_information,
            "total_correlation": total_correlation,
            "dimension_kl": dimension_kl,
        }


def log_gaussian(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log N(z; mean, exp(logvar)) elementwise, shapes broadcast."""
    return -0.5 * ((z - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi))


def stratified_weights(num: int, train_size: int, like: Tensor) -> Tensor:
    """``(B, B)`` weights of minibatch stratified sampling: q(z_a) is estimated by Σ_b w_ab q(z_a | x_b).

    1/N for the image's own posterior, (N − M)/(N M) for one other, 1/M for the rest of the batch, M = B − 1: each row
    sums to 1 (appendix C.2 of arXiv 1802.04942; the released code puts the first two in columns 0 and 1 of every row).
    B = ``num``, N = ``train_size``, device and dtype are those of ``like``. Raises UserError where N is not known.
    """
    if train_size == 0:
        raise UserError("beta-tcvae needs the number of training samples: set model.train_size first")
    others = max(num - 1, 1)
    train_size = max(train_size, num)  # a validation batch can be larger than a small training set
    own = torch.eye(num, dtype=like.dtype, device=like.device)
    if num == 1:
        return own
    stratified = own.roll(1, dims=1)
    rest = 1 - own - stratified
    return own / train_size + stratified * (train_size - others) / (train_size * others) + rest / others
