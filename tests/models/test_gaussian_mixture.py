"""The estimation network's mixture: energies against scipy, derivatives, degenerate batches, the fixed mixture."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from models.layers.gaussian_mixture import Mixture
from models.layers.mixture_estimator import MixtureEstimator
from utils.errors import Diverged, UserError


def random_mixture(components: int, features: int, seed: int = 0) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(components, features, features, generator=generator, dtype=torch.float64)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.1
    means = 2 * torch.randn(components, features, generator=generator, dtype=torch.float64)
    return Mixture(weights / weights.sum(), means, factors @ factors.mT + 0.1 * torch.eye(features).double())


def scipy_energy(mixture: Mixture, z: np.ndarray) -> np.ndarray:
    densities = [
        weight * multivariate_normal(mean, covariance).pdf(z)
        for weight, mean, covariance in zip(*(part.numpy() for part in mixture), strict=True)
    ]
    return -np.log(np.sum(densities, axis=0))


@pytest.mark.parametrize(("components", "features"), [(1, 1), (3, 2), (4, 7)])
def test_energy_is_the_negative_log_density(components, features):
    mixture = random_mixture(components, features)
    z = 3 * torch.randn(50, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    np.testing.assert_allclose(mixture.energy(z).numpy(), scipy_energy(mixture, z.numpy()), rtol=1e-10)


def test_energy_far_from_every_component_is_finite_and_quadratic():
    mixture = random_mixture(2, 3)
    far = torch.full((1, 3), 1e6)
    energy = mixture.energy(torch.cat([far, 2 * far]))
    assert torch.isfinite(energy).all()
    assert energy[1] / energy[0] == pytest.approx(4, rel=1e-3)


def test_moments_are_those_of_the_weighted_sample():
    torch.manual_seed(0)
    estimator = MixtureEstimator(3, 2, covariance_floor=0.0).eval()
    z = torch.randn(200, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 100.0, -3.0])
    mixture = estimator.mixture(*estimator.statistics(z))
    memberships = estimator.network(z).double().detach().numpy()
    for k in range(2):
        weights = memberships[:, k]
        np.testing.assert_allclose(mixture.weights[k].item(), weights.mean(), rtol=1e-12)
        np.testing.assert_allclose(
            mixture.means[k].detach(), np.average(z.double(), axis=0, weights=weights), rtol=1e-9
        )
        covariance = np.cov(z.double().numpy(), rowvar=False, aweights=weights, ddof=0)
        np.testing.assert_allclose(mixture.covariances[k].detach(), covariance, rtol=1e-6, atol=1e-7)
    assert mixture.inverse_variances().item() == pytest.approx(
        sum((1 / np.diag(c)).sum() for c in mixture.covariances.detach().numpy())
    )


def test_gradient_of_the_energy_by_finite_differences():
    torch.manual_seed(0)
    estimator = MixtureEstimator(2, 2, dropout=0.0).double()
    z = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: estimator(z)[0], (z,))
    assert torch.autograd.gradcheck(lambda z: estimator(z)[1].inverse_variances(), (z,), rtol=1e-2)


@pytest.mark.parametrize(
    "z",
    [
        torch.zeros(8, 4),  # nothing varies
        torch.full((8, 4), 1e5),  # nor does a large value, whose square rounds
        torch.randn(3, 4),  # fewer samples than dimensions
        torch.randn(8, 1).expand(8, 4) * 1e3,  # rank one
        torch.randn(1, 4),
    ],
)
def test_singular_covariances_give_finite_energies_and_gradients(z):
    torch.manual_seed(0)
    estimator = MixtureEstimator(4, 3)
    z = z.clone().requires_grad_()
    energy, mixture = estimator(z)
    (energy.mean() + 1e-9 * mixture.inverse_variances()).backward()
    assert torch.isfinite(energy).all()
    assert torch.isfinite(z.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in estimator.parameters())


def test_a_component_without_samples_does_no_harm():
    torch.manual_seed(0)
    estimator = MixtureEstimator(2, 2).eval()
    with torch.no_grad():
        estimator.network[3].bias.copy_(torch.tensor([200.0, -200.0]))  # softmax gives the second exactly 0
    z = torch.randn(100, 2)
    mixture = estimator.fit([z])
    assert mixture.weights[1] == 0
    one = Mixture(mixture.weights[:1], mixture.means[:1], mixture.covariances[:1])
    torch.testing.assert_close(mixture.energy(z), one.energy(z))


def test_what_is_not_finite_becomes_a_loss_that_is_not_a_number():
    energy, _ = MixtureEstimator(2, 2)(torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]))
    assert torch.isnan(energy).all()


def test_fit_does_not_depend_on_the_batches_and_is_kept_by_the_state():
    torch.manual_seed(0)
    estimator = MixtureEstimator(3, 2)
    z = torch.randn(90, 3)
    whole = estimator.fit([z])
    in_parts = estimator.fit(z.split(40))
    for one, other in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(one, other)
    assert estimator.training
    copy = MixtureEstimator(3, 2)
    copy.load_state_dict(estimator.state_dict())
    torch.testing.assert_close(copy.eval()(z)[0], estimator.eval()(z)[0], rtol=0, atol=0)


def test_running_statistics_approach_those_of_the_whole_set():
    torch.manual_seed(0)
    estimator = MixtureEstimator(2, 2, dropout=0.0)
    z = torch.randn(5000, 2) + 3
    for batch in z.split(50):
        estimator(batch)
    running, whole = estimator.running_mixture(), estimator.fit([z])
    torch.testing.assert_close(running.means, whole.means, atol=1e-6, rtol=1e-6)  # exactly 100 batches: a plain mean
    torch.testing.assert_close(running.covariances, whole.covariances, atol=1e-6, rtol=1e-6)


def test_samples_have_the_mixtures_moments():
    mixture = random_mixture(3, 2)
    draws = mixture.sample(200_000, torch.Generator().manual_seed(0))
    mean = mixture.weights @ mixture.means
    centred = mixture.means - mean
    covariance = torch.einsum(
        "k,kij->ij", mixture.weights, mixture.covariances + centred[:, :, None] * centred[:, None]
    )
    torch.testing.assert_close(draws.mean(dim=0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(draws.T.cov(), covariance, atol=0.1, rtol=0.02)


def test_em_finds_the_mixture_that_made_the_data_and_is_kept_by_the_state():
    truth = random_mixture(3, 2)
    z = truth.sample(20_000, torch.Generator().manual_seed(0)).float()
    estimator = MixtureEstimator(2, 3).eval()
    before = estimator.fit([z]).energy(z).mean()
    found = estimator.fit_em(z.split(3000), seed=1)
    order, expected = found.weights.argsort(), truth.weights.argsort()
    torch.testing.assert_close(found.weights[order], truth.weights[expected], atol=0.03, rtol=0)
    torch.testing.assert_close(found.means[order], truth.means[expected], atol=0.1, rtol=0)
    torch.testing.assert_close(found.covariances[order], truth.covariances[expected], atol=0.15, rtol=0.1)
    assert truth.energy(z).mean() - 0.01 < found.energy(z).mean() < before - 0.1
    copy = MixtureEstimator(2, 3)
    copy.load_state_dict(estimator.state_dict())
    torch.testing.assert_close(copy.eval()(z[:9])[0], found.energy(z[:9]), rtol=0, atol=0)


def test_em_is_scikit_learns_to_rounding_even_far_from_the_origin():
    z = random_mixture(2, 3).sample(400, torch.Generator().manual_seed(0)).float() * 1e-2 + 10
    estimator = MixtureEstimator(3, 4)
    energy = estimator.fit_em([z], seed=5).energy(z)
    reference = GaussianMixture(4, reg_covar=estimator.covariance_floor, random_state=5).fit(z.double().numpy())
    np.testing.assert_allclose(energy, -reference.score_samples(z.double().numpy()), atol=1e-4)


def test_em_of_many_samples_takes_a_draw_of_the_seed(monkeypatch):
    monkeypatch.setattr("models.layers.mixture_estimator.EM_SAMPLES", 100)
    z = torch.cat([torch.zeros(500, 1), torch.ones(500, 1)])
    weights = [MixtureEstimator(1, 2).fit_em([z], seed).weights.sort().values for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.testing.assert_close(weights[0] * 100, (weights[0] * 100).round(), rtol=0, atol=1e-6)  # of 100 samples


def test_codes_that_are_not_finite_end_a_training_not_a_library():
    with pytest.raises(Diverged, match="lower --lr"):
        MixtureEstimator(1, 2).fit_em([torch.tensor([[1.0], [float("nan")], [2.0]])])


def test_too_few_samples_and_no_samples_are_the_users_mistake():
    estimator = MixtureEstimator(2, 4)
    with pytest.raises(UserError, match="4 components needs at least as many training samples, found 3"):
        estimator.fit([torch.randn(3, 2)])
    with pytest.raises(UserError, match="found 3"):
        estimator.fit_em([torch.randn(3, 2)])
    with pytest.raises(UserError, match="no data yet"):
        estimator.eval()(torch.randn(3, 2))
