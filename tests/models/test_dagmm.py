"""DAGMM: its loss against the paper's formula (features: test_residual.py), its contract, that it finds the strange."""

import pytest
import torch

import models
from models.dagmm import DAGMM


@pytest.fixture
def blobs():
    """Normal vectors on two tight clusters, and strange ones between and beside them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(2, 8, generator=generator)
    normal = centres[torch.randint(0, 2, (600,), generator=generator)] + 0.03 * torch.randn(600, 8, generator=generator)
    return normal, torch.rand(60, 8, generator=generator)


def trained(normal, steps=300):
    torch.manual_seed(0)
    model = DAGMM("mlp:8", 8, 1, components=2)
    optimizer = torch.optim.Adam(model.parameter_groups(3e-3))
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model.losses(normal[torch.randint(0, len(normal), (256,), generator=generator)])["loss"].backward()
        optimizer.step()
    model.fit_prior(normal.split(100))
    return model.eval()


def test_the_loss_is_the_weighted_sum_of_its_terms():
    torch.manual_seed(0)
    model = DAGMM("mlp:4", 5, 1, components=3, lambda_energy=0.7, lambda_covariance=0.02)
    x = torch.rand(32, 5)
    losses = model.losses(x)
    expected = losses["reconstruction"] + 0.7 * losses["energy"] + 0.02 * losses["covariance"]
    torch.testing.assert_close(losses["loss"], expected)
    squared_error = (model(x) - x).square().sum() / 32
    torch.testing.assert_close(losses["reconstruction"], squared_error)


@pytest.mark.parametrize("x", [torch.zeros(6, 5), torch.ones(6, 5), torch.rand(1, 5), 1e4 * torch.rand(6, 5)])
def test_degenerate_batches_have_finite_gradients(x):
    torch.manual_seed(0)
    model = DAGMM("mlp:4", 5, 1)
    model.losses(x)["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_strange_samples_have_more_energy(blobs):
    normal, strange = blobs
    model = trained(normal)
    with torch.no_grad():
        ordinary, unlikely = model.energy(normal), model.energy(strange)
    assert (unlikely > ordinary.quantile(0.95)).float().mean() > 0.9


def test_the_mixture_travels_with_the_weights(blobs):
    normal, _ = blobs
    model = trained(normal, steps=5)
    copy = models.build("dagmm", architecture="mlp:8", channels=8, latent_dim=1, components=2)
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy.eval().energy(normal), model.energy(normal), rtol=0, atol=0)


def test_prior_samples_have_the_spread_of_the_codes(blobs):
    normal, _ = blobs
    model = trained(normal)
    codes = model.encode(normal).detach()
    draws = model.sample_prior(20_000, torch.Generator().manual_seed(0))
    assert draws.shape == (20_000, 1)
    assert draws.mean().item() == pytest.approx(codes.mean().item(), abs=0.1 * codes.std().item())
    assert draws.std().item() == pytest.approx(codes.std().item(), rel=0.1)


def test_images_go_through_the_same_model():
    torch.manual_seed(0)
    model = models.build("dagmm", architecture="mnist", channels=1, latent_dim=4)
    x = torch.rand(8, 1, 32, 32)
    losses = model.losses(x)
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.eval().energy(x).shape == (8,)
