"""Manifolds of known dimension, and the solver of the Kuramoto-Sivashinsky equation."""

import numpy as np
import pytest

from data import kuramoto_sivashinsky as ks
from data.manifolds import TEST, TUNING, manifold
from utils.errors import UserError


def local_dimension(points: np.ndarray, neighbours: int) -> float:
    """The median over 50 points of how many principal directions the nearest neighbours have."""
    found = []
    for point in points[:50]:
        near = points[np.argsort(np.square(points - point).sum(axis=1))[:neighbours]]
        values = np.linalg.svd(near - near.mean(axis=0), compute_uv=False)
        found.append((values > 0.2 * values[0]).sum())
    return float(np.median(found))


@pytest.mark.parametrize("name", ["sphere-2-in-20", "spiral-surface-2-in-20", "circles-2-in-10", "sphere-3-in-15"])
def test_neighbourhoods_have_the_dimension_that_is_named(name):
    points, dimension, _ = manifold(name, 5_000)
    assert local_dimension(points, 12 * int(dimension)) == dimension


def test_what_is_known_of_each_is_in_its_name():
    for name, known in (TUNING | TEST).items():
        words = name.removesuffix("-noise").split("-")
        if known.ambient is not None:
            assert (int(words[-3]), int(words[-1])) == (known.dimension, known.ambient)
    assert not TUNING.keys() & TEST.keys()


def test_an_embedding_keeps_distances_and_noise_has_its_size():
    """A unit sphere in 50 dimensions has inner products of its own 6 coordinates; the noise is 1 % of their size."""
    points, _, _ = manifold("sphere-5-in-50", 400, seed=3)
    assert np.allclose(np.linalg.norm(points, axis=1), 1)
    values = np.linalg.svd(points, compute_uv=False)
    assert (values > 1e-12 * values[0]).sum() == 6
    noisy, _, _ = manifold("sphere-5-in-50-noise", 4_000)
    values = np.linalg.svd(noisy / np.sqrt(np.mean(noisy**2)), compute_uv=False)
    assert np.sqrt(np.mean(values[6:] ** 2) / len(noisy)) == pytest.approx(0.01, rel=0.05)


def test_points_depend_on_the_seed_and_the_name_alone():
    first, again, other = (manifold("nonlinear-6-in-40", 20, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert manifold("torus-2-in-30", 20)[0].shape == (20, 30)  # of scikit-dimension
    with pytest.raises(UserError, match="unknown manifold 'sphere'"):
        manifold("sphere")


def test_the_lorenz_attractor_is_linear_in_its_coordinates_and_their_cubes():
    points, _, _ = manifold("lorenz-in-128", 500)
    modes = np.polynomial.legendre.legvander(np.linspace(-1, 1, 128), 5)
    state = 40 * np.linalg.lstsq(modes, points.T, rcond=None)[0][:3].T
    assert np.allclose(modes @ np.vstack([(state / 40).T, (state / 40).T ** 3]), points.T)
    assert 20 < state[:, 2].mean() < 27  # about the two fixed points, z = 27, of which the orbits stay below on average
    assert np.abs(state).max() < 60


def test_fields_at_half_the_step_have_the_same_energy_spectrum():
    """From the same initial fields for 20 time units; a fourth-order method errs 16 times less at half the step."""
    start = np.fft.rfft(np.random.default_rng(0).standard_normal((4, 4)) @ waves(4))
    start = ks.evolve(start, 22, 64, 0.25, 400, 0)[-1]
    spectra, ends = [], []
    for factor in (1, 2, 4):
        fields = ks.evolve(start, 22, 64, 0.125 / factor, 160 * factor, 8 * factor)
        spectra.append(np.mean(np.abs(fields) ** 2, axis=(0, 1)))
        ends.append(fields[-1])
    assert np.allclose(spectra[0][1:14], spectra[1][1:14], rtol=1e-3)
    errors = [np.abs(end - ends[-1]).max() for end in ends[:2]]
    assert 10 < errors[0] / errors[1] < 25


def waves(num: int) -> np.ndarray:
    return np.cos(2 * np.pi * np.arange(1, num + 1)[:, None] * np.arange(64) / 64)


def test_energy_is_produced_and_dissipated_at_the_same_rate():
    """d/dt mean(u²)/2 = mean(u_x²) − mean(u_xx²), which is 0 on average; mean(u) is conserved."""
    fields = ks.kuramoto_sivashinsky(4_000)
    energy = np.mean(np.abs(np.fft.rfft(fields)) ** 2, axis=0)
    wavenumbers = 2 * np.pi / 22 * np.arange(33)
    assert np.sum(wavenumbers**2 * energy) == pytest.approx(np.sum(wavenumbers**4 * energy), rel=1e-2)
    assert np.abs(fields.mean(axis=1)).max() < 1e-12
    assert fields.shape == (4_000, 64)
