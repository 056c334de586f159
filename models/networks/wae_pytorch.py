"""The network of telin0411/WAE-PyTorch for images of 64x64: 5x5 convolutions without padding down to 1x1.

Source: its ``models/wae_mmd_network.py`` and ``models/wae_gan_network.py``, which are equal, and ``weights_init``.
"""

from itertools import pairwise

from torch import nn

from models.networks.base import Decoder, named

IMAGE_SIZE = 64  # pixels; the encoder's feature maps have 30, 13, 5 and 1, the decoder's 4, 8, 16, 32 and 64
WIDTHS = (128, 256, 512, 1024)
MOMENTUM = (
    0.9  # of the new batch in the running statistics: as written there, where TensorFlow's 0.9 is of the old ones
)
INIT_STD = 0.02


def networks(channels: int, code_width: int, latent_dim: int, output: nn.Module) -> tuple[nn.Module, Decoder]:
    """Of images ``(B, channels, 64, 64)``; batch normalisation after each convolution but the last."""

    def normalised(layer: nn.Module, width: int) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(width, momentum=MOMENTUM), nn.ReLU(inplace=True)]

    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((channels, *WIDTHS)):
        layers += normalised(nn.Conv2d(inputs, outputs, 5, stride=2, bias=False), outputs)
    encoder = named(dcnn=nn.Sequential(*layers), flatten=nn.Flatten(), fc=nn.Linear(WIDTHS[-1], code_width))
    layers = []
    for inputs, outputs in pairwise(reversed(WIDTHS)):
        layers += normalised(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), outputs)
    last = nn.ConvTranspose2d(WIDTHS[0], channels, 4, stride=2, padding=1, bias=False)
    fc, image = nn.Linear(latent_dim, WIDTHS[-1] * 4**2), nn.Unflatten(1, (WIDTHS[-1], 4, 4))
    decoder = Decoder(output, fc=fc, relu=nn.ReLU(), image=image, dcnn=nn.Sequential(*layers, last))
    for network in (encoder, decoder):
        network.apply(initialise)
    return encoder, decoder


def initialise(layer: nn.Module) -> None:
    """N(0, 0.02²) for convolutions and N(1, 0.02²) for the scales of batch normalisation; the rest stays PyTorch's."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, INIT_STD)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, INIT_STD)
