"""RaDOGAGA's loss and both priors, and its variational baseline."""

import math

import pytest
import torch
import torch.nn.functional as F

import models
from experiments.presets import PRESETS
from models.layers.distortion import one_minus_ssim
from models.radogaga import LOG_FLOOR
from utils.errors import UserError

VECTORS = {"architecture": "mlp:12", "channels": 6, "latent_dim": 3}
IMAGES = {"architecture": "mnist", "channels": 1, "latent_dim": 4}


def repeat_noise(monkeypatch, noise: torch.Tensor) -> None:
    """Make the model's uniform draw on [0, 1) this one."""
    monkeypatch.setattr(torch, "rand_like", lambda z: noise.to(z))


@pytest.mark.parametrize("h", ["d", "log"])
@pytest.mark.parametrize("noise_width", [1.0, 0.2])
def test_the_loss_is_the_published_sum(monkeypatch, h, noise_width):
    torch.manual_seed(0)
    model = models.build("radogaga", **VECTORS, lambda1=7.0, lambda2=3.0, h=h, noise_width=noise_width).double()
    x, uniform = torch.rand(5, 6, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    repeat_noise(monkeypatch, uniform)
    found = model.losses(x)

    z = model.enc(x)
    noisy = z + noise_width * (uniform - 0.5)
    # The interval of width w around z, written with the cumulative distribution of z / w.
    logits = [model.prior.logits_cumulative(((noisy / noise_width) + half).T[:, None])[:, 0].T for half in (-0.5, 0.5)]
    rate = -torch.log(torch.sigmoid(logits[1]) - torch.sigmoid(logits[0])).sum(1).mean()
    d1 = (x - model.dec(z)).square().mean(1)
    d2 = (model.dec(z) - model.dec(noisy)).square().mean(1)
    penalty = d1 if h == "d" else torch.log(d1 + LOG_FLOOR)
    torch.testing.assert_close(found["loss"], rate + 7 * penalty.mean() + 3 * d2.mean())
    torch.testing.assert_close(found["rate"], rate)
    torch.testing.assert_close(found["reconstruction"], d1.mean())
    torch.testing.assert_close(found["noise_effect"], d2.mean())


def test_the_noise_has_the_width_that_was_asked_for(monkeypatch):
    model = models.build("radogaga", **VECTORS, noise_width=0.2)
    seen = []
    monkeypatch.setattr(model, "decode", lambda z: seen.append(z) or torch.zeros(len(z), 6))
    model.losses(torch.rand(2000, 6))
    noise = (seen[1] - seen[0]).detach()
    assert noise.abs().max() <= 0.1 + 1e-6
    assert noise.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.05)


def test_ssim_does_not_take_the_negative_for_the_image():
    """SSIM's own formula gives x and −x the value 1; a decoder that ends in tanh found −x for half of its pixels."""
    torch.manual_seed(0)
    x = F.interpolate(torch.rand(2, 1, 6, 6), size=(24, 24), mode="bicubic").clamp(0, 1)
    assert one_minus_ssim(x, x).abs().max() < 1e-6
    assert (one_minus_ssim(-x, x) > 1).all()
    assert torch.allclose(one_minus_ssim(2 * x - 0.5, 2 * x - 0.5), torch.zeros(2), atol=1e-6)
    found = (-0.5 * x).requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        one_minus_ssim(found, x).sum().backward()
        optimizer.step()
    assert (found - x).abs().mean() < 0.05


@pytest.mark.parametrize("name", ["radogaga", "beta-vae"])
def test_ssim_trains_images_and_refuses_vectors(name):
    torch.manual_seed(0)
    model = models.build(name, **IMAGES, distortion="ssim")
    losses = model.losses(torch.rand(3, 1, 32, 32))
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(UserError, match="--distortion ssim"):
        models.build(name, **VECTORS, distortion="ssim")


@pytest.mark.parametrize("name", ["radogaga", "beta-vae"])
def test_each_distortion_has_a_flag(monkeypatch, name):
    """--distortion2 is --loss2 of the release: it changes the noise's effect and leaves the reconstruction."""
    torch.manual_seed(0)
    model = models.build(name, **IMAGES, lambda1=5.0, lambda2=3.0, distortion2="ssim").double()
    x, noise = torch.rand(3, 1, 32, 32, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    for draw in ("rand_like", "randn_like"):
        monkeypatch.setattr(torch, draw, lambda z: noise.to(z))
    found = model.losses(x)
    if name == "radogaga":
        z = model.encode(x)
        noisy, rate = z + 0.3 * (noise - 0.5), found["rate"]
    else:
        z, logvar = model.posterior(x)
        noisy, rate = z + noise * torch.exp(logvar / 2), found["kl"]
    decoded, decoded_noisy = model.decode(z), model.decode(noisy)
    squared, ssim = (decoded - x).square().mean(), one_minus_ssim(decoded_noisy, decoded).mean()
    torch.testing.assert_close(found["reconstruction"], squared)
    torch.testing.assert_close(found["noise_effect"], ssim)
    torch.testing.assert_close(found["loss"], rate + 5 * squared + 3 * ssim)
    with pytest.raises(UserError, match="--distortion2 ssim"):
        models.build(name, **VECTORS, distortion2="ssim")


def test_the_preset_has_the_weights_of_the_release():
    """λ there is in bits per pixel of 64x64 images, here in nats per image."""
    nats = 64**2 * math.log(2)
    options = PRESETS["radogaga-celeba-ssim"].flags
    assert options["lambda1"] == pytest.approx(0.2 * nats, abs=0.05)
    assert options["lambda2"] == pytest.approx(0.1 * nats, abs=0.05)
    assert (options["h"], options.get("distortion", "mse"), options["distortion2"]) == ("log", "mse", "ssim")


@pytest.mark.parametrize("prior", ["factorized", "gmm"])
def test_a_prior_of_gaussian_codes(prior):
    """Both priors find the density of the codes: the energies are the true ones, draws have the codes' moments."""
    torch.manual_seed(0)
    model = models.build("radogaga", **VECTORS, prior=prior, noise_width=0.1, components=1)
    deviation = torch.tensor([0.5, 1.0, 2.0])
    z = deviation * torch.randn(4000, 3) + 1.0
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=2e-2)
    for index in torch.randint(0, len(z), (400, 500)):
        optimizer.zero_grad()
        model.prior.energy(z[index]).mean().backward()
        optimizer.step()
    model.eval()
    if prior == "gmm":
        model.prior.fit([z])
    with torch.no_grad():
        energy = model.prior.energy(z).mean()
    expected = 0.5 * math.log(2 * math.pi * math.e) * 3 + deviation.log().sum()
    if prior == "factorized":  # a probability of the interval of width w, not a density
        expected -= 3 * math.log(0.1)
    assert float(energy) == pytest.approx(float(expected), abs=0.1)
    draws = model.sample_prior(5000, torch.Generator().manual_seed(0))
    assert draws.shape == (5000, 3) and draws.dtype == torch.float32
    torch.testing.assert_close(draws.mean(0), torch.ones(3), atol=0.25, rtol=0)
    torch.testing.assert_close(draws.std(0), deviation, rtol=0.1, atol=0)


def test_the_loss_is_least_where_the_decoder_is_isometric():
    """Of all scalings of a linear code, the loss chooses the one of theory, the same along both directions.

    The data is a plane stretched 4 : 1. Encoder and decoder are each other's inverse up to two scales s; rate and noise
    balance where the decoder's metric 1 / s² / 6 is 1 / (2 λ2 w² / 12), however much the data varies there.
    """
    torch.manual_seed(0)
    plane = torch.linalg.qr(torch.randn(6, 2)).Q
    x = torch.randn(5000, 2) * torch.tensor([2.0, 0.5]) @ plane.T
    model = models.build(
        "radogaga",
        architecture="mlp:4",
        channels=6,
        latent_dim=2,
        lambda2=500.0,
        noise_width=0.3,
        prior="gmm",
        components=1,
    )
    log_scale = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    model.encode = lambda x: x @ plane * log_scale.exp()
    model.decode = lambda z: z / log_scale.exp() @ plane.T
    optimizer = torch.optim.Adam([log_scale], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        model.losses(x)["loss"].backward()
        optimizer.step()
    metric = (-2 * log_scale).exp().detach() / 6
    torch.testing.assert_close(metric, torch.full((2,), 12 / (2 * 500 * 0.3**2)), rtol=0.03, atol=0)


@pytest.mark.parametrize("joint", [False, True])
def test_beta_vae_is_the_published_sum(monkeypatch, joint):
    torch.manual_seed(0)
    model = models.build("beta-vae", **VECTORS, lambda1=5.0, lambda2=2.0, joint=joint).double()
    x, noise = torch.rand(4, 6, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    mean, logvar = model.enc(x).chunk(2, dim=1)
    posterior = torch.distributions.Normal(mean, torch.exp(logvar / 2))
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    quiet, noisy = model.dec(mean), model.dec(mean + torch.exp(logvar / 2) * noise)
    if joint:
        expected = 5 * F.mse_loss(noisy, x) + kl
    else:
        expected = 5 * F.mse_loss(quiet, x) + 2 * F.mse_loss(noisy, quiet) + kl
    torch.testing.assert_close(model.losses(x)["loss"], expected)
    assert torch.equal(model.encode(x), mean)
