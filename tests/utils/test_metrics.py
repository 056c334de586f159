"""FID and KID against independent float64 formulas, SSIM against a closed form."""

import numpy as np
import pytest
import torch

from utils import metrics


def correlated(num, features, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(features, features))
    return torch.from_numpy(rng.normal(size=(num, features)) @ mixing + shift)


def whitened(num, features, seed):
    """Samples whose mean is exactly 0 and whose covariance (n - 1) is exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(num, features))
    x -= x.mean(axis=0)
    return torch.from_numpy(np.linalg.solve(np.linalg.cholesky(np.cov(x, rowvar=False)), x.T).T)


def reference_frechet(real, fake):
    """By symmetric square roots, float64: nothing in common with eigenvalues of the product."""
    a, b = real.double().numpy(), fake.double().numpy()
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    difference = a.mean(axis=0) - b.mean(axis=0)
    return difference @ difference + np.trace(first) + np.trace(second) - 2 * cross


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frechet_distance_is_the_formula(dtype):
    real, fake = correlated(300, 24, 0).to(dtype), correlated(200, 24, 1, 0.3).to(dtype)
    assert metrics.frechet_distance(real, fake) == pytest.approx(reference_frechet(real, fake), rel=1e-3)


def test_frechet_distance_of_fewer_samples_than_features():
    real, fake = correlated(20, 64, 0), correlated(25, 64, 1, 0.5)
    assert metrics.frechet_distance(real, fake) == pytest.approx(reference_frechet(real, fake), rel=1e-3)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    for features in (correlated(300, 24, 0), correlated(20, 64, 0).float()):
        scale = float(features.var(dim=0).sum())
        assert metrics.frechet_distance(features, features.clone()) == pytest.approx(0, abs=1e-6 * scale)


def test_frechet_distance_of_two_gaussians_in_closed_form():
    deviations = torch.linspace(0.5, 3, 10, dtype=torch.float64)
    shift = torch.linspace(-1, 2, 10, dtype=torch.float64)
    x = whitened(500, 10, 0)
    expected = float((shift**2).sum() + ((deviations - 1) ** 2).sum())
    assert metrics.frechet_distance(x, whitened(400, 10, 1) * deviations + shift) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_symmetric():
    real, fake = correlated(300, 8, 0), correlated(200, 8, 1, 0.3)
    assert metrics.frechet_distance(real, fake) == pytest.approx(metrics.frechet_distance(fake, real), rel=1e-6)


def reference_kernel(real, fake):
    """Unbiased squared MMD of all features: no sample is compared with itself."""
    x, y = real.double().numpy(), fake.double().numpy()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return within - 2 * kernel(x, y).mean()


def test_kernel_distance_is_the_formula():
    real, fake = correlated(150, 12, 0).float(), correlated(150, 12, 1, 0.4).float()
    assert metrics.kernel_distance(real, fake) == pytest.approx(reference_kernel(real, fake), rel=1e-3)


def test_kernel_distance_of_subsets_estimates_that_of_all():
    real, fake = correlated(1500, 6, 0), correlated(1500, 6, 1, 1.0)
    expected = reference_kernel(real, fake)
    assert metrics.kernel_distance(real, fake) == pytest.approx(expected, rel=0.1)
    assert metrics.kernel_distance(real, fake, seed=3) == metrics.kernel_distance(real, fake, seed=3)


def test_kernel_distance_of_one_distribution_is_zero_and_leaves_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    value = metrics.kernel_distance(correlated(400, 6, 0), correlated(400, 6, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert abs(value) < 0.05 * metrics.kernel_distance(correlated(400, 6, 0), correlated(400, 6, 1, 2.0))
