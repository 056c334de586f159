"""RAE: each penalty against its definition, and that it acts on what it should."""

import pytest
import torch

import models
from experiments import run
from experiments.presets import PRESETS
from models.rae import RAE
from utils import checkpoint
from utils.errors import UserError


def build(penalty: str, **options) -> RAE:
    torch.manual_seed(0)
    return models.build("rae", architecture="mlp:8", channels=4, latent_dim=3, penalty=penalty, **options).double()


def test_loss_is_reconstruction_plus_weighted_terms():
    model = build("l2", embedding_weight=0.3, penalty_weight=0.2)
    x = torch.rand(5, 4, dtype=torch.float64)
    losses = model.losses(x)
    reconstruction = (model(x) - x).square().mean()
    embedding = model.encode(x).square().mean()
    weights = [layer.weight for layer in model.dec.modules() if isinstance(layer, torch.nn.Linear)]
    penalty = sum(float(weight.detach().square().sum()) for weight in weights)
    assert len(weights) == 2
    assert float(losses["penalty"]) == pytest.approx(penalty)
    torch.testing.assert_close(losses["loss"], reconstruction + 0.3 * embedding + 0.2 * penalty)


def test_gradient_penalty_is_the_gradient_by_the_code():
    """Against central differences of Σ x̂² in the code, one dimension at a time."""
    model = build("gp")
    x = torch.rand(5, 4, dtype=torch.float64)
    z, step = model.encode(x).detach(), 1e-6
    columns = []
    for shift in step * torch.eye(3, dtype=torch.float64):
        above, below = (model.decode(z + sign * shift).square().sum(1) for sign in (1, -1))
        columns.append((above - below) / (2 * step))
    expected = torch.stack(columns, dim=1).square().mean()
    assert float(model.losses(x)["penalty"]) == pytest.approx(float(expected), rel=1e-6)


def test_gradient_penalty_reaches_the_weights_exactly():
    """The second backward pass against central differences of the loss in single weights."""
    model = build("gp", penalty_weight=10.0)
    x = torch.rand(5, 4, dtype=torch.float64)
    model.losses(x)["loss"].backward()
    for weight in (model.dec.layers[0].weight, model.enc.layers[0].weight):
        for index in ((0, 0), (2, 1)):
            step, values = 1e-6, []
            for sign in (1, -1):
                with torch.no_grad():
                    weight[index] += sign * step
                values.append(float(model.losses(x)["loss"]))
                with torch.no_grad():
                    weight[index] -= sign * step
            assert float(weight.grad[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-9)


def test_gradient_penalty_can_be_evaluated_without_gradients():
    model = build("gp").eval()
    x = torch.rand(5, 4, dtype=torch.float64)
    with torch.no_grad():
        silent = model.losses(x)
    assert not silent["loss"].requires_grad
    assert float(silent["penalty"]) == pytest.approx(float(model.losses(x)["penalty"]))


@pytest.mark.parametrize("l2_layers", ["convolutions", "layers", "all"])
def test_l2_has_the_layers_of_the_released_scripts(l2_layers):
    """MNIST: the three transposed convolutions; CelebA: the linear layer too; neither: the scales of batch norm."""
    model = models.build("rae", architecture="wae-32", channels=1, latent_dim=4, l2_layers=l2_layers).eval()
    with torch.no_grad():
        penalty = float(model.losses(torch.rand(2, 1, 32, 32))["penalty"])
    state = model.dec.state_dict()
    convolutions = [name for name, value in state.items() if value.dim() == 4]
    scales = [name for name in state if name.endswith("weight") and state[name].dim() == 1]
    assert len(convolutions) == 3 and len(scales) == 2
    names = {"convolutions": convolutions, "layers": [*convolutions, "fc.weight"]}
    names["all"] = [*names["layers"], *scales]
    expected = sum(float(state[name].double().square().sum()) for name in names[l2_layers])
    assert penalty == pytest.approx(expected, rel=1e-5)
    assert "fc.weight" in state and not any("bias" in name for name in names[l2_layers])


def test_l2_of_networks_without_convolutions_is_refused():
    with pytest.raises(UserError, match=r"--l2-layers convolutions: the networks mlp:8 have none"):
        build("l2", l2_layers="convolutions")


def test_released_spectral_norms_are_of_the_matrices_of_keras():
    """Encoder and decoder; a kernel (height, width, outputs, inputs) of a transposed convolution as (-1, inputs)."""
    torch.manual_seed(0)
    model = models.build("rae", architecture="mnist", channels=1, latent_dim=6, penalty="sn")
    for _ in range(40):
        model(torch.rand(2, 1, 32, 32))
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    assert len(layers) == 9
    for layer in layers:
        kernel = layer.weight.detach()
        if isinstance(layer, torch.nn.ConvTranspose2d):  # torch: (inputs, outputs, height, width)
            kernel = kernel.permute(2, 3, 1, 0).reshape(-1, layer.in_channels)
        elif isinstance(layer, torch.nn.Conv2d):  # torch: (outputs, inputs, height, width)
            kernel = kernel.permute(2, 3, 1, 0).reshape(-1, layer.out_channels)
        assert float(torch.linalg.matrix_norm(kernel, 2)) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("architecture", ["mnist", "shape"])
def test_spectral_norm_of_every_decoder_layer_is_one(architecture):
    torch.manual_seed(0)
    channels = 1 if architecture == "mnist" else 3
    model = models.build("rae", architecture=architecture, channels=channels, latent_dim=6, penalty="sn",
                         sn_layers="decoder")  # fmt: skip
    assert "penalty" not in model.losses(torch.rand(2, channels, 32, 32))
    for _ in range(40):  # the power iteration goes one step with each training pass
        model.decode(torch.randn(1, 6))
    layers = [m for m in model.dec.modules() if isinstance(m, (torch.nn.Linear, torch.nn.ConvTranspose2d))]
    assert len(layers) == (4 if architecture == "mnist" else 5)
    for layer in layers:
        matrix = layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.transpose(0, 1).flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=0.05)
    assert not any("parametrizations" in name for name in model.enc.state_dict())


def test_a_file_from_before_the_choice_of_layers_gives_the_same_model(tmp_path):
    """All weights, batch norm's scales among them, and the spectral norm of the decoder alone."""
    config = run.RunConfig("rae", "wae-32", 4, "digits", 32, 1, {"penalty": "sn", "embedding_weight": 0.1})
    checkpoint.save(tmp_path / "old", {"format": 2, "config": config.to_dict(), "weights": {}})
    read = run.read(tmp_path / "old").config
    assert (read.options["l2_layers"], read.options["sn_layers"]) == ("all", "decoder")
    names = set(read.build_model().state_dict())
    assert "dec.fc.parametrizations.weight.original" in names and "enc.fc.weight" in names


def test_presets_have_the_released_weights():
    """configurations/config.py, entries 3, 4, 5 and 20, and the rates of the scripts for MNIST and CelebA."""
    keys = ("penalty", "penalty_weight", "embedding_weight", "latent_dim", "lr", "epochs", "batch_size")
    found = {name: tuple(PRESETS[name].flags.get(key) for key in keys) for name in PRESETS if name.startswith("rae-")}
    assert found == {
        "rae-gp-mnist": ("gp", 0.5e-7, 1e-4, 16, 5e-4, 100, 100),
        "rae-l2-mnist": ("l2", 1e-7, 1e-4, 16, 5e-4, 100, 100),
        "rae-sn-mnist": ("sn", None, 0.009, 16, 5e-4, 100, 100),
        "rae-l2-celeba": ("l2", 1e-7, 1e-4, 64, 1e-3, 70, 100),
    }
