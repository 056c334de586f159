"""Toy data whose density is known: generated, and the published file as it is found."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from data import toy
from utils.errors import UserError


def test_generated_toy_data_is_an_isometric_lift_with_its_own_density():
    points = toy.generate(5000, seed=1)
    vectors = points.vectors.double().numpy()
    assert vectors.shape == (5000, 16)
    assert vectors.min() == 0
    assert vectors.max() == 1
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    assert singular[3] < 1e-5 * singular[2]
    # In three principal coordinates, rescaled to the sources' units, the mixture is that of the sources.
    coordinates = (vectors - vectors.mean(axis=0)) @ np.linalg.svd(vectors - vectors.mean(axis=0))[2][:3].T
    first = coordinates[points.component == 0]
    coordinates /= np.sqrt(np.trace(np.cov(first.T)) / 3)
    estimate = np.zeros(5000)
    for k, variance in enumerate(toy.VARIANCES):
        own = coordinates[points.component == k]
        np.testing.assert_allclose(np.cov(own.T), variance * np.eye(3), atol=0.12 * variance)
        estimate += multivariate_normal(own.mean(axis=0), variance * np.eye(3)).pdf(coordinates) / 3
    assert np.corrcoef(estimate, points.density)[0, 1] > 0.995


def test_published_toy_layout(tmp_path):
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(50, 16)), rng.random(50), rng.integers(0, 3, 50)])
    np.savetxt(tmp_path / "toy.csv", values, delimiter=",")
    points = toy.load(tmp_path)
    inputs = values[:, :16]
    np.testing.assert_allclose(points.vectors, (inputs - inputs.min()) / np.ptp(inputs), atol=1e-6)
    np.testing.assert_allclose(points.density, values[:, 16])
    assert points.component.tolist() == values[:, 17].tolist()
    (tmp_path / "toy.csv").write_text("1,2,3\n4,5,6\n")
    with pytest.raises(UserError, match="found 3 columns, expected 17 or 18"):
        toy.load(tmp_path)
    with pytest.raises(UserError, match=r"no toy\.csv"):
        toy.load(tmp_path / "elsewhere")


def test_headers_row_numbers_and_a_missing_component_change_nothing(tmp_path):
    rows = np.random.default_rng(0).random((20, 18))
    rows[:, 17] = np.arange(20) % 3
    plain = "\n".join(",".join(map(str, row)) for row in rows.tolist())
    path = tmp_path / "toy.csv"
    path.write_text(plain)
    expected = toy.load(path)
    names = [*(f"x{index}" for index in range(16)), "density", "component"]
    for header in (names, range(18), range(1, 19), [f"{index}.0" for index in range(18)]):
        path.write_text(",".join(map(str, header)) + "\n" + plain, encoding="utf-8-sig")
        found = toy.load(path)
        assert torch.equal(found.vectors, expected.vectors) and (found.component == expected.component).all()
        assert "line 1 is the header" in found.source
    numbered = [f"{number},{line}" for number, line in enumerate(plain.splitlines())]
    for lines in (numbered, [",".join(["", *map(str, range(18))]), *numbered]):
        path.write_text("\n".join(lines))
        found = toy.load(path)
        assert torch.equal(found.vectors, expected.vectors) and (found.density == expected.density).all()
        assert "left out: row numbers" in found.source
    np.savetxt(path, rows[:, :17], delimiter=",")
    found = toy.load(path)
    assert torch.equal(found.vectors, expected.vectors) and (found.component == 0).all()


def test_what_is_no_density_or_no_component_is_refused(tmp_path):
    rows = np.random.default_rng(0).random((20, 18))
    np.savetxt(tmp_path / "toy.csv", rows, delimiter=",")
    with pytest.raises(UserError, match="column 18: components are whole numbers"):
        toy.load(tmp_path)
    rows[:, 17] = 0
    rows[3, 16] = -0.5
    np.savetxt(tmp_path / "toy.csv", rows, delimiter=",")
    with pytest.raises(UserError, match="column 17: densities are 0 or more, found -0"):
        toy.load(tmp_path)
