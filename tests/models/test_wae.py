"""WAE: the discrepancy against an independent float64 formula, the adversary's separation, the pre-training."""

import numpy as np
import pytest
import torch

import models
from data.base import VectorDataset
from experiments import plan, run, train_flags
from models.layers.mmd import IMQ_SCALES, mmd
from models.wae import WAEGAN, WAEMMD
from utils import checkpoint, loop
from utils.errors import UserError


def reference_mmd(codes: np.ndarray, prior: np.ndarray, kernel: str, scale: float) -> float:
    """The estimator written out pair by pair in float64."""
    num, n = codes.shape

    def distances(a, b):
        return ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)

    across = distances(codes, prior)
    pairs = ~np.eye(num, dtype=bool)
    if kernel == "imq":
        kernels = [lambda d, c=2 * n * scale**2 * s: c / (c + d) for s in IMQ_SCALES]
    else:
        # tolstikhin/wae, mmd_penalty: of all num² pairs each, the diagonal included.
        half = (num**2 - num) // 2
        bandwidth = sum(np.sort(values.ravel())[::-1][half - 1] for values in (across, distances(codes, codes)))
        kernels = [lambda d: np.exp(-d / (2 * bandwidth))]
    total = 0.0
    for k in kernels:
        for sample in (codes, prior):
            total += k(distances(sample, sample))[pairs].sum() / (num * (num - 1))
        total -= 2 * k(across).sum() / num**2
    return total


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("num", [2, 3, 16, 101, 256])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_mmd_equals_the_formula(kernel, num, scale):
    random = np.random.default_rng(num)
    codes, prior = 0.5 + random.normal(size=(num, 7)), scale * random.normal(size=(num, 7))
    expected = reference_mmd(codes, prior, kernel, scale)
    exact = mmd(torch.tensor(codes), torch.tensor(prior), kernel, scale)
    assert float(exact) == pytest.approx(expected, rel=1e-9, abs=1e-10)
    single = mmd(torch.tensor(codes).float(), torch.tensor(prior).float(), kernel, scale)
    assert float(single) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_zero_on_average_for_the_same_gaussian_and_not_for_another(kernel):
    torch.manual_seed(0)
    same = torch.stack([mmd(torch.randn(200, 8), torch.randn(200, 8), kernel) for _ in range(50)])
    other = torch.stack([mmd(0.5 + torch.randn(200, 8), torch.randn(200, 8), kernel) for _ in range(50)])
    # The cross term includes no diagonal of a common sample: under the null the mean is zero up to noise.
    assert abs(same.mean()) < 4 * same.std() / 50**0.5
    assert other.min() > 5 * same.abs().max()


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_gradient_by_finite_differences(kernel):
    torch.manual_seed(1)
    codes = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    prior = torch.randn(6, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: mmd(z, prior, kernel), (codes,))


def test_rbf_value_and_gradient_equal_those_of_the_formula():
    """Central differences of the float64 formula, whose bandwidth moves with the codes."""
    random = np.random.default_rng(5)
    z, prior = random.normal(size=(12, 4)), random.normal(size=(12, 4))
    tensor = torch.tensor(z, requires_grad=True)
    mmd(tensor, torch.tensor(prior), "rbf").backward()
    for direction in random.normal(size=(5, 12, 4)):
        ahead, behind = (reference_mmd(z + step * direction, prior, "rbf", 1.0) for step in (1e-6, -1e-6))
        slope = float((tensor.grad.numpy() * direction).sum())
        assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5)


def test_rbf_of_codes_with_equal_distances():
    """On a grid nearly every distance has its equals, zeros of coinciding codes among them."""
    random = np.random.default_rng(6)
    z, prior = random.integers(0, 2, size=(12, 3)).astype(float), random.integers(0, 2, size=(12, 3)).astype(float)
    tensor = torch.tensor(z, requires_grad=True)
    value = mmd(tensor, torch.tensor(prior), "rbf")
    value.backward()
    assert float(value.detach()) == pytest.approx(reference_mmd(z, prior, "rbf", 1.0), rel=1e-9)
    assert tensor.grad.isfinite().all()


def test_a_single_code_has_no_discrepancy():
    z = torch.randn(1, 4, requires_grad=True)
    value = mmd(z, torch.randn(1, 4))
    value.backward()
    assert value == 0 and torch.equal(z.grad, torch.zeros(1, 4))


def tiny(name: str, **options):
    torch.manual_seed(0)
    return models.build(name, architecture="mlp:16", channels=4, latent_dim=2, **options)


def gradients(model, loss) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, parameters.values(), allow_unused=True, retain_graph=True)
    return {name: grad for name, grad in zip(parameters, found, strict=True) if grad is not None}


@pytest.mark.parametrize("prior_offset", [False, True])
def test_each_player_moves_only_its_own_parameters(prior_offset):
    model = tiny("wae-gan", prior_offset=prior_offset)
    losses = model.losses(torch.rand(8, 4))
    of_penalty, of_adversary = gradients(model, losses["penalty"]), gradients(model, losses["adversary"])
    assert of_penalty and all(name.startswith("enc.") for name in of_penalty)
    assert of_adversary and all(name.startswith("adversary.") for name in of_adversary)
    # What is minimised in one backward pass is the sum: each player's gradient in it is its own.
    total = gradients(model, losses["loss"])
    for name, gradient in of_adversary.items():
        torch.testing.assert_close(total[name], gradient)
    cost = gradients(model, model.cost_scale * 4 * losses["reconstruction"])
    for name, gradient in of_penalty.items():
        torch.testing.assert_close(total[name], cost[name] + model.penalty_weight * gradient)


def test_the_offset_is_the_log_density_of_the_prior():
    plain, offset = (
        tiny("wae-gan", pz_scale=2.0, **given) for given in ({}, {"prior_offset": True, "offset_factor": "fixed"})
    )
    z = torch.randn(5, 2)
    density = torch.distributions.MultivariateNormal(torch.zeros(2), 4 * torch.eye(2)).log_prob(z)
    parameters = dict(plain.adversary.named_parameters())
    torch.testing.assert_close(offset.logits(z, parameters) - plain.logits(z, parameters), density)


def test_the_learned_factor_multiplies_that_density_without_its_mean():
    plain, offset = (tiny("wae-gan", pz_scale=2.0, prior_offset=on) for on in (False, True))
    z = torch.randn(5, 2)
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), 4 * torch.eye(2))
    parameters = dict(plain.adversary.named_parameters())
    found = offset.logits(z, parameters | {"offset_factor": torch.tensor(0.25)}) - plain.logits(z, parameters)
    torch.testing.assert_close(found, 0.25 * (prior.log_prob(z) + prior.entropy()))


def gan(n, **options):
    torch.manual_seed(0)
    return models.build("wae-gan", architecture="mlp:8", channels=4, latent_dim=n, prior_offset=True, **options)


@pytest.mark.parametrize("factor", ["learned", "fixed"])
@pytest.mark.parametrize("scale", [1.0, 2**0.5])
def test_the_adversary_with_the_offset_starts_balanced(scale, factor):
    model = gan(64, pz_scale=scale, offset_factor=factor)
    z = scale * torch.randn(20_000, 64)
    logits = model.logits(z, dict(model.adversary.named_parameters())).detach()
    assert abs(float(logits.mean())) < 0.2  # the standard error of |z|²/2 is 0.04
    if factor == "learned":
        assert float(logits.std()) < 0.1  # undecided about each code
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.logits(z, dict(model.adversary.named_parameters())), logits)


def mean_loss_of_the_adversary(model, width: float, steps: int = 100) -> float:
    """Of the last 50 of the steps between draws of the prior N(0, I) and codes of N(0, width² I)."""
    optimizer = torch.optim.Adam(model.adversary.parameters(), lr=1e-3, betas=(0.5, 0.999))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        codes = width * torch.randn(100, model.latent_dim)
        loss = model.penalty(codes, torch.randn(100, model.latent_dim))[1]["adversary"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return np.mean(losses[-50:])


def test_the_adversary_with_the_offset_comes_to_its_ideal_loss_on_identical_distributions():
    """2 ln 2 = 1.386: it cannot tell codes from the prior when they are draws of it."""
    assert mean_loss_of_the_adversary(gan(64), width=1) == pytest.approx(2 * np.log(2), abs=0.01)


def test_the_adversary_with_the_offset_learns_to_tell_narrower_codes():
    """Towards the loss of the exact log-odds log p − log q, over 20,000 draws of each."""
    width, n = 0.9, 64
    prior, codes = (torch.distributions.Normal(0.0, s) for s in (1.0, width))
    torch.manual_seed(1)
    p, q = (d.sample((20_000, n)).double() for d in (prior, codes))
    logit_p, logit_q = ((prior.log_prob(z) - codes.log_prob(z)).sum(dim=1) for z in (p, q))
    ideal = torch.nn.functional.softplus(-logit_p).mean() + torch.nn.functional.softplus(logit_q).mean()
    assert ideal - 0.02 < mean_loss_of_the_adversary(gan(n), width) < 1.25 < 2 * np.log(2)


def test_a_factor_without_the_offset_is_refused():
    with pytest.raises(UserError, match=r"--offset-factor fixed: .* without --prior-offset"):
        tiny("wae-gan", offset_factor="fixed")


def test_a_file_from_before_the_factor_gives_the_same_discriminator(tmp_path):
    options = {"pz_scale": 1.0, "noise": "none", "cost_scale": 0.05, "e_pretrain": 0, "gan_weight": 1.0}
    options |= {"adversary_lr": 1e-3, "prior_offset": True}
    config = run.RunConfig("wae-gan", "wae-32", 4, "digits", 32, 1, options)
    checkpoint.save(tmp_path / "old", {"format": 2, "config": config.to_dict(), "weights": {}})
    read = run.read(tmp_path / "old").config
    assert read.options["offset_factor"] == "fixed"
    assert "adversary.offset_factor" not in read.build_model().state_dict()
    today = plan.run_of({"model": "wae-gan", "dataset": "digits"})
    assert "offset_factor" not in plan.configuration(today, 1)["model"]["config"]  # its cells keep their names


def test_the_adversary_has_a_rate_of_its_own():
    model = tiny("wae-gan", adversary_lr=3e-3)
    autoencoder, adversary = loop.make_optimizer(model, 1e-3).param_groups
    assert autoencoder["lr"] == 1e-3 and adversary["lr"] == 3e-3
    assert autoencoder["betas"] == adversary["betas"] == (0.5, 0.999)
    assert {id(p) for p in adversary["params"]} == {id(p) for p in model.adversary.parameters()}
    groups = autoencoder["params"] + adversary["params"]
    assert len(groups) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "options"), [("wae-mmd", {}), ("wae-gan", {"adversary_lr": 5e-3})])
def test_without_reconstruction_the_code_takes_the_priors_shape(name, options):
    """Uniform data in the plane, σ_z = 2: mean and covariance of the code go to those of N(0, 4 I)."""
    torch.manual_seed(0)
    config = {"architecture": "mlp:32", "channels": 2, "latent_dim": 2, "pz_scale": 2.0, "cost_scale": 1e-9}
    model = models.build(name, **config, **options)
    data = 2 * torch.rand(4000, 2) - 1

    def distance() -> float:
        with torch.no_grad():
            z = model.encode(data) / 2
            return float(z.mean(0).norm() + (z.T.cov() - torch.eye(2)).norm())

    before = distance()
    step = loop.Step(model, loop.make_optimizer(model, 1e-2), VectorDataset(data))
    for _ in range(150):
        step(torch.randint(len(data), (64,)))
    assert before > 1 and distance() < 0.5 * before, (before, distance())


def test_pretraining_matches_mean_and_covariance_and_leaves_the_decoder_alone():
    torch.manual_seed(0)
    model = models.build("wae-mmd", architecture="mlp:32", channels=5, latent_dim=3, pz_scale=2.0, e_pretrain=300)
    data = torch.rand(2000, 5)
    decoder = {name: value.clone() for name, value in model.dec.state_dict().items()}
    model.pretrain(lambda num: data[torch.randint(len(data), (num,))], learning_rate=1e-2)
    with torch.no_grad():
        z = model.encode(data)
    assert z.mean(0).abs().max() < 0.25
    torch.testing.assert_close(z.T.cov(), 4 * torch.eye(3), atol=0.6, rtol=0)
    assert all(torch.equal(value, decoder[name]) for name, value in model.dec.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_no_pretraining_unless_asked():
    model = tiny("wae-mmd")
    model.pretrain(lambda num: pytest.fail("no image should be drawn"), 1e-3)


@pytest.mark.parametrize("noise", ["none", "gaussian", "add_noise"])
def test_noise(noise):
    model = tiny("wae-mmd", noise=noise)
    x = torch.rand(8, 4)
    repeats = [torch.equal(model.train(mode).sample_codes(x), model.sample_codes(x)) for mode in (True, False)]
    assert repeats == {"none": [True, True], "gaussian": [False, False], "add_noise": [False, True]}[noise]
    assert model.encode(x).shape == (8, 2)
    assert torch.equal(model.encode(x), model.encode(x))


def test_the_cost_is_the_squared_error_summed_over_pixels():
    model = tiny("wae-mmd", cost_scale=0.05, mmd_weight=10.0).eval()
    x = torch.rand(8, 4)
    losses = model.losses(x)
    cost = 0.05 * (model(x) - x).square().sum(dim=1).mean()
    torch.testing.assert_close(losses["loss"], cost + 10 * losses["penalty"])
    torch.testing.assert_close(losses["reconstruction"], torch.nn.functional.mse_loss(model(x), x))


@pytest.mark.parametrize("cls", [WAEMMD, WAEGAN])
def test_prior_samples_have_the_priors_scale(cls):
    z = cls("mlp:8", 4, 3, pz_scale=2.0).sample_prior(20_000, torch.Generator().manual_seed(0))
    assert z.shape == (20_000, 3)
    torch.testing.assert_close(z.std(0), torch.full((3,), 2.0), atol=0.05, rtol=0)


@pytest.mark.parametrize(("architecture", "size", "channels"), [("wae-64", 64, 3), ("wae-32", 32, 1)])
def test_the_networks_of_the_paper(architecture, size, channels):
    model = models.build("wae-mmd", architecture=architecture, channels=channels, latent_dim=8)
    x = torch.rand(2, channels, size, size)
    widths = [layer.out_channels for layer in model.enc.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [128, 256, 512, 1024]
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.enc.modules()) == 4
    assert model(x).shape == x.shape
    model.losses(x)["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("preset", "name"), [("wae-mmd-celeba-pytorch", "wae-mmd"), ("wae-gan-celeba-pytorch", "wae-gan")]
)
def test_the_loss_of_wae_pytorch(preset, name):
    """MSELoss, the mean over all values, plus 10 times the penalty; its discriminator has three times the rate."""
    config = run.RunConfig.from_args(train_flags.parse(["--preset", preset]))
    assert (config.model, config.architecture, config.latent_dim, config.crop) == (name, "wae-pytorch-64", 64, 140)
    assert (config.lr, config.batch_size, config.epochs, config.lr_schedule) == (3e-4, 100, 55, "constant")
    assert (config.options["pz_scale"], config.options["noise"]) == (1.0, "gaussian")
    model = config.build_model()
    losses = model.losses(torch.rand(4, 3, 64, 64))
    expected = losses["reconstruction"] + 10 * losses["penalty"] + losses.get("adversary", 0)
    torch.testing.assert_close(losses["loss"], expected)
    rates = [group["lr"] for group in model.parameter_groups(config.lr)]
    assert rates == pytest.approx([3e-4, 9e-4][: len(rates)]) and len(rates) == (2 if name == "wae-gan" else 1)
    assert not config.options.get("prior_offset")
