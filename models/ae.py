"""The plain autoencoder, and IRMAE: linear layers after the encoder that minimise the rank of the code.

Source: Jing, Zbontar, LeCun 2020, "Implicit Rank-Minimizing Autoencoder", arXiv 2010.00679.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Autoencoder
from models.networks.base import full_precision
from utils.errors import UserError
from utils.flags import Flag, natural, positive_float


class AE(Autoencoder):
    """Autoencoder whose loss is the mean squared error: the baseline (``-l 0``)."""

    title = "AE: no regulariser"

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        reconstruction = F.mse_loss(self.decode(self.encode(x)), x)
        return {"loss": reconstruction, "reconstruction": reconstruction}


class LinearStack(nn.Module):
    """l square linear layers without bias, ``(B, n)`` to ``(B, n)`` (IRMAE, section 3).

    The product of the layers is one matrix, so the stack adds nothing to what the network can express; gradient
    descent on the factors is what drives the code to low rank. In evaluation without gradients the product itself is
    used: one multiplication instead of l. ``init_variance``: supplement, table 3 (1, 2, 4 times PyTorch's default).
    """

    def __init__(self, latent_dim: int, layers: int, init_variance: float = 1.0):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(latent_dim, latent_dim, bias=False) for _ in range(layers))
        with torch.no_grad():
            for layer in self.hidden:
                layer.weight *= init_variance**0.5
        self._folded: tuple[list, Tensor] | None = None

    def folded(self) -> Tensor:
        """``W_l ... W_1`` as one ``(n, n)`` matrix, multiplied in float64.

        Cached until the weights can have changed: by an optimiser, which needs a forward pass with gradients first, or
        by an in-place update such as a loaded state, which raises the version counter (fused optimisers do not).
        """
        weights = list(self.parameters())
        state = [(weight.data_ptr(), weight._version, weight.dtype) for weight in weights]
        if self._folded is None or self._folded[0] != state:
            with torch.no_grad():
                product = weights[0].double()
                for weight in weights[1:]:
                    product = weight.double() @ product
            self._folded = state, product.to(weights[0].dtype)
        return self._folded[1]

    def forward(self, z: Tensor) -> Tensor:
        if not self.training and not torch.is_grad_enabled():
            return F.linear(z, self.folded())
        self._folded = None
        for layer in self.hidden:
            z = layer(z)
        return z


class IRMAE(AE):
    """Autoencoder with l ≥ 1 linear layers between encoder and decoder; the code is the output of the last of them."""

    title = "IRMAE (arXiv 2010.00679): implicit rank minimisation"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        linear_layers: Annotated[int, Flag("l, linear layers after the encoder; 0: plain AE", natural, short="-l")] = 8,
        init_variance: Annotated[float, Flag("factor on the linear layers' initial variance", positive_float)] = 1.0,
    ):
        if linear_layers < 1:
            raise UserError(f"IRMAE needs at least 1 linear layer, not {linear_layers}: use the model ae for none")
        super().__init__(architecture, channels, latent_dim)
        self.mlp = LinearStack(latent_dim, linear_layers, init_variance)

    def encode(self, x: Tensor) -> Tensor:
        return full_precision(self.mlp(self.enc(x)))

    def encoder_codes(self, x: Tensor) -> Tensor:
        return full_precision(self.enc(x))
