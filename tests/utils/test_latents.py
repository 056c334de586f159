"""Spectrum, rank and the densities fitted to codes: known covariances in, known numbers out."""

import numpy as np
import pytest
import torch
from PIL import Image

import singular
from utils import grids, latents, plots
from utils.errors import UserError


def codes_with(singular_values, num=4000, seed=0) -> torch.Tensor:
    """Codes whose sample covariance has exactly these singular values, in a random rotation."""
    rng = np.random.default_rng(seed)
    n = len(singular_values)
    white = rng.standard_normal((num, n))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    rotation = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return torch.from_numpy(white * np.sqrt(singular_values) @ rotation.T + 3.0)


def test_spectrum_of_a_known_covariance():
    values = np.array([5.0, 2.0, 0.5, 0.01, 0.004, 1e-6])
    found = latents.spectrum(codes_with(values))
    assert found.values == pytest.approx(values / 5, rel=1e-6)
    assert found.largest == pytest.approx(5)
    assert found.rank() == 4  # 0.004 / 5 is below 1e-3
    assert found.rank(1e-4) == 5
    p = values / values.sum()
    assert found.effective_rank() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_the_spectrum_does_not_depend_on_scale_shift_or_rotation():
    codes = codes_with([3.0, 1.0, 0.2])
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = 100 * codes @ rotation - 7
    assert latents.spectrum(moved).values == pytest.approx(latents.spectrum(codes).values, rel=1e-8)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_equal_singular_values_is_their_number(rank):
    found = latents.spectrum(codes_with([1.0] * rank + [0.0] * (8 - rank)))
    assert found.effective_rank() == pytest.approx(rank, rel=1e-6)
    assert found.rank() == rank


def test_codes_that_do_not_vary_have_rank_zero():
    found = latents.spectrum(torch.ones(10, 4))
    assert found.rank() == 0 and found.effective_rank() == 0
    with pytest.raises(UserError, match="at least 2"):
        latents.spectrum(torch.ones(1, 4))


def test_gaussian_samples_have_the_mean_and_covariance_of_the_codes():
    codes = codes_with([4.0, 1.0, 0.0])
    drawn = latents.sample_gaussian(codes, 40_000, seed=1).double()
    assert (drawn.mean(0) - codes.mean(0)).abs().max() < 0.05
    assert np.abs(np.cov(drawn.T) - np.cov(codes.T)).max() < 0.1
    assert torch.equal(latents.sample_gaussian(codes, 5, 1), latents.sample_gaussian(codes, 5, 1))


def test_mixture_finds_separate_clusters():
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    codes = (centres[:, None] + torch.randn(3, 200, 2, generator=torch.Generator().manual_seed(0))).flatten(0, 1)
    mixture = latents.fit_mixture(codes, 3, seed=0)
    assert sorted(mixture.means_.round(-1).tolist()) == sorted(centres.tolist())
    with pytest.raises(UserError, match="-d 601"):
        latents.fit_mixture(codes, 601, seed=0)


def test_pca_refuses_more_components_than_there_are():
    assert latents.fit_pca(torch.randn(50, 4), 4, 0).explained_variance_ratio_.sum() == pytest.approx(1)
    with pytest.raises(UserError, match=r"-d 5.*n = 4"):
        latents.fit_pca(torch.randn(50, 4), 5, 0)


def test_grid_places_images_row_by_row():
    images = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 32, 32)
    grid = plots.image_grid(images, columns=3)
    assert grid.shape == (3, 2 * 66 + 2, 3 * 66 + 2)  # 64 pixels and a border of 2
    assert [round(float(grid[0, y, x]), 2) for y in (30, 96) for x in (30, 96, 162)] == [0, 0.2, 0.4, 0.6, 0.8, 1]


@pytest.mark.parametrize("dpi", [150, 300, 310])
def test_words_beside_a_grid_leave_its_pixels_as_they_are(tmp_path, dpi):
    images = torch.rand(4, 1, 70, 70, generator=torch.Generator().manual_seed(0))  # no larger as a tile
    words = {"top": ("in", "out"), "left": ("−2σ", "a $ sign"), "across": "component 2", "down": "component 1"}
    grid = grids.Grid(images, 2, "test", **words, groups=(1,))
    plots.save_figure(tmp_path / "x.png", grids.draw([grid], ["ae"], "digits"), dpi)
    shown = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    factor = max(1, round(dpi / 150))
    assert all(size % factor == 0 for size in shown.shape[:2])
    small = shown[::factor, ::factor]
    expected, centres, side = grid.picture()
    assert centres[1] - centres[0] == side + grids.GAP and (expected[:, side + 8] == 255).all()
    height, width = expected.shape[:2]
    free = small.shape[0] - height, small.shape[1] - width
    (place,) = (at for at in np.ndindex(free) if np.array_equal(small[at[0] :, at[1] :][:height, :width], expected))
    y, x = (factor * offset for offset in place)
    large = expected.repeat(factor, axis=0).repeat(factor, axis=1)
    assert np.array_equal(shown[y : y + factor * height, x : x + factor * width], large)
    assert (shown[:y] < 128).any() and (shown[:, :x] < 128).any()  # words
    bare = grids.draw([grid], ["ae"], "digits", bare=True)
    plots.save_figure(tmp_path / "bare.png", bare, 150)
    plots.save_grid(tmp_path / "grid.png", grid.images, 2)
    same = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int) for name in ("bare", "grid")]
    assert np.abs(same[0] - same[1]).max() <= 1  # rounding to 8 bits


def test_colours_are_written_as_they_are_into_an_empty_folder(tmp_path):
    images = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    assert grids.write_images(tmp_path / "a" / "b", images.split(2)) == 5
    files = sorted((tmp_path / "a" / "b").iterdir())
    shown = np.stack([np.asarray(Image.open(file)) for file in files])
    assert [file.name for file in files] == [f"00000{number}.png" for number in range(5)]
    assert np.array_equal(shown, images.mul(255).round().permute(0, 2, 3, 1).numpy())
    with pytest.raises(UserError, match="not an empty folder"):
        grids.write_images(tmp_path / "a" / "b", images.split(2))


def test_a_traverse_walks_along_the_dimensions_with_most_variance():
    codes = (
        torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 5.0, 2.0]) + 4
    )
    walked, order = latents.traverse(codes, 2, 5, reach=2.0)
    assert order.tolist() == [1, 2, 0]
    first, second = walked.view(2, 5, 3)
    assert first[:, 1].tolist() == pytest.approx([-6, -1, 4, 9, 14], abs=0.5)
    assert torch.equal(first[:, [0, 2]], codes.mean(0)[[0, 2]].float().expand(5, 2)), "one dimension moves at a time"
    assert second[4, 2] - second[0, 2] == pytest.approx(8, rel=0.05)
    assert len(latents.traverse(codes, 10, 5)[0]) == 15, "no more rows than dimensions"


def test_factors_are_predicted_from_the_codes_of_other_samples():
    """A curved code of two factors, a third that it says nothing of, and one with two values."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.rand(3, 2000, generator=generator)
    codes = torch.stack([torch.sin(3 * a) + b, torch.cos(3 * a), b * a, 5 * b.square()], dim=1)
    factors = {"a": a, "b": b, "c": c, "half": (a > 0.5).float()}
    found = singular.explained(codes, factors, 0)
    assert list(found) == ["a", "b", "c", "half", "half, accuracy"]
    assert found["a"] > 0.99 and found["b"] > 0.99
    assert -0.5 < found["c"] < 0.02  # not its own value, which 500 features would have fitted
    assert found["half, accuracy"] > 0.95 and found["half"] > 0.8
    assert found == singular.explained(codes, factors, 0)


def test_coordinates_are_those_of_the_singular_vectors_of_the_covariance():
    """Against an independent decomposition: that of the centred codes themselves, by numpy."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((200, 3)) @ np.diag([5.0, 1.0, 0.1]) @ rng.standard_normal((3, 6)) + 4
    basis = latents.basis(torch.from_numpy(codes))
    assert basis.spectrum.rank() == 2 and basis.spectrum.rank(1e-6) == 3
    u, values, _ = np.linalg.svd(codes - codes.mean(axis=0), full_matrices=False)
    found = basis.coordinates(torch.from_numpy(codes), 3).numpy()
    assert np.allclose(abs(found), abs(u[:, :3] * values[:3]))
    assert torch.allclose(basis.codes(found), torch.from_numpy(codes))  # rank 3: nothing is lost
    assert basis.coordinates(torch.from_numpy(codes)).shape == (200, 2)
    assert torch.allclose(basis.codes(np.zeros((1, 0))), torch.from_numpy(codes.mean(axis=0, keepdims=True)))
    for wrong in (lambda: basis.coordinates(torch.from_numpy(codes), 7), lambda: basis.codes(np.zeros((1, 7)))):
        with pytest.raises(UserError, match="n = 6"):
            wrong()
