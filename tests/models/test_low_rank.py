"""LoRAE and RRAE: the nuclear norm and the truncated decomposition against numpy in float64."""

import numpy as np
import pytest
import torch

import models
from data.base import VectorDataset
from models.rrae import BLOCK, PATIENCE, Truncation
from utils import loop

SMALL = {"architecture": "mlp:8", "channels": 6, "latent_dim": 5}


def test_the_nuclear_norm_and_its_gradient():
    torch.manual_seed(0)
    model = models.build("lorae", nuclear_weight=0.3, **SMALL).double()
    x = torch.rand(7, 6, dtype=torch.float64)
    losses = model.losses(x)
    weight = model.mlp.hidden[0].weight
    u, s, vh = np.linalg.svd(weight.detach().numpy())
    error = ((model(x) - x).detach().numpy() ** 2).mean()
    assert losses["nuclear_norm"].item() == pytest.approx(s.sum(), rel=1e-12)
    assert losses["loss"].item() == pytest.approx(error + 0.3 * s.sum(), rel=1e-12)
    (gradient,) = torch.autograd.grad(losses["nuclear_norm"], weight)
    assert np.abs(gradient.numpy() - u @ vh).max() < 1e-12


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_truncation_and_its_derivative(shape, rank):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vh = np.linalg.svd(z.numpy(), full_matrices=False)
    s[rank:] = 0
    assert np.abs(Truncation.apply(z, rank).numpy() - (u * s) @ vh).max() < 1e-12
    assert torch.autograd.gradcheck(lambda matrix: Truncation.apply(matrix, rank), z.requires_grad_())


def test_equal_singular_values_have_a_gradient():
    z = torch.cat([torch.eye(3), torch.zeros(3, 3)], dim=1).double().requires_grad_()
    Truncation.apply(z, 3).square().sum().backward()
    assert torch.allclose(z.grad, 2 * z.detach())


def test_outside_training_the_code_has_the_rank_and_is_that_of_the_batch():
    """With one batch that is the whole data set, projection and truncation are the same."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    model = models.build("rrae", rank=2, momentum=1.0, **SMALL)
    model.train().losses(x)
    model.eval()
    with torch.no_grad():
        z = model.encode(x)
        assert torch.linalg.matrix_rank(z, rtol=1e-4) == 2
        assert torch.allclose(z, Truncation.apply(model.enc(x), 2), atol=1e-5)
        assert torch.allclose(z[:1], model.encode(x[:1]), atol=1e-6)  # an image alone has the same code


@pytest.mark.parametrize("target, first", [(0.0, [9.0, 1.0, *[1.0] * PATIENCE]), (1.0, [9.0, 1.0])])
def test_the_adaptive_rank_falls_while_the_loss_reaches_its_target(target, first):
    """The algorithm on given losses: stagnation or a known target, three ranks that reach it, one that does not."""
    model = models.build("rrae", adaptive_rank=True, target_loss=target, **SMALL)
    for mean in [*first, *[0.9] * 3, *[1.1] * PATIENCE, *[0.1] * 5]:
        for _ in range(BLOCK):
            model.adapt(mean)
    assert model.kept == 5 - 3 + 1


def test_training_steps_count_their_losses():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    model = models.build("rrae", adaptive_rank=True, **SMALL)
    step = loop.Step(model, loop.make_optimizer(model, 1e-2), VectorDataset(x))
    losses = [step(torch.arange(40))[0].item() for _ in range(BLOCK)]
    assert model.search[2].item() == pytest.approx(sum(losses) / BLOCK, rel=1e-6)
    assert model.losses(x)["rank"] == 5


def test_the_encoders_code_of_lorae_is_before_its_matrix():
    model, x = models.build("lorae", **SMALL).eval(), torch.rand(5, SMALL["channels"])
    with torch.no_grad():
        assert torch.equal(model.encoder_codes(x), model.enc(x))
        assert torch.allclose(model.encode(x), model.enc(x) @ model.mlp.hidden[0].weight.T, atol=1e-6)
