"""Wasserstein autoencoders: a penalty brings the distribution of all codes, not of each, to a Gaussian prior.

Source: Tolstikhin, Bousquet, Gelly, Schölkopf 2018, "Wasserstein Auto-Encoders", arXiv 1711.01558; released code.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.base import Autoencoder, sample_gaussian
from models.layers.mmd import mmd
from models.networks import unit_output
from models.networks.base import full_precision
from models.networks.mlp import fully_connected
from utils.errors import UserError
from utils.flags import Flag, natural, non_negative_float, positive_float

BETAS = (0.5, 0.999)  # of Adam, as in the released code
INPUT_NOISE = 0.01  # standard deviation of --noise add_noise
PRETRAIN_BATCH = 256  # images that a covariance of the code is estimated from
OFFSET_FACTORS = ("learned", "fixed")
DISCRIMINATOR_WIDTHS = (512, 512, 512, 512)


class WAE(Autoencoder):
    """Encoder, decoder and prior N(0, σ_z² I) of both kinds of WAE; a subclass adds the penalty and its weight λ.

    The loss is ``s Σ (x − x̂)² + λ · penalty``, the squared error summed over the pixels of an image (section 4: c is
    the squared distance). ``"reconstruction"`` is the mean over the pixels, which compares with every other model.

    With the noise "gaussian" the encoder gives mean and log-variance and the code is drawn; with "add_noise"
    N(0, 0.01²) is added to the images in training. The released code has s = 0.05 for images in [0, 1] and in
    [-1, 1]; the latter correspond to 0.2 here, where all images are in [0, 1].
    """

    penalty_weight: float  # λ
    pz_scale: float

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        pz_scale: Annotated[float, Flag("σ_z, standard deviation of the prior", positive_float)] = 1.0,
        noise: Annotated[str, Flag("drawn codes, or noisy images", choices=("none", "gaussian", "add_noise"))] = "none",
        cost_scale: Annotated[float, Flag("s, factor on the squared error summed over pixels", positive_float)] = 0.05,
        e_pretrain: Annotated[int, Flag("steps that fit mean and covariance of the code to the prior", natural)] = 0,
    ):
        code_width = 2 * latent_dim if noise == "gaussian" else latent_dim
        super().__init__(architecture, channels, latent_dim, code_width, unit_output(architecture))
        self.pz_scale, self.noise, self.cost_scale, self.e_pretrain = pz_scale, noise, cost_scale, e_pretrain

    def encode(self, x: Tensor) -> Tensor:
        return full_precision(self.enc(x))[:, : self.latent_dim]

    @classmethod
    def has_distribution(cls, options: Mapping) -> bool:
        return options["noise"] == "gaussian"

    def sample_codes(self, x: Tensor) -> Tensor:
        """Codes ``(B, n)`` with the noise that ``noise`` names; "add_noise" only in training mode."""
        if self.noise == "gaussian":
            mean, logvar = full_precision(self.enc(x)).chunk(2, dim=1)
            return sample_gaussian(mean, logvar.clamp(-50, 50))
        if self.noise == "add_noise" and self.training:
            x = x + INPUT_NOISE * torch.randn_like(x)
        return self.encode(x)

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A distance of the codes ``(B, n)`` from the draws ``(B, n)`` of the prior, and further terms to minimise."""
        raise NotImplementedError

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.sample_codes(x)
        prior = self.pz_scale * torch.randn_like(z)
        reconstruction = F.mse_loss(self.decode(z), x)
        penalty, further = self.penalty(z, prior)
        cost = self.cost_scale * x[0].numel() * reconstruction
        loss = cost + self.penalty_weight * penalty + sum(further.values())
        return {"loss": loss, "reconstruction": reconstruction, "penalty": penalty, **further}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        return [{"params": [*self.enc.parameters(), *self.dec.parameters()], "lr": learning_rate, "betas": BETAS}]

    def pretrain(self, draw: Callable[[int], Tensor], learning_rate: float) -> None:
        """Match the codes' mean and covariance to the prior's; trains the encoder only.

        The released code stops where an error averaged over n² entries is below 0.1, which a code of 64 dimensions
        has before the first step; here all steps are taken. The prior's moments are exact instead of a sample's.
        """
        optimizer = torch.optim.Adam(self.enc.parameters(), lr=learning_rate, betas=BETAS)
        self.train()
        for _ in range(self.e_pretrain):
            optimizer.zero_grad()
            z = self.sample_codes(draw(PRETRAIN_BATCH))
            covariance = z.T.cov().reshape(self.latent_dim, self.latent_dim)
            prior = self.pz_scale**2 * torch.eye(self.latent_dim, device=z.device, dtype=z.dtype)
            # Squared distances to the prior's mean and covariance, 0 and σ_z² I.
            (z.mean(dim=0).square().sum() + (covariance - prior).square().sum()).backward()
            optimizer.step()
        optimizer.zero_grad()


class WAEMMD(WAE):
    """WAE whose penalty is the maximum mean discrepancy between codes and prior (algorithm 2)."""

    title = "WAE-MMD (arXiv 1711.01558): maximum mean discrepancy between codes and prior"

    def __init__(
        self,
        *args,
        mmd_weight: Annotated[float, Flag("λ, weight of the discrepancy", non_negative_float)] = 10.0,
        kernel: Annotated[str, Flag("inverse multiquadratics or Gaussian", choices=("imq", "rbf"))] = "imq",
        **options,
    ):
        super().__init__(*args, **options)
        self.penalty_weight, self.kernel = mmd_weight, kernel

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return mmd(z, prior, self.kernel, self.pz_scale), {}


class WAEGAN(WAE):
    """WAE whose penalty is a discriminator that tells codes from draws of the prior (algorithm 1).

    One backward pass trains both: the encoder's term sees the discriminator's parameters as constants, the
    discriminator's term sees the codes as constants. The encoder's term is the one that does not saturate, −log D(z).
    With ``prior_offset`` log p(z) is added to the discriminator's output, which then only has to learn the density of
    the codes. Where that is the prior's, its ideal logit is 0, and of log p(z) nothing is left: ReLU layers must learn
    to take ``½|z|²/σ_z²`` away, which in 64 dimensions they have not after thousands of steps. A learned factor on
    log p(z) is there from the start.
    """

    title = "WAE-GAN (arXiv 1711.01558): a discriminator tells codes from draws of the prior"

    def __init__(
        self,
        *args,
        gan_weight: Annotated[float, Flag("λ, weight of the encoder's term", non_negative_float)] = 10.0,
        adversary_lr: Annotated[float, Flag("learning rate of the discriminator", positive_float)] = 5e-4,
        prior_offset: Annotated[bool, Flag("add log p(z) to the discriminator's output", switch=True)] = False,
        offset_factor: Annotated[
            str, Flag("factor on that log p(z): learned, from 0, or fixed at 1 as released", choices=OFFSET_FACTORS)
        ] = "learned",
        **options,
    ):
        super().__init__(*args, **options)
        if offset_factor == "fixed" and not prior_offset:
            raise UserError("--offset-factor fixed: there is no log p(z) to multiply without --prior-offset")
        self.penalty_weight, self.prior_offset, self.adversary_lr = gan_weight, prior_offset, adversary_lr
        # The discriminator; checkpoints, metrics and the flag have had the name "adversary" from the beginning.
        self.adversary = fully_connected((self.latent_dim, *DISCRIMINATOR_WIDTHS, 1), nn.ReLU)
        if prior_offset and offset_factor == "learned":
            self.adversary.register_parameter("offset_factor", nn.Parameter(torch.zeros(())))
        elif prior_offset:
            # The mean of log p(z) over the prior is −90.8 for n = 64: without this bias the discriminator would have to
            # learn it before anything else.
            with torch.no_grad():
                self.adversary[-1].get_parameter("bias").sub_(self.mean_log_density())

    def mean_log_density(self) -> float:
        """Of log p(z) over the prior, in nats: minus its entropy, n/2 log(2πe σ_z²)."""
        return -0.5 * self.latent_dim * math.log(2 * math.pi * math.e * self.pz_scale**2)

    def logits(self, z: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """The discriminator's log-odds that ``z`` ``(B, n)`` comes from the prior, ``(B,)``."""
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would round a logit of 90 to halves
            logits = functional_call(self.adversary, dict(parameters), (z,)).squeeze(1)
        if self.prior_offset:
            # log p(z) minus its mean; written out, for torch.distributions looks at its arguments on the host.
            offset = 0.5 * (self.latent_dim - (z / self.pz_scale).square().sum(dim=1))
            factor = parameters.get("offset_factor")
            # Fixed, it is log p(z) itself, and the bias starts at minus the mean, as in saved discriminators.
            logits = logits + (offset + self.mean_log_density() if factor is None else factor * offset)
        return logits

    def penalty(self, z: Tensor, prior: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        learned = dict(self.adversary.named_parameters())
        penalty = F.softplus(-self.logits(z, {name: p.detach() for name, p in learned.items()})).mean()
        of_prior, of_codes = self.logits(prior, learned), self.logits(z.detach(), learned)
        return penalty, {"adversary": F.softplus(-of_prior).mean() + F.softplus(of_codes).mean()}

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        group = {"params": list(self.adversary.parameters()), "lr": self.adversary_lr, "betas": BETAS}
        return [*super().parameter_groups(learning_rate), group]
