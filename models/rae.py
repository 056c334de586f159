"""The regularised deterministic autoencoder: a small code and a smooth decoder instead of noise.

Source: Ghosh, Sajjadi, Vergari, Black, Schölkopf 2020, "From Variational to Deterministic Autoencoders",
arXiv 1903.12436, and its released code. New images are drawn from a density that is fitted to the codes afterwards
(``generation.py --task gmm``).
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.base import Autoencoder
from models.networks import unit_output
from utils.errors import UserError
from utils.flags import Flag, non_negative_float

WEIGHTED = ("penalty", "l2", "gp")  # a term of the loss, as "sn" is none
L2_LAYERS, SN_LAYERS = ("convolutions", "layers", "all"), ("released", "decoder")
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class RAE(Autoencoder):
    """Autoencoder with loss ``reconstruction + β · mean(z²) + λ · penalty of the decoder``.

    Means are over batch and dimensions, as in the released code, whose weights these are: β = 1e-4 and λ = 1e-7 on
    MNIST (spectral norm: β = 0.009, no λ).

    The penalty "l2" is the sum of the decoder's squared weights; "gp" the squared gradient of ``Σ x̂²`` by the code,
    averaged over its dimensions; with "sn" every layer has spectral norm 1.

    Args:
        l2_layers: the released script for MNIST leaves out the decoder's linear layer, which is most of the sum, that
            for CelebA does not. "all" adds the scales of batch normalisation, as earlier versions did.
        sn_layers: "released" is the encoder and the decoder, a transposed convolution's weights as the matrix that
            Keras has, a row for each input; "decoder" is that alone, a row for each output.
    """

    title = "RAE (arXiv 1903.12436): a small code and a smooth decoder"

    def __init__(
        self,
        architecture: str,
        channels: int,
        latent_dim: int,
        penalty: Annotated[
            str, Flag("decoder's weights, gradient, or spectral norm", choices=("l2", "gp", "sn"))
        ] = "l2",
        embedding_weight: Annotated[float, Flag("β, weight of the code's square", non_negative_float)] = 1e-4,
        penalty_weight: Annotated[float, Flag("λ, weight of the penalty", non_negative_float, needs=WEIGHTED)] = 1e-7,
        l2_layers: Annotated[str, Flag("whose weights l2 has", choices=L2_LAYERS, needs=("penalty", "l2"))] = "layers",
        sn_layers: Annotated[str, Flag("which layers sn has", choices=SN_LAYERS, needs=("penalty", "sn"))] = "released",
    ):
        super().__init__(architecture, channels, latent_dim, output=unit_output(architecture))
        self.penalty, self.embedding_weight, self.penalty_weight = penalty, embedding_weight, penalty_weight
        self.penalized: tuple[type[nn.Module], ...] = {
            "convolutions": (nn.ConvTranspose2d,),
            "layers": LAYERS,
            "all": (nn.Module,),
        }[l2_layers]
        if penalty == "l2" and not any(isinstance(layer, self.penalized) for layer in self.dec.modules()):
            raise UserError(f"--l2-layers {l2_layers}: the networks {architecture} have none: use --l2-layers layers")
        if penalty == "sn":
            for layer in list((self if sn_layers == "released" else self.dec).modules()):
                if isinstance(layer, LAYERS):
                    spectral_norm(layer, dim=0 if sn_layers == "released" else None)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        z = self.encode(x)
        if self.penalty != "gp":
            output = self.decode(z)
        else:
            with torch.enable_grad():  # the penalty is made of gradients, in an evaluation too
                z = z if z.requires_grad else z.requires_grad_()
                output = self.decode(z)
                # create_graph: its own gradient, by a second backward pass, is exact.
                (gradient,) = torch.autograd.grad(output.square().sum(), z, create_graph=self.training)
        reconstruction = F.mse_loss(output, x)
        embedding = z.square().mean()
        losses = {"reconstruction": reconstruction, "embedding": embedding}
        loss = reconstruction + self.embedding_weight * embedding
        if self.penalty == "l2":
            layers = [layer for layer in self.dec.modules() if isinstance(layer, self.penalized)]
            weights = [p for layer in layers for name, p in layer.named_parameters(recurse=False) if name == "weight"]
            losses["penalty"] = torch.stack([weight.square().sum() for weight in weights]).sum()
        elif self.penalty == "gp":
            losses["penalty"] = gradient.square().mean()
        if "penalty" in losses:
            loss = loss + self.penalty_weight * losses["penalty"]
        return {"loss": loss, **losses}
