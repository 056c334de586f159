"""The networks have the sizes of the paper and the parameter names of the released code."""

import pytest
import torch

import models
from models.networks import build_networks
from utils.errors import UserError

# Parameter shapes of the released code, n = 7: (name, shape). Written out by hand from the layers it lists.
RELEASED = {
    "mnist": {
        "enc.dcnn.0.weight": (32, 1, 4, 4),
        "enc.dcnn.2.weight": (64, 32, 4, 4),
        "enc.dcnn.4.weight": (128, 64, 4, 4),
        "enc.dcnn.6.weight": (256, 128, 4, 4),
        "enc.fc.weight": (7, 1024),
        "dec.fc.weight": (8192, 7),
        "dec.dcnn.1.weight": (128, 64, 4, 4),
        "dec.dcnn.3.weight": (64, 32, 4, 4),
        "dec.dcnn.5.weight": (32, 1, 1, 1),
    },
    "shape": {
        "enc.dcnn.0.weight": (32, 3, 4, 4),
        "enc.dcnn.2.weight": (64, 32, 4, 4),
        "enc.dcnn.4.weight": (128, 64, 4, 4),
        "enc.dcnn.6.weight": (256, 128, 4, 4),
        "enc.dcnn.8.weight": (7, 256, 2, 2),
        "dec.dcnn.0.weight": (7, 256, 2, 2),
        "dec.dcnn.2.weight": (256, 128, 4, 4),
        "dec.dcnn.4.weight": (128, 64, 4, 4),
        "dec.dcnn.6.weight": (64, 32, 4, 4),
        "dec.dcnn.8.weight": (32, 3, 4, 4),
    },
    "celeba": {
        "enc.dcnn.0.weight": (128, 3, 4, 4),
        "enc.dcnn.2.weight": (256, 128, 4, 4),
        "enc.dcnn.4.weight": (512, 256, 4, 4),
        "enc.dcnn.6.weight": (1024, 512, 4, 4),
        "enc.fc.weight": (7, 16384),
        "dec.fc.weight": (65536, 7),
        "dec.dcnn.0.weight": (1024, 512, 4, 4),
        "dec.dcnn.2.weight": (512, 256, 4, 4),
        "dec.dcnn.4.weight": (256, 128, 4, 4),
        "dec.dcnn.6.weight": (128, 3, 1, 1),
    },
}
CHANNELS = {"mnist": 1, "shape": 3, "celeba": 3}


@pytest.mark.parametrize("architecture", RELEASED)
def test_names_and_shapes_of_the_released_code(architecture):
    model = models.build(
        "irmae", architecture=architecture, channels=CHANNELS[architecture], latent_dim=7, linear_layers=2
    )
    weights = {name: tuple(p.shape) for name, p in model.state_dict().items() if not name.endswith("bias")}
    assert weights == RELEASED[architecture] | {"mlp.hidden.0.weight": (7, 7), "mlp.hidden.1.weight": (7, 7)}
    biases = {name for name in model.state_dict() if name.endswith("bias")}
    assert biases == {name.replace("weight", "bias") for name in RELEASED[architecture]}  # the linear layers have none


@pytest.mark.parametrize("architecture", RELEASED)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_their_size(architecture, channels):
    encoder, decoder = build_networks(architecture, channels, latent_dim=5)
    size = models.image_size(architecture)
    x = torch.rand(2, channels, size, size)
    with torch.no_grad():
        assert encoder(x).shape == (2, 5)
        assert decoder(encoder(x)).shape == x.shape


def test_the_mnist_decoder_starts_with_a_relu_and_the_celeba_decoder_does_not():
    for architecture, expected in (("mnist", True), ("celeba", False)):
        _, decoder = build_networks(architecture, 1, 4)
        assert isinstance(decoder.dcnn[0], torch.nn.ReLU) == expected


def test_vectors():
    encoder, decoder = build_networks("mlp:6-4", channels=10, latent_dim=3)
    x = torch.rand(5, 10)
    assert encoder(x).shape == (5, 3) and decoder(encoder(x)).shape == x.shape
    assert [tuple(p.shape) for p in encoder.parameters() if p.ndim == 2] == [(6, 10), (4, 6), (3, 4)]
    assert [tuple(p.shape) for p in decoder.parameters() if p.ndim == 2] == [(4, 3), (6, 4), (10, 6)]


def test_images_as_vectors():
    """The layers of a vector of all pixels, and the flag that asked for them found again."""
    architecture = models.architecture("ae", "relu:6-4", {"image_size": 33})
    assert models.arch(architecture) == "relu:6-4" and models.image_size(architecture) == 33
    encoder, decoder = build_networks(architecture, channels=3, latent_dim=2)
    flat_encoder, flat_decoder = build_networks("relu:6-4", 3 * 33 * 33, 2, output=torch.nn.Tanh())
    flat_encoder.load_state_dict(encoder.state_dict())
    flat_decoder.load_state_dict(decoder.state_dict())
    x = torch.rand(5, 3, 33, 33)
    assert torch.equal(encoder(x), flat_encoder(x.flatten(1)))
    assert torch.equal(decoder(encoder(x)).flatten(1), flat_decoder(encoder(x)))
    vae = models.build("vae", architecture=architecture, channels=3, latent_dim=2)
    assert 0 <= vae(x).min() <= vae(x).max() <= 1 and set(vae.losses(x)) >= {"loss"}


@pytest.mark.parametrize("name", ["image-relu:-32", "image-relu:8", "image-relu:8-31", "image-foo:8-32"])
def test_images_as_vectors_of_no_width_or_size(name):
    with pytest.raises(UserError, match="32"):
        build_networks(name, 1, 4)


@pytest.mark.parametrize("name", ["mnits", "mlp:", "mlp:0", "mlp:4-"])
def test_unknown_architecture_lists_what_there_is(name):
    with pytest.raises(UserError, match="mnist"):
        build_networks(name, 1, 4)


@pytest.mark.parametrize("family", ["conv", "wae"])
@pytest.mark.parametrize(("size", "encoder_widths"), [
    (48, (128, 256, 512, 1024)),
    (96, (128, 256, 512, 1024)),
    (128, (64, 128, 256, 512, 1024)),
    (256, (32, 64, 128, 256, 512, 1024)),
])  # fmt: skip
def test_one_more_convolution_for_each_doubling_of_the_image(family, size, encoder_widths):
    with torch.device("meta"):
        encoder, decoder = build_networks(f"{family}-{size}", 3, latent_dim=5)
        x = torch.empty(1, 3, size, size)
        found = [layer.out_channels for layer in encoder.dcnn if isinstance(layer, torch.nn.Conv2d)]
        assert tuple(found) == encoder_widths
        assert decoder.fc.out_features in [1024 * first_size**2 for first_size in range(6, 16)]
        assert encoder(x).shape == (1, 5) and decoder(encoder(x)).shape == x.shape


def test_at_64_pixels_the_generic_network_is_the_published_one():
    with torch.device("meta"):
        shapes = [
            {name: p.shape for network in build_networks(name, 3, 5) for name, p in network.named_parameters()}
            for name in ("conv-64", "celeba")
        ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("architecture", ["gdn-96", "image-mlp-100", "wae-32", "conv-32"])
def test_other_networks_at_other_sizes(architecture):
    size = models.image_size(architecture)
    with torch.device("meta"):
        encoder, decoder = build_networks(architecture, 1, latent_dim=5)
        assert decoder(encoder(torch.empty(2, 1, size, size))).shape == (2, 1, size, size)


@pytest.mark.parametrize(("architecture", "choices"), [
    ("conv-100", "96, 112, 128, 160"), ("wae-144", "128, 160"), ("gdn-100", "96, 112"), ("image-mlp-16", "32 to 256"),
])  # fmt: skip
def test_sizes_that_the_networks_do_not_divide_are_refused_with_those_that_they_do(architecture, choices):
    with pytest.raises(UserError, match=choices):
        build_networks(architecture, 3, 4)


def test_the_flag_of_the_networks_is_found_again_in_their_name():
    for arch in models.ARCHS:
        size = 64 if arch == "wae-pytorch" else 128
        described = {"architecture": "conv-128", "image_size": size}
        assert models.arch(models.architecture("ae", arch, described)) == arch
    assert models.arch("celeba") == models.arch("mnist") == "conv"


def test_the_network_of_wae_pytorch():
    """Layer by layer, from models/wae_mmd_network.py of telin0411/WAE-PyTorch; mean and log-variance are one layer."""
    torch.manual_seed(0)
    model = models.build("wae-mmd", architecture="wae-pytorch-64", channels=3, latent_dim=64, noise="gaussian")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected, channels = {}, 3
    for layer, width in enumerate((128, 256, 512, 1024)):
        expected[f"enc.dcnn.{3 * layer}.weight"] = (width, channels, 5, 5)
        expected |= {f"enc.dcnn.{3 * layer + 1}.{name}": (width,) for name in ("weight", "bias")}
        channels = width
    expected |= {"enc.fc.weight": (2 * 64, 1024), "enc.fc.bias": (2 * 64,)}
    expected |= {"dec.fc.weight": (1024 * 4 * 4, 64), "dec.fc.bias": (1024 * 4 * 4,)}
    for layer, width in enumerate((512, 256, 128)):
        expected[f"dec.dcnn.{3 * layer}.weight"] = (channels, width, 4, 4)
        expected |= {f"dec.dcnn.{3 * layer + 1}.{name}": (width,) for name in ("weight", "bias")}
        channels = width
    expected["dec.dcnn.9.weight"] = (128, 3, 4, 4)
    assert shapes == expected
    assert sum(p.numel() for p in model.parameters()) == 29_430_784
    features, sizes = torch.rand(2, 3, 64, 64), []
    for layer in model.enc.dcnn:
        features = layer(features)
        if isinstance(layer, torch.nn.Conv2d):
            sizes.append(features.shape[-1])
    assert sizes == [30, 13, 5, 1] and model.dec(torch.zeros(2, 64)).shape == (2, 3, 64, 64)
    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            assert layer.bias is None and float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.momentum == 0.9 and float(layer.weight.detach().mean()) == pytest.approx(1, abs=0.01)
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.25) and not layer.bias.any()
    with pytest.raises(UserError, match="take images of 64 pixels, not 32"):
        build_networks("wae-pytorch-32", 3, 64)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("architecture", ["shape", "wae-32", "image-mlp-32", "relu:30-20"])
def test_kaiming_draws_weights_of_variance_2_over_fan_in(name, architecture):
    torch.manual_seed(0)
    model = models.build(name, "kaiming", architecture=architecture, channels=3, latent_dim=20)
    for layer in [*model.enc.modules(), *model.dec.modules()]:
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            fan_in = layer.weight[0].numel()  # of transposed convolutions too, as PyTorch counts it
            scale = layer.weight.detach().double().square().mean() * fan_in / 2
            assert abs(scale - 1) < 6 * (2 / layer.weight.numel()) ** 0.5
            assert layer.bias is None or not layer.bias.any()


def test_kaiming_leaves_the_linear_layers_of_irmae_as_published():
    torch.manual_seed(0)
    model = models.build("irmae", "kaiming", architecture="mnist", channels=1, latent_dim=128, linear_layers=1)
    weight = model.mlp.hidden[0].weight.detach()
    assert weight.var().item() * 128 * 3 == pytest.approx(1, abs=0.05) and abs(weight).max() <= 128**-0.5


def test_kaiming_is_refused_where_the_size_of_weights_has_no_effect():
    with pytest.raises(UserError, match="unknown init 'he': choose from pytorch, kaiming"):
        models.build("ae", "he", architecture="mnist", channels=1, latent_dim=6)
    with pytest.raises(UserError, match="--init kaiming has no effect under --penalty sn"):
        models.build("rae", "kaiming", architecture="mnist", channels=1, latent_dim=6, penalty="sn")
