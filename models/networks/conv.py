"""The encoders and decoders that all models share, so that results differ by the regulariser alone.

Source: IRMAE (Jing, Zbontar, LeCun 2020, arXiv 2010.00679), supplement table 1 and the released code. Where they
disagree the released code is followed (docs/faithfulness.md). Parameter names (``enc.dcnn.0.weight``, ``dec.fc.bias``,
...) are those of the released code, so that its checkpoints load as they are.
"""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from models.base import full_precision
from models.layers.convolutions import Conv2d, ConvTranspose2d
from models.layers.gdn import GDNDecoder, GDNEncoder
from utils.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """Widths of one encoder-decoder pair. Convolutions are 4x4, stride 2, padding 1, each followed by ReLU.

    The networks called wae are those of WAE's released code (arXiv 1711.01558): DCGAN with batch normalisation.

    Attributes:
        image_size: height and width of the images, pixels.
        encoder_widths: channels after each convolution of the encoder.
        decoder_widths: channels of the decoder's first feature map and after each of its convolutions.
        convolutional_code: the code is a 1x1 feature map, reached by a 2x2 convolution instead of a linear layer.
        relu_after_fc: a ReLU follows the decoder's linear layer.
        kernel: size of the convolutions, 4 or 5.
        batch_norm: each convolution but the decoder's last is followed by a batch normalisation.
        last_kernel: size of the decoder's last convolution, which has stride 1; odd.
    """

    image_size: int
    encoder_widths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    convolutional_code: bool = False
    relu_after_fc: bool = False
    kernel: int = 4
    batch_norm: bool = False
    last_kernel: int = 1

    def normalisation(self, width: int) -> list[nn.Module]:
        """What stands between a convolution and its ReLU."""
        return [nn.BatchNorm2d(width)] if self.batch_norm else []


@dataclass(frozen=True)
class ImageMLP:
    """An encoder and a decoder of one hidden layer each, on the pixels (InfoCatVAE, arXiv 1806.08240)."""

    image_size: int
    hidden_width: int = 400


@dataclass(frozen=True)
class GDNLayout:
    """Convolutions with generalised divisive normalisation (RaDOGAGA, arXiv 1910.04329, section 5.1)."""

    image_size: int


ARCHITECTURES = {
    "shape": Architecture(32, (32, 64, 128, 256), (256, 128, 64, 32), convolutional_code=True),
    "mnist": Architecture(32, (32, 64, 128, 256), (128, 64, 32), relu_after_fc=True),
    "celeba": Architecture(64, (128, 256, 512, 1024), (1024, 512, 256, 128)),
    "wae-64": Architecture(
        64, (128, 256, 512, 1024), (1024, 512, 256, 128), relu_after_fc=True, kernel=5, batch_norm=True, last_kernel=5
    ),
    # Of MNIST; the last kernel there is 4x4, which has no symmetric padding.
    "wae-32": Architecture(
        32, (128, 256, 512, 1024), (1024, 512, 256), relu_after_fc=True, batch_norm=True, last_kernel=3
    ),
    "image-mlp-32": ImageMLP(32),
    "image-mlp-64": ImageMLP(64),
    "gdn-32": GDNLayout(32),
    "gdn-64": GDNLayout(64),
}

DECODER_SEED_SIZE = 8  # height and width of the feature map that the decoder's linear layer makes


class Encoder(nn.Module):
    """Images ``(B, channels, S, S)`` to ``(B, code_width)``."""

    def __init__(self, architecture: Architecture, channels: int, code_width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *architecture.encoder_widths)):
            convolution = Conv2d(inputs, outputs, architecture.kernel, stride=2, padding=(architecture.kernel - 1) // 2)
            layers += [convolution, *architecture.normalisation(outputs), nn.ReLU(inplace=True)]
        last_width = architecture.encoder_widths[-1]
        last_size = architecture.image_size // 2 ** len(architecture.encoder_widths)
        if architecture.convolutional_code:
            layers.append(Conv2d(last_width, code_width, last_size))
            self.fc = None
        else:
            self.fc = nn.Linear(last_width * last_size**2, code_width)
        self.dcnn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features = self.dcnn(x).flatten(1)
        return features if self.fc is None else self.fc(features)


class Decoder(nn.Module):
    """Codes ``(B, n)`` to images ``(B, channels, S, S)``, in [-1, 1] (tanh) or [0, 1] (sigmoid)."""

    def __init__(self, architecture: Architecture, channels: int, latent_dim: int, output: nn.Module):
        super().__init__()
        widths = architecture.decoder_widths
        layers: list[nn.Module] = []
        if architecture.convolutional_code:
            self.fc = None
            layers += [ConvTranspose2d(latent_dim, widths[0], 2), nn.ReLU(inplace=True)]
        else:
            self.fc = nn.Linear(latent_dim, widths[0] * DECODER_SEED_SIZE**2)
            if architecture.relu_after_fc:
                layers.append(nn.ReLU())  # not in place: the feature map is a view, whose gradient would be copied
        for inputs, outputs in pairwise(widths):
            kernel = architecture.kernel
            # An odd kernel fits two input sizes; the output padding chooses the one that doubles.
            convolution = ConvTranspose2d(
                inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2, output_padding=kernel % 2
            )
            layers += [convolution, *architecture.normalisation(outputs), nn.ReLU(inplace=True)]
        if architecture.convolutional_code:
            layers.append(ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1))
        else:
            last = architecture.last_kernel
            layers.append(ConvTranspose2d(widths[-1], channels, last, padding=last // 2))
        self.dcnn = nn.Sequential(*layers, output)

    def logits(self, z: Tensor) -> Tensor:
        """The image before the output function, at least float32: what a cross-entropy is computed from."""
        if self.fc is None:
            features = z[:, :, None, None]
        else:
            features = self.fc(z).unflatten(1, (-1, DECODER_SEED_SIZE, DECODER_SEED_SIZE))
        for layer in list(self.dcnn)[:-1]:
            features = layer(features)
        return full_precision(features)

    def forward(self, z: Tensor) -> Tensor:
        return self.dcnn[-1](self.logits(z))


class VectorEncoder(nn.Module):
    """Vectors ``(B, features)`` to ``(B, code_width)``: linear layers with tanh between them."""

    def __init__(self, hidden_widths: tuple[int, ...], features: int, code_width: int):
        super().__init__()
        self.layers = fully_connected((features, *hidden_widths, code_width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class VectorDecoder(nn.Module):
    """Codes ``(B, n)`` to vectors ``(B, features)``: the encoder's widths in reverse."""

    def __init__(self, hidden_widths: tuple[int, ...], features: int, latent_dim: int, output: nn.Module):
        super().__init__()
        self.layers = fully_connected((latent_dim, *reversed(hidden_widths), features))
        self.output = output

    def logits(self, z: Tensor) -> Tensor:
        """The vector before the output function, at least float32."""
        return full_precision(self.layers(z))

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.logits(z))


class ImageMLPEncoder(nn.Module):
    """Images ``(B, C, S, S)``, given as the triple ``pixels``, to ``(B, code_width)`` through one hidden layer."""

    def __init__(self, pixels: tuple[int, int, int], hidden_width: int, code_width: int, dropout: float):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(math.prod(pixels), hidden_width), nn.Dropout(dropout), nn.ReLU())
        self.fc = nn.Linear(hidden_width, code_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x.flatten(1)))


class ImageMLPDecoder(nn.Module):
    """Codes ``(B, n)`` to images ``(B, C, S, S)`` through one hidden layer."""

    def __init__(
        self, pixels: tuple[int, int, int], hidden_width: int, latent_dim: int, output: nn.Module, dropout: float
    ):
        super().__init__()
        self.pixels = pixels
        self.hidden = nn.Sequential(nn.Linear(latent_dim, hidden_width), nn.Dropout(dropout), nn.ReLU())
        self.fc = nn.Linear(hidden_width, math.prod(pixels))
        self.output = output

    def logits(self, z: Tensor) -> Tensor:
        """The image before the output function, at least float32."""
        return full_precision(self.fc(self.hidden(z))).unflatten(1, self.pixels)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.logits(z))


def fully_connected(widths: tuple[int, ...], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of these widths, the activation between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def build_networks(
    architecture: str,
    channels: int,
    latent_dim: int,
    code_width: int | None = None,
    output: nn.Module | None = None,
    dropout: float = 0.0,
) -> tuple[nn.Module, nn.Module]:
    """An encoder and its decoder.

    Args:
        architecture: a key of ``ARCHITECTURES``, or ``"mlp:64-32"`` for vectors through hidden layers of 64 and 32.
        channels: of the image, 1 or 3; the number of features of a vector.
        latent_dim: n, the decoder's input.
        code_width: the encoder's output, n unless it also gives, say, log-variances.
        output: the decoder's last function; unless given, tanh for images and none for vectors or a ``gdn``.
        dropout: probability with which a hidden unit of an ``image-mlp`` is dropped while training.

    Raises:
        UserError: no architecture of that name.
    """
    code_width = code_width or latent_dim
    if re.fullmatch(r"mlp:[1-9]\d*(-[1-9]\d*)*", architecture):
        hidden_widths = tuple(int(width) for width in architecture.removeprefix("mlp:").split("-"))
        encoder = VectorEncoder(hidden_widths, channels, code_width)
        return encoder, VectorDecoder(hidden_widths, channels, latent_dim, output or nn.Identity())
    if architecture not in ARCHITECTURES:
        raise UserError(f"unknown architecture {architecture!r}: choose from {', '.join(ARCHITECTURES)}, or mlp:64-32")
    layout = ARCHITECTURES[architecture]
    if isinstance(layout, ImageMLP):
        pixels = (channels, layout.image_size, layout.image_size)
        return (
            ImageMLPEncoder(pixels, layout.hidden_width, code_width, dropout),
            ImageMLPDecoder(pixels, layout.hidden_width, latent_dim, output or nn.Tanh(), dropout),
        )
    if isinstance(layout, GDNLayout):
        encoder = GDNEncoder(layout.image_size, channels, code_width)
        return encoder, GDNDecoder(layout.image_size, channels, latent_dim, output or nn.Identity())
    return Encoder(layout, channels, code_width), Decoder(layout, channels, latent_dim, output or nn.Tanh())
