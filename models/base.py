"""The contract of every model. A model is one file with a class, and one line in ``models.MODELS``."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from models.layers.entropy_bottleneck import EntropyBottleneck
from models.layers.mixture_estimator import MixtureEstimator
from models.layers.residual import append_residual
from models.networks import build_networks
from models.networks.base import full_precision
from utils.errors import UserError


class Autoencoder(nn.Module):
    """An encoder, a decoder and the loss that regularises the code between them.

    The training loop minimises ``losses(x)["loss"]`` with one optimiser over ``parameter_groups``; evaluation uses
    ``encode``, ``sample_codes``, ``decode`` and ``sample_prior``.

    Args:
        architecture: name of the networks, see ``models.networks``.
        channels: C, of the image; the number of features of a vector.
        latent_dim: n, the dimension of the code.
        code_width, output, dropout: see ``models.networks.build_networks``.

    Attributes:
        title: one line for ``--help``.
        default_arch: the networks that the model is published with, a key of ``models.ARCHS``.
        bernoulli: whether the decoder gives probabilities of pixels, so that x must be in [0, 1].
        num_classes: K, of a model that finds classes without labels.
        train_size: number of training samples; the trainer sets it before the first step.
        pz_scale: σ_z of a prior N(0, σ_z² I), where that is the model's.
    """

    title: str
    default_arch = "conv"
    bernoulli = False
    num_classes = 0
    train_size = 0
    pz_scale: float | None = None

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        code_width: int | None = None,
        output: nn.Module | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.enc, self.dec = build_networks(architecture, channels, latent_dim, code_width, output, dropout)

    @classmethod
    def default_latent_dim(cls, options: Mapping) -> int | None:
        """n from the values of the model's options, or None where any n will do."""
        return None

    @classmethod
    def has_distribution(cls, options: Mapping) -> bool:
        """Whether the code is a distribution, with these options: ``sample_codes`` then differs from ``encode``."""
        return cls.sample_codes is not Autoencoder.sample_codes

    def encode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] to codes ``(B, n)``. Deterministic: the mean of a posterior."""
        return full_precision(self.enc(x))

    def sample_codes(self, x: Tensor) -> Tensor:
        """A draw ``(B, n)`` from the posterior of each image; ``encode(x)`` where the code is no distribution."""
        return self.encode(x)

    def encoder_codes(self, x: Tensor) -> Tensor:
        """Codes ``(B, n)`` before linear layers that follow the encoder; ``encode(x)`` where there are none."""
        return self.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Codes ``(B, n)`` to images ``(B, C, H, W)``."""
        return self.dec(z)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Means over the batch: ``"loss"`` is minimised, ``"reconstruction"`` and the rest are reported."""
        raise NotImplementedError

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, n)`` codes from the model's own prior; the generator is on the CPU. Raises UserError without one."""
        if self.pz_scale is not None:
            return self.pz_scale * torch.randn(num, self.latent_dim, generator=generator).to(next(self.parameters()))
        raise UserError(
            f"{type(self).__name__} defines no prior to sample from: fit a density to its codes instead "
            "(generation.py --task mvg or --task gmm)"
        )

    def classify(self, x: Tensor) -> Tensor:
        """Probabilities ``(B, K)`` of classes found without labels. Raises UserError in a model that has none."""
        raise self._no_classes()

    def sample_classes(self, classes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Codes ``(B, n)``, each from the prior of its class in ``classes`` ``(B,)``."""
        raise self._no_classes()

    def class_centroids(self) -> Tensor:
        """``(K, n)``: the mean of each class's prior."""
        raise self._no_classes()

    def _no_classes(self) -> UserError:
        return UserError(f"{type(self).__name__} has no classes of its own: use a checkpoint of infocat-vae or catvae")

    def pretrain(self, draw: Callable[[int], Tensor], learning_rate: float) -> None:
        """Called once before the first epoch; ``draw(num)`` returns random training images ``(num, C, H, W)``."""

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Parameter groups for Adam. A model with several learning rates or momenta overrides this."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class DensityModel(Autoencoder):
    """A model whose prior is a density that can be evaluated: for outlier detection and density estimation.

    A subclass assigns ``prior``, the density of ``features``; the code is the first n of the features, and the only
    ones that reach the decoder.

    Attributes:
        residual: whether the features are the code, the relative reconstruction error and the cosine similarity of
            input and reconstruction, or the code alone.
    """

    prior: MixtureEstimator | EntropyBottleneck
    residual: bool

    def features(self, x: Tensor) -> Tensor:
        """``(B, n)``, with ``residual`` ``(B, n + 2)``: what the density is over."""
        z = self.encode(x)
        return append_residual(z, x, self.decode(z)) if self.residual else z

    def energy(self, x: Tensor) -> Tensor:
        """−log of the density of the features of ``x``, ``(B,)`` in nats: high where x is unlike the training data."""
        return self.prior.energy(self.features(x))

    def fit_prior(self, batches: Iterable[Tensor], em: bool = False, seed: int = 0) -> None:
        """Fix a mixture to that of a whole training set instead of the running averages; leaves evaluation mode on.

        With ``em`` by expectation-maximisation on the features instead of by the estimation network. A factorised
        prior is trained with the codes and needs none of this.
        """
        if isinstance(self.prior, MixtureEstimator):
            self.eval()
            features = (self.features(x) for x in batches)
            if em:
                self.prior.fit_em(features, seed)
            else:
                self.prior.fit(features)

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        # Leaving out coordinates of a mixture is marginalising over them.
        draws = self.prior.sample(num, generator)[:, : self.latent_dim]
        return draws.to(next(self.parameters()).dtype)


def sample_gaussian(mean: Tensor, logvar: Tensor) -> Tensor:
    """A draw of N(mean, exp(logvar)), differentiable in both; any shape."""
    return mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
