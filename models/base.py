"""The contract that every model keeps, so that no script ever asks which model it holds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.errors import UserError


class Autoencoder(nn.Module):
    """An encoder, a decoder and the loss that regularises the code between them.

    The training loop minimises ``losses(x)["loss"]`` with one optimiser over ``parameter_groups``; the
    evaluation scripts use ``encode``, ``decode`` and ``sample_prior`` and nothing else.
    """

    latent_dim: int
    num_classes: int = 0  # of a model that finds classes by itself

    def encode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] to codes ``(B, n)``. Deterministic: the mean of a posterior."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Codes ``(B, n)`` to images ``(B, C, H, W)``."""
        raise NotImplementedError

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Scalars of the batch ``x``: ``"loss"`` is minimised, ``"reconstruction"`` and the rest are reported.

        Every value is a mean over the batch, so that batches can be averaged by their size.
        """
        raise NotImplementedError

    def sample_prior(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``(num, n)`` codes from the model's own prior.

        Raises:
            UserError: the model defines no prior; its codes can be sampled by fitting a density to them.
        """
        raise UserError(
            f"{type(self).__name__} defines no prior to sample from: fit a density to its codes instead "
            "(generation.py --task mvg or --task gmm)"
        )

    def classify(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to probabilities ``(B, num_classes)`` of classes found without labels.

        Raises:
            UserError: the model has no classes.
        """
        raise self._no_classes()

    def sample_classes(self, classes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Codes ``(B, n)``, each from the prior of its class in ``classes`` ``(B,)``. Raises like ``classify``."""
        raise self._no_classes()

    def class_centroids(self) -> Tensor:
        """``(num_classes, n)``: the mean of each class's prior. Raises like ``classify``."""
        raise self._no_classes()

    def _no_classes(self) -> UserError:
        return UserError(f"{type(self).__name__} has no classes of its own: use a checkpoint of infocat-vae or catvae")

    def pretrain(self, draw: Callable[[int], Tensor], learning_rate: float) -> None:
        """What a model does once before its first epoch: nothing, unless it overrides this.

        Args:
            draw: gives so many random training images ``(num, C, H, W)``.
            learning_rate: of the training that follows.
        """

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Parameter groups for Adam. A model with several rates or momenta overrides this."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def full_precision(tensor: Tensor) -> Tensor:
    """Half-precision output of autocast as float32; float32 and float64 pass unchanged.

    Losses and codes are always computed in at least float32: an error of 1/256 in a pixel or a code would
    swamp the small singular values that this repository is about.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
