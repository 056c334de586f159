"""The encoders and decoders that the models share, by name, so that results differ by the regulariser only.

``"shape"``, ``"mnist"``, ``"celeba"``: the networks of IRMAE. ``"conv-128"``, ``"wae-64"``, ``"gdn-64"``,
``"image-mlp-32"``: a family at an image size. ``"field-64"``: ``"conv-64"`` for fields of values of any range.
``"mlp:64-32"`` and ``"relu:64-32"``: for vectors, hidden layers of 64 and 32 with tanh or ReLU; for images of 48 pixels
``"image-relu:64-32-48"``.
"""

import re

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from models.networks import conv, gdn, mlp, wae_pytorch
from models.networks.base import Decoder
from utils.errors import UserError

PUBLISHED = {"shape": 32, "mnist": 32, "celeba": 64}  # and the size of their images
DIVISORS = {  # of the image size, in each family
    "conv": lambda size: 2 ** conv.halvings(size),
    "field": lambda size: 2 ** conv.halvings(size),
    "wae": lambda size: 2 ** conv.halvings(size),
    "wae-pytorch": lambda size: size if size == wae_pytorch.IMAGE_SIZE else size + 1,  # that size and no other
    "gdn": lambda size: 2**gdn.HALVINGS,
    "image-mlp": lambda size: 1,
}
INITS = {"pytorch": "the default of each layer", "kaiming": "He et al. 2015, of six times its variance"}
IMAGE_SIZES = range(32, 257)
VECTORS = re.compile(r"(mlp|relu):([1-9]\d*(?:-[1-9]\d*)*)")
IMAGE_VECTORS = re.compile("image-" + VECTORS.pattern)


def initialise_kaiming(networks: nn.Module) -> None:
    """N(0, 2 / fan-in) weights (He et al. 2015, arXiv 1502.01852, equation 10) and zero biases; else UserError."""
    for layer in networks.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if is_parametrized(layer):
                raise UserError("--init kaiming has no effect under --penalty sn, which divides weights by their norm")
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def any_range(architecture: str) -> bool:
    """Whether the networks are for vectors or fields, whose values may be any: an output function would limit them."""
    return VECTORS.fullmatch(architecture) is not None or architecture.startswith("field-")


def unit_output(architecture: str) -> nn.Module | None:
    """A sigmoid for images in [0, 1], None for values of any range."""
    return None if any_range(architecture) else nn.Sigmoid()


def split(architecture: str) -> tuple[str, int]:
    """``"wae-64"`` to ``("wae", 64)``. Raises UserError for an unknown name or a size that its layers do not divide."""
    if architecture in PUBLISHED:
        return architecture, PUBLISHED[architecture]
    family, _, digits = architecture.rpartition("-")
    kind = "image-mlp" if IMAGE_VECTORS.fullmatch(family) else family
    if kind not in DIVISORS or not digits.isdecimal():
        names = ", ".join([*PUBLISHED, *(f"{name}-S" for name in DIVISORS)])
        raise UserError(f"unknown architecture {architecture!r}: choose from {names} (S pixels) or mlp:64-32")
    sizes = [size for size in IMAGE_SIZES if size % DIVISORS[kind](size) == 0]
    if int(digits) not in sizes:
        choices = f"{sizes[0]} to {sizes[-1]}" if len(sizes) == len(IMAGE_SIZES) else ", ".join(map(str, sizes))
        raise UserError(
            f"{architecture}: the networks {family} take images of {choices} pixels, not {digits}: "
            "choose one of these with --image-size or, for a file, another --arch"
        )
    return family, int(digits)


def build_networks(
    architecture: str,
    channels: int,
    latent_dim: int,
    code_width: int | None = None,
    output: nn.Module | None = None,
    dropout: float = 0.0,
) -> tuple[nn.Module, Decoder]:
    """An encoder and its decoder.

    Args:
        channels: of the image, 1 or 3; the number of features of a vector.
        code_width: the encoder's output, n unless it also gives, for example, log-variances.
        output: the decoder's last function (default: tanh for images, none for vectors, fields and ``gdn``).
        dropout: probability with which a hidden unit of an ``image-mlp`` is dropped in training.
    """
    code_width = code_width or latent_dim
    if match := VECTORS.fullmatch(architecture):
        return mlp.networks(match[1], match[2], (channels,), code_width, latent_dim, output or nn.Identity())
    family, size = split(architecture)
    if match := IMAGE_VECTORS.fullmatch(family):
        shape = (channels, size, size)
        return mlp.networks(match[1], match[2], shape, code_width, latent_dim, output or nn.Tanh())
    if family == "image-mlp":
        return mlp.image_networks((channels, size, size), code_width, latent_dim, output or nn.Tanh(), dropout)
    if family == "gdn":
        return gdn.networks(size, channels, code_width, latent_dim, output or nn.Identity())
    if family == "wae-pytorch":
        return wae_pytorch.networks(channels, code_width, latent_dim, output or nn.Tanh())
    output = output or (nn.Identity() if family == "field" else nn.Tanh())
    layout = conv.layout(family, size)
    encoder = conv.ConvEncoder(layout, channels, code_width)  # first: the random draws are in this order
    return encoder, conv.conv_decoder(layout, channels, latent_dim, output)
