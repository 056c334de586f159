"""The contract that every model keeps, so that no script ever asks which model it holds."""

import torch
from torch import Tensor, nn

from utils.errors import UserError


class Autoencoder(nn.Module):
    """An encoder, a decoder and the loss that regularises the code between them.

    The training loop minimises ``losses(x)["loss"]`` with one optimiser over ``parameter_groups``; the
    evaluation scripts use ``encode``, ``decode`` and ``sample_prior`` and nothing else.
    """

    latent_dim: int

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
