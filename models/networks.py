"""The encoders and decoders that all models share, so that results differ by the regulariser alone.

Source: IRMAE (Jing, Zbontar, LeCun 2020, arXiv 2010.00679), supplement table 1 and the released code. Where they
disagree the released code is followed (docs/faithfulness.md). Parameter names (``enc.dcnn.0.weight``, ``dec.fc.bias``,
...) are those of the released code, so that its checkpoints load as they are.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from models.base import full_precision
from utils.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """Widths of one encoder-decoder pair. Convolutions are 4x4, stride 2, padding 1, each followed by ReLU.

    Attributes:
        image_size: height and width of the images, pixels.
        encoder_widths: channels after each convolution of the encoder.
        decoder_widths: channels of the decoder's first feature map and after each of its convolutions.
        convolutional_code: the code is a 1x1 feature map, reached by a 2x2 convolution instead of a linear layer.
        relu_after_fc: a ReLU follows the decoder's linear layer.
    """

    image_size: int
    encoder_widths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    convolutional_code: bool = False
    relu_after_fc: bool = False


ARCHITECTURES = {
    "shape": Architecture(32, (32, 64, 128, 256), (256, 128, 64, 32), convolutional_code=True),
    "mnist": Architecture(32, (32, 64, 128, 256), (128, 64, 32), relu_after_fc=True),
    "celeba": Architecture(64, (128, 256, 512, 1024), (1024, 512, 256, 128)),
}

DECODER_SEED_SIZE = 8  # height and width of the feature map that the decoder's linear layer makes


class Encoder(nn.Module):
    """Images ``(B, channels, S, S)`` to ``(B, code_width)``."""

    def __init__(self, architecture: Architecture, channels: int, code_width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *architecture.encoder_widths)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        last_width = architecture.encoder_widths[-1]
        last_size = architecture.image_size // 2 ** len(architecture.encoder_widths)
        if architecture.convolutional_code:
            layers.append(nn.Conv2d(last_width, code_width, last_size))
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
            layers += [nn.ConvTranspose2d(latent_dim, widths[0], 2), nn.ReLU(inplace=True)]
        else:
            self.fc = nn.Linear(latent_dim, widths[0] * DECODER_SEED_SIZE**2)
            if architecture.relu_after_fc:
                layers.append(nn.ReLU(inplace=True))
        for inputs, outputs in pairwise(widths):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        if architecture.convolutional_code:
            layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1))
        else:
            layers.append(nn.ConvTranspose2d(widths[-1], channels, 1))
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


def fully_connected(widths: tuple[int, ...], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of these widths, the activation between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def build_networks(
    architecture: str, channels: int, latent_dim: int, code_width: int | None = None, output: nn.Module | None = None
) -> tuple[nn.Module, nn.Module]:
    """An encoder and its decoder.

    Args:
        architecture: a key of ``ARCHITECTURES``, or ``"mlp:64-32"`` for vectors through hidden layers of 64 and 32.
        channels: of the image, 1 or 3; the number of features of a vector.
        latent_dim: n, the decoder's input.
        code_width: the encoder's output, n unless it also gives, say, log-variances.
        output: the decoder's last function; unless given, tanh for images and none for vectors.

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
    return Encoder(layout, channels, code_width), Decoder(layout, channels, latent_dim, output or nn.Tanh())
