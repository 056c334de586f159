"""AE, IRMAE and VAE: losses against independent float64 formulas, the folded linear layers, the table of models."""

import numpy as np
import pytest
import torch

import models
from data.base import VectorDataset
from models.ae import LinearStack
from utils import loop
from utils.errors import UserError

SMALL = {"architecture": "shape", "channels": 3, "latent_dim": 6}


def images(num: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_the_folded_matrix_gives_the_code_of_the_stack(layers):
    torch.manual_seed(0)
    stack = LinearStack(16, layers).double()
    z = torch.randn(32, 16, dtype=torch.float64)
    one_by_one = z.numpy()
    for layer in stack.hidden:
        one_by_one = one_by_one @ layer.weight.detach().numpy().T
    stack.eval()
    with torch.no_grad():
        folded = stack(z)
    assert np.abs(folded.numpy() - one_by_one).max() < 1e-10
    assert np.abs(stack(z).detach().numpy() - one_by_one).max() < 1e-10  # with gradients: the stack itself


def test_inference_multiplies_once(monkeypatch):
    model = models.build("irmae", linear_layers=5, **SMALL).eval()
    calls = []
    for layer in model.mlp.hidden:
        layer.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model.encode(images())
    assert calls == []
    model.encode(images())  # someone wants gradients: all five
    assert len(calls) == 5


def test_the_folded_matrix_follows_the_optimiser():
    """A fused optimiser changes the weights without raising their version counters."""
    torch.manual_seed(0)
    model = models.build("irmae", linear_layers=3, **SMALL)
    optimizer = loop.make_optimizer(model, 1e-2)
    x = images()
    step = loop.Step(model, optimizer, VectorDataset(x))
    for _ in range(2):
        model.train()
        step(torch.arange(len(x)))
        model.eval()
        with torch.no_grad():
            folded = model.encode(images())
        assert torch.allclose(folded, model.encode(images()), atol=1e-6)


def test_the_folded_matrix_follows_a_loaded_state():
    stack = LinearStack(4, 2).eval()
    z = torch.eye(4)
    with torch.no_grad():
        stack(z)
        stack.load_state_dict({f"hidden.{i}.weight": 2 * torch.eye(4) for i in range(2)})
        assert torch.equal(stack(z), 4 * torch.eye(4))
        stack.double()
        assert stack(z.double()).dtype == torch.float64


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_init_variance_multiplies_the_default_variance(factor):
    torch.manual_seed(0)
    stack = LinearStack(256, 1, factor)
    default = 1 / (3 * 256)  # PyTorch draws from U(-1/sqrt(n), 1/sqrt(n))
    assert stack.hidden[0].weight.var().item() == pytest.approx(factor * default, rel=0.03)


@pytest.mark.parametrize("name", ["ae", "irmae"])
def test_mean_squared_error(name):
    model = models.build(name, **SMALL)
    x = images()
    losses = model.losses(x)
    x_hat = model(x).detach().double().numpy()
    assert losses["loss"].item() == pytest.approx(((x_hat - x.double().numpy()) ** 2).mean(), rel=1e-5)


def test_the_loss_of_the_vae():
    """Binary cross-entropy and divergence written out in float64, with the same draw of the code."""
    torch.manual_seed(0)
    model = models.build("vae", beta=0.3, **SMALL).double()
    x = images().double()
    torch.manual_seed(5)
    losses = model.losses(x)
    torch.manual_seed(5)
    with torch.no_grad():
        mean, logvar = (part.numpy() for part in model.enc(x).chunk(2, dim=1))
        noise = torch.randn(4, 6, dtype=torch.float64).numpy()
        x_hat = model.decode(torch.from_numpy(mean + np.exp(logvar / 2) * noise)).numpy()
    target = x.numpy()
    cross_entropy = -(target * np.log(x_hat) + (1 - target) * np.log(1 - x_hat)).mean()
    divergence = (mean**2 + np.exp(logvar) - 1 - logvar).mean()
    assert losses["reconstruction"].item() == pytest.approx(cross_entropy, rel=1e-10)
    assert losses["kl"].item() == pytest.approx(divergence, rel=1e-10)
    assert losses["loss"].item() == pytest.approx(cross_entropy + 0.3 * divergence, rel=1e-10)


def test_the_code_of_the_vae_is_the_posterior_mean():
    model = models.build("vae", **SMALL).eval()
    assert torch.equal(model.encode(images()), model.encode(images()))
    assert torch.equal(model.encode(images()), model.posterior(images())[0])


def test_prior_samples():
    vae = models.build("vae", **SMALL)
    z = vae.sample_prior(4000, torch.Generator().manual_seed(0))
    assert z.shape == (4000, 6)
    assert z.mean(0).abs().max() < 0.06 and (z.var(0) - 1).abs().max() < 0.1
    with pytest.raises(UserError, match="no prior"):
        models.build("ae", **SMALL).sample_prior(3)


@pytest.mark.parametrize("name", models.MODELS)
def test_bf16_keeps_codes_and_losses_in_full_precision(name):
    latent_dim = models.MODELS[name].default_latent_dim(models.options(name)) or 6
    model = models.build(name, **SMALL | {"latent_dim": latent_dim})
    model.train_size = 100
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encode(images()).dtype == torch.float32
        torch.manual_seed(0)
        losses = model.losses(images())
    torch.manual_seed(0)
    assert all(value.dtype in (torch.float32, torch.float64) for value in losses.values())
    assert losses["loss"].item() == pytest.approx(model.losses(images())["loss"].item(), rel=0.05)


def test_build_and_choose_refuse_what_does_not_fit():
    with pytest.raises(UserError, match="ae, irmae"):
        models.build("irma", **SMALL)
    with pytest.raises(UserError, match="beta"):
        models.build("ae", beta=1.0, **SMALL)
    with pytest.raises(UserError, match="at least 1"):
        models.build("irmae", linear_layers=0, **SMALL)
    assert models.choose(None, None, False) == models.choose(None, 0, False) == "ae"
    assert models.choose(None, 8, False) == "irmae"
    assert models.choose(None, None, True) == models.choose("vae", None, True) == "vae"
    for name, layers, vae in ((None, 8, True), ("ae", 8, False), ("irmae", 0, False), ("ae", None, True)):
        with pytest.raises(UserError):
            models.choose(name, layers, vae)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ae", "architecture", None),
        ("ae", "latent_dim", 0),
        ("ae", "channels", -1),
        ("dagmm", "components", 0),
        ("radogaga", "prior", "GMM"),
        ("radogaga", "noise_width", 0.0),
        ("rrae", "rank", 2.5),
        ("rrae", "adaptive_rank", 1),
        ("rae", "penalty_weight", "1"),
    ],
)
def test_a_value_that_an_argument_does_not_take_is_named(name, key, value):
    with pytest.raises(UserError, match=rf"{key}.*{value}"):
        models.build(name, **SMALL | {key: value})


@pytest.mark.parametrize("name", models.MODELS)
def test_codes_are_sampled_around_what_encode_returns(name):
    """``sample_codes`` is a draw whose mean is the code, or the code itself."""
    torch.manual_seed(0)
    latent_dim = models.MODELS[name].default_latent_dim(models.options(name)) or 6
    model = models.build(name, **SMALL | {"latent_dim": latent_dim}).eval()
    x = images(2)
    with torch.no_grad():
        z, draws = model.encode(x), torch.stack([model.sample_codes(x) for _ in range(400)])
        assert draws.shape == (400, 2, latent_dim) and torch.equal(z, model.encode(x))
    if name in ("vae", "beta-vae", "beta-tcvae", "catvae", "infocat-vae"):
        assert (draws.std(0) > 0).all()
        assert (draws.mean(0) - z).abs().max() < 5 * draws.std(0).max() / 400**0.5
    else:
        assert torch.equal(draws, z.expand_as(draws))


def test_every_option_of_a_model_has_a_flag_and_a_default():
    for name, cls in models.MODELS.items():
        flags, options = models.flags(name), models.options(name)
        assert flags.keys() == options.keys() and cls.title
        for key, flag in flags.items():
            assert flag.names(key)[-1].lstrip("-").replace("-", "_") == key and flag.help
            assert flag.switch or flag.choices is None or options[key] in flag.choices
            if not flag.switch and flag.choices is None:
                assert flag.type(str(options[key])) == options[key]


def test_a_model_needs_its_sizes():
    with pytest.raises(UserError, match="the model ae needs architecture, latent_dim"):
        models.build("ae", channels=1)
