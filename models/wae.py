"""Wasserstein autoencoders: the distribution of all codes, not of each, is held to a Gaussian prior.

Source: Tolstikhin, Bousquet, Gelly, Schölkopf 2018, "Wasserstein Auto-Encoders", arXiv 1711.01558, and its released
code.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.base import Autoencoder, full_precision
from models.layers.mmd import mmd
from models.networks.conv import build_networks, fully_connected

BETAS = (0.5, 0.999)  # of Adam, as in the released code
INPUT_NOISE = 0.01  # standard deviation of --noise add_noise
PRETRAIN_BATCH = 256  # images that a covariance of the code is estimated from
ADVERSARY_WIDTHS = (512, 512, 512, 512)


class WAE(Autoencoder):
    """Encoder, decoder and prior N(0, σ_z² I) that the two kinds of WAE share; a subclass adds the penalty.

    The loss is ``s Σ (x − x̂)² + λ · penalty``, the squared error summed over the pixels of an image: λ is meant beside
    that cost (section 4: c is the squared distance). Reported as ``"reconstruction"`` is the mean over the pixels,
    which compares with every other model.

    Args:
        architecture, channels, latent_dim: see ``models.networks.build_networks``.
        penalty_weight: λ.
        pz_scale: σ_z, standard deviation of the prior.
        noise: "none"; "gaussian", the encoder gives mean and log-variance and the code is drawn; "add_noise",
            N(0, 0.01²) is added to the images while training.
        cost_scale: s. The released code has 0.05 for images in [0, 1] and for images in [-1, 1]; on those, in our
            [0, 1], that is 0.2.
        e_pretrain: steps of encoder pre-training, 0 for none.
    """

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        penalty_weight: float,
        pz_scale: float,
        noise: str,
        cost_scale: float,
        e_pretrain: int,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.penalty_weight, self.pz_scale, self.noise = penalty_weight, pz_scale, noise
        self.cost_scale, self.e_pretrain = cost_scale, e_pretrain
        code_width = 2 * latent_dim if noise == "gaussian" else latent_dim
        self.enc, self.dec = build_networks(architecture, channels, latent_dim, code_width, nn.Sigmoid())

    def encode(self, x: Tensor) -> Tensor:
        return full_precision(self.enc(x))[:, : self.latent_dim]

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)

    def draw_codes(self, x: Tensor) -> Tensor:
        """Codes ``(B, n)`` as they are trained on, with the noise that ``noise`` names."""
        if self.noise == "gaussian":
            mean, logvar = full_precision(self.enc(x)).chunk(2, dim=1)
            return mean + torch.randn_like(mean) * torch.exp(0.5 * logvar.clamp(-50, 50))
        if self.noise == "add_noise" and self.training:
            x = x + INPUT_NOISE * torch.randn_like(x)
        return self.encode(x)

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far the codes ``(B, n)`` are from the draws ``(B, n)`` of the prior, and further terms to minimise."""
        raise NotImplementedError

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.draw_codes(x)
        prior = self.pz_scale * torch.randn_like(z)
        reconstruction = F.mse_loss(self.decode(z), x)
        penalty, further = self.penalty(z, prior)
        cost = self.cost_scale * x[0].numel() * reconstruction
        loss = cost + self.penalty_weight * penalty + sum(further.values())
        return {"loss": loss, "reconstruction": reconstruction, "penalty": penalty, **further}

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        parameter = next(self.parameters())
        return self.pz_scale * torch.randn(num, self.latent_dim, generator=generator).to(parameter)

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        parameters = [*self.enc.parameters(), *self.dec.parameters()]
        return [{"params": parameters, "lr": learning_rate, "betas": BETAS}]

    def moment_distance(self, z: Tensor) -> Tensor:
        """Squared distances of the codes' mean and covariance to the prior's, 0 and σ_z² I, summed."""
        covariance = z.T.cov().reshape(self.latent_dim, self.latent_dim)
        prior = self.pz_scale**2 * torch.eye(self.latent_dim, device=z.device, dtype=z.dtype)
        return z.mean(dim=0).square().sum() + (covariance - prior).square().sum()

    def pretrain(self, draw: Callable[[int], Tensor], learning_rate: float) -> None:
        """Match the codes' mean and covariance to the prior's before the training, the encoder alone.

        The released code stops below 0.1 of an error averaged over n² entries, which a 64-dimensional code meets
        before the first step; here all steps are taken, and the prior's moments are exact instead of a sample's.
        """
        optimizer = torch.optim.Adam(self.enc.parameters(), lr=learning_rate, betas=BETAS)
        self.train()
        for _ in range(self.e_pretrain):
            optimizer.zero_grad(set_to_none=True)
            self.moment_distance(self.draw_codes(draw(PRETRAIN_BATCH))).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class WAEMMD(WAE):
    """WAE whose penalty is the maximum mean discrepancy between codes and prior (algorithm 2)."""

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        mmd_weight: float = 10.0,
        kernel: str = "imq",
        pz_scale: float = 1.0,
        noise: str = "none",
        cost_scale: float = 0.05,
        e_pretrain: int = 0,
    ):
        super().__init__(architecture, channels, latent_dim, mmd_weight, pz_scale, noise, cost_scale, e_pretrain)
        self.kernel = kernel

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mmd(z, prior, self.kernel, self.pz_scale), {}


class WAEGAN(WAE):
    """WAE whose penalty is an adversary that tells codes from draws of the prior (algorithm 1).

    One backward pass trains both: the encoder's term sees the adversary's parameters as constants, the adversary's
    term sees the codes as constants. The encoder's term is the one that does not saturate, −log D(z).

    Args:
        gan_weight: λ.
        adversary_lr: learning rate of the adversary.
        prior_offset: add log p(z) to the adversary's output, which then only has to learn the density of the codes.
    """

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        gan_weight: float = 10.0,
        adversary_lr: float = 5e-4,
        prior_offset: bool = False,
        pz_scale: float = 1.0,
        noise: str = "none",
        cost_scale: float = 0.05,
        e_pretrain: int = 0,
    ):
        super().__init__(architecture, channels, latent_dim, gan_weight, pz_scale, noise, cost_scale, e_pretrain)
        self.adversary_lr = adversary_lr
        self.prior_offset = prior_offset
        self.adversary = fully_connected((latent_dim, *ADVERSARY_WIDTHS, 1), nn.ReLU)

    def logits(self, z: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """The adversary's log-odds that ``z`` ``(B, n)`` comes from the prior, ``(B,)``."""
        logits = full_precision(functional_call(self.adversary, parameters, (z,))).squeeze(1)
        if self.prior_offset:
            # log p(z) of N(0, σ_z² I); written out, for torch.distributions looks at its arguments on the host.
            quadratic = (z / self.pz_scale).square().sum(dim=1)
            logits = logits - 0.5 * quadratic - self.latent_dim * math.log(self.pz_scale * math.sqrt(2 * math.pi))
        return logits

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        learned = dict(self.adversary.named_parameters())
        constant = {name: parameter.detach() for name, parameter in learned.items()}
        penalty = F.softplus(-self.logits(z, constant)).mean()
        of_prior, of_codes = self.logits(prior, learned), self.logits(z.detach(), learned)
        return penalty, {"adversary": F.softplus(-of_prior).mean() + F.softplus(of_codes).mean()}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        adversary = {"params": list(self.adversary.parameters()), "lr": self.adversary_lr, "betas": BETAS}
        return [*super().parameter_groups(learning_rate), adversary]
