"""β-TCVAE: its three terms against an independent float64 computation, and what its weights estimate."""

import math

import numpy as np
import pytest
import torch

import models
from models.vae import log_gaussian, stratified_weights
from utils.errors import UserError

VECTORS = {"architecture": "mlp:8", "channels": 4, "latent_dim": 3}


def test_the_loss_is_the_published_sum(monkeypatch):
    """Densities from torch.distributions, and the estimator of appendix C.2 written out term by term."""
    torch.manual_seed(0)
    model = models.build("beta-tcvae", **VECTORS, beta=4.0).double()
    model.train_size = 50
    x, noise = torch.rand(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    losses = {key: value.item() for key, value in model.losses(x).items()}
    with torch.no_grad():
        mean, logvar = model.posterior(x)
        z = mean + noise * torch.exp(logvar / 2)
        q = torch.distributions.Normal(mean, torch.exp(logvar / 2)).log_prob(z[:, None]).exp().numpy()
        p = torch.distributions.Normal(0, 1).log_prob(z).sum(1).numpy()
        decoded = model.decode(z)
    others = 5
    joint, marginals = np.zeros(6), np.zeros((6, 3))
    for a in range(6):
        for b in range(6):
            stratified = (50 - others) / (50 * others)
            weight = 1 / 50 if a == b else stratified if b == (a + 1) % 6 else 1 / others
            joint[a] += weight * q[a, b].prod()
            marginals[a] += weight * q[a, b]
    own = np.array([q[a, a].prod() for a in range(6)])
    cross_entropy = torch.nn.functional.binary_cross_entropy(decoded, x, reduction="none").sum(1).mean().item()
    expected = {
        "reconstruction": cross_entropy,
        "mutual_information": np.log(own / joint).mean(),
        "total_correlation": np.log(joint / marginals.prod(1)).mean(),
        "dimension_kl": (np.log(marginals).sum(1) - p).mean(),
    }
    assert {key: losses[key] for key in expected} == pytest.approx(expected, rel=1e-10)
    loss = cross_entropy + expected["mutual_information"] + 4 * expected["total_correlation"] + expected["dimension_kl"]
    assert losses["loss"] == pytest.approx(loss, rel=1e-10)


def test_the_three_terms_add_up_to_the_divergence():
    """Whatever the weights: with β = 1 the loss is the evidence lower bound with a sampled KL term."""
    torch.manual_seed(0)
    model = models.build("beta-tcvae", **VECTORS, beta=1.0).double()
    model.train_size = 1000
    x = torch.rand(7, 4, dtype=torch.float64)
    torch.manual_seed(1)
    losses = model.losses(x)
    torch.manual_seed(1)
    z, (mean, logvar) = model.sample_codes(x), model.posterior(x)
    zero = torch.zeros_like(z)
    kl = (log_gaussian(z, mean, logvar) - log_gaussian(z, zero, zero)).sum(1).mean()
    torch.testing.assert_close(losses["loss"] - losses["reconstruction"], kl)


@pytest.mark.parametrize(("num", "train_size"), [(1, 9), (2, 9), (5, 5), (8, 60_000), (64, 20)])
def test_weights_of_a_row_sum_to_one(num, train_size):
    weights = stratified_weights(num, train_size, torch.zeros((), dtype=torch.float64))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(num, dtype=torch.float64))
    if num == train_size:  # the batch is the training set: the image's own posterior has its exact share
        torch.testing.assert_close(weights.diagonal(), torch.full((num,), 1 / num, dtype=torch.float64))


def test_total_correlation_tells_dependent_dimensions_from_independent_ones():
    """Codes on a line, all dimensions equal, have a total correlation; independent ones have almost none."""
    torch.manual_seed(0)
    model = models.build("beta-tcvae", **VECTORS)
    model.train_size = 512

    def total_correlation(mean: torch.Tensor) -> float:
        model.posterior = lambda x: (mean, torch.full_like(mean, math.log(0.01)))
        with torch.no_grad():
            return model.losses(torch.rand(512, 4))["total_correlation"].item()

    assert total_correlation(torch.randn(512, 1).expand(512, 3)) > 2
    assert abs(total_correlation(torch.randn(512, 3))) < total_correlation(torch.randn(512, 1).expand(512, 3)) / 2


def test_without_the_number_of_training_samples_it_says_so():
    with pytest.raises(UserError, match="train_size"):
        models.build("beta-tcvae", **VECTORS).losses(torch.rand(4, 4))
