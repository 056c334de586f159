"""LoRAE: one linear layer after the encoder, whose nuclear norm is part of the loss.

Source: Mazumder, Baruah, Kumar, Sharma, Pattanaik, Rathore 2024, "Learning Low-Rank Latent Spaces with Simple
Deterministic Autoencoder: Theoretical and Empirical Insights" (WACV), arXiv 2310.16194, and its released code
(tirthajit/LoRAE_WACV24).
"""

from typing import Annotated

import torch
from torch import Tensor

from models.ae import IRMAE
from utils.flags import Flag, non_negative_float


class LoRAE(IRMAE):
    """Autoencoder with loss ``mean squared error + λ ‖M‖_*``, M the n x n matrix between encoder and decoder.

    The nuclear norm ‖M‖_* is the sum of M's singular values, a convex bound of its rank; its gradient is U Vᵀ of
    M = U S Vᵀ. The code is the output of M. λ = 1e-5 is the default of the released code.

    A singular value decomposition waits for the host, so on a CUDA device the steps run operation by operation, after
    a warning of the loop.
    """

    title = "LoRAE (arXiv 2310.16194): nuclear norm of a linear layer"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        nuclear_weight: Annotated[float, Flag("λ, weight of the nuclear norm", non_negative_float)] = 1e-5,
    ):
        super().__init__(architecture, channels, latent_dim, linear_layers=1)  # ``mlp``, as in the released code
        self.nuclear_weight = nuclear_weight

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        reconstruction = super().losses(x)["reconstruction"]
        nuclear = torch.linalg.matrix_norm(self.mlp.hidden[0].weight, "nuc")
        loss = reconstruction + self.nuclear_weight * nuclear
        return {"loss": loss, "reconstruction": reconstruction, "nuclear_norm": nuclear}
