"""The convolutional encoder and decoder, in the layouts of IRMAE and of WAE.

Sources: IRMAE (Jing, Zbontar, LeCun 2020, arXiv 2010.00679), supplement table 1 and the released code; where they
disagree the released code is followed (docs/faithfulness.md). Parameter names (``enc.dcnn.0.weight``, ``dec.fc.bias``,
...) are those of the released code, so that its checkpoints load as they are. WAE (Tolstikhin et al. 2018,
arXiv 1711.01558), released code: DCGAN with batch normalisation.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import Decoder

WIDEST = 1024  # channels of the smallest feature map


@dataclass(frozen=True)
class Layout:
    """Widths of one encoder-decoder pair. The convolutions have stride 2, and each is followed by ReLU."""

    image_size: int  # S, height and width of the images, pixels
    encoder_widths: tuple[int, ...]  # channels after each convolution of the encoder
    decoder_widths: tuple[int, ...]  # channels of the decoder's first feature map and after each of its convolutions
    convolutional_code: bool = False  # the code is a 1x1 feature map: convolutions instead of the linear layers
    relu_after_fc: bool = False  # after the decoder's linear layer
    kernel: int = 4  # of the convolutions: 4 with padding 1, or 5 with padding 2
    batch_norm: bool = False  # after each convolution but the decoder's last
    last_kernel: int = 1  # of the decoder's last convolution, which has stride 1; odd

    def activation(self, width: int) -> list[nn.Module]:
        """The layers that follow a convolution to ``width`` channels."""
        return [*([nn.BatchNorm2d(width)] if self.batch_norm else []), nn.ReLU(inplace=True)]


def halvings(image_size: int) -> int:
    """Convolutions of stride 2 in an encoder: 4, and from 64 pixels on one more for each doubling of the size."""
    return 4 + max(0, (image_size // 64).bit_length() - 1)


def layout(name: str, image_size: int) -> Layout:
    """The layout of ``"shape"``, ``"mnist"`` or ``"celeba"`` (IRMAE's), ``"conv"`` or ``"wae"`` at ``image_size``.

    ``conv`` is ``celeba`` continued to other sizes: the smallest feature map keeps its 1,024 channels, and an
    additional convolution at the other end has half as many as its neighbour. ``wae`` has the same widths.
    """
    if name == "shape":
        return Layout(32, (32, 64, 128, 256), (256, 128, 64, 32), convolutional_code=True)
    if name == "mnist":
        return Layout(32, (32, 64, 128, 256), (128, 64, 32), relu_after_fc=True)
    widths = tuple(WIDEST >> level for level in range(halvings(image_size)))
    if name != "wae":
        return Layout(image_size, widths[::-1], widths)
    if image_size == 32:  # MNIST; the last kernel there is 4x4, which has no symmetric padding
        return Layout(32, widths[::-1], widths[:-1], relu_after_fc=True, batch_norm=True, last_kernel=3)
    return Layout(image_size, widths[::-1], widths, relu_after_fc=True, kernel=5, batch_norm=True, last_kernel=5)


class ConvEncoder(nn.Module):
    """Images ``(B, channels, S, S)`` to ``(B, code_width)``."""

    def __init__(self, layout: Layout, channels: int, code_width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *layout.encoder_widths)):
            layers.append(nn.Conv2d(inputs, outputs, layout.kernel, stride=2, padding=(layout.kernel - 1) // 2))
            layers += layout.activation(outputs)
        last_width, last_size = layout.encoder_widths[-1], layout.image_size // 2 ** len(layout.encoder_widths)
        if layout.convolutional_code:
            layers.append(nn.Conv2d(last_width, code_width, last_size))
            self.fc = None
        else:
            self.fc = nn.Linear(last_width * last_size**2, code_width)
        self.dcnn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features = self.dcnn(x).flatten(1)
        return features if self.fc is None else self.fc(features)


def conv_decoder(layout: Layout, channels: int, latent_dim: int, output: nn.Module) -> Decoder:
    """Codes ``(B, n)`` to images ``(B, channels, S, S)``."""
    widths, kernel, last = layout.decoder_widths, layout.kernel, layout.last_kernel
    size = layout.image_size // 2 ** (len(widths) - 1)  # height and width of the first feature map
    layers: list[nn.Module] = []
    start: dict[str, nn.Module]
    if layout.convolutional_code:
        start = {"image": nn.Unflatten(1, (latent_dim, 1, 1))}
        layers += [nn.ConvTranspose2d(latent_dim, widths[0], 2), nn.ReLU(inplace=True)]
    else:
        start = {"fc": nn.Linear(latent_dim, widths[0] * size**2), "image": nn.Unflatten(1, (widths[0], size, size))}
        if layout.relu_after_fc:
            layers.append(nn.ReLU())  # not in place: the feature map is a view, whose gradient would be copied
    for inputs, outputs in pairwise(widths):
        # An odd kernel fits two input sizes; the output padding chooses the one that doubles.
        layers.append(nn.ConvTranspose2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, kernel % 2))
        layers += layout.activation(outputs)
    if layout.convolutional_code:
        layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1))
    else:
        layers.append(nn.ConvTranspose2d(widths[-1], channels, last, padding=last // 2))
    return Decoder(output, **start, dcnn=nn.Sequential(*layers))
