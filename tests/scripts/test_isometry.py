"""Inner products that a decoder pulls back, on decoders whose metric is known; and the script on a trained model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import data
import isometry as script
import models
from experiments import run
from models.layers.distortion import one_minus_ssim
from utils import checkpoint, isometry
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
METRICS = ("mse-difference", "mse-jacobian", "ssim-difference", "ssim-jacobian")


def test_pairs_are_unit_vectors_at_every_angle():
    v, w = isometry.random_pairs(4000, 20, torch.Generator().manual_seed(0))
    ones = torch.ones(4000)
    torch.testing.assert_close(v.norm(dim=1), ones)
    torch.testing.assert_close(w.norm(dim=1), ones)
    cosine = (v * w).sum(1)
    quantiles = torch.quantile(cosine, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([-0.8, -0.5, 0.0, 0.5, 0.8]), atol=0.05, rtol=0)
    # No direction is preferred: each coordinate has the variance 1/n.
    for vectors in (v, w):
        torch.testing.assert_close(vectors.square().mean(0), torch.full((20,), 0.05), atol=0.006, rtol=0)


def test_a_code_of_one_dimension_has_two_directions():
    v, w = isometry.random_pairs(200, 1, torch.Generator().manual_seed(0))
    assert v.shape == w.shape == (200, 1)
    assert sorted((v * w).unique().tolist()) == [-1, 1]


def test_ssim_metric_is_the_second_order_of_ssim():
    """1 − SSIM(x, x + d) ≈ <d, d>, and the inner product is the polarisation of that square."""
    torch.manual_seed(0)
    x = torch.rand(3, 2, 20, 20, dtype=torch.float64)
    v, w = 1e-4 * torch.randn(2, 3, 2, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(isometry.ssim_inner(x, v, v), one_minus_ssim(x + v, x), rtol=2e-3, atol=0)
    polarised = (isometry.ssim_inner(x, v + w, v + w) - isometry.ssim_inner(x, v - w, v - w)) / 4
    torch.testing.assert_close(isometry.ssim_inner(x, v, w), polarised)


def test_an_isometric_decoder_has_r_one_and_a_stretched_one_the_r_of_theory():
    torch.manual_seed(0)
    n, generator = 30, torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(100, n)).Q
    codes = torch.randn(3000, n)
    found = isometry.inner_products(lambda z: 3 * z @ basis.T, codes, 0.1, generator)
    assert isometry.pearson(found["latent"], found["mse-jacobian"]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found["mse-jacobian"], 9 / 100 * found["latent"], atol=1e-7)
    assert set(found) == {"latent", "mse-difference", "mse-jacobian"}  # vectors have no SSIM

    # v and w = c v + s u, with u a random direction orthogonal to v: r follows from the traces of the metric G alone.
    stretch = torch.linspace(0.1, 3, n)
    found = isometry.inner_products(lambda z: stretch * z, codes, 0.1, generator)
    trace, trace_of_square = float(stretch.square().sum()), float(stretch.pow(4).sum())
    parallel = (2 * trace_of_square + trace**2) / (n * (n + 2))  # E (vᵀGv)²
    across = (trace_of_square / n - parallel) / (n - 1)  # E (vᵀGu)²
    expected = (trace / n / 3) / (1 / 3 * (parallel / 3 + 2 / 3 * across)) ** 0.5
    assert isometry.pearson(found["latent"], found["mse-jacobian"]) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("name", list(models.MODELS))
def test_exact_products_equal_differences_for_every_model(name):
    torch.manual_seed(0)
    config = {"num_classes": 2, "sub_dim": 3} if "cat" in name else {}
    architecture = models.architecture(name, None, {"architecture": "mnist", "image_size": 32})
    model = models.build(name, architecture=architecture, channels=1, latent_dim=6, **config).double().eval()
    z, v = torch.randn(2, 3, 6, dtype=torch.float64)
    exact = isometry.pushforward(model.decode, z, v)
    difference = isometry.finite_difference(model.decode, z, 1e-7 * v) / 1e-7
    assert exact.shape == (3, 1, 32, 32)
    torch.testing.assert_close(exact, difference, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))


def test_metric_along_dimensions_is_the_diagonal():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 7)).double()
    codes = torch.randn(5, 4, dtype=torch.float64)
    found = isometry.metric_along_dimensions(decoder, codes, 1e-5, batch_size=3)
    jacobian = torch.func.vmap(torch.func.jacfwd(decoder))(codes)
    expected = (jacobian.square().sum(1) / 7).detach().numpy()
    np.testing.assert_allclose(found["mse-jacobian"], expected, rtol=1e-10)
    np.testing.assert_allclose(found["mse-difference"], expected, rtol=1e-3)


def test_a_constant_decoder_has_no_correlation():
    assert isometry.pearson(np.arange(5.0), np.ones(5)) is None


@pytest.fixture
def checkpoints(tmp_path) -> list[str]:
    """Untrained models in checkpoints, and the flags that find them."""
    for name in ("ae", "radogaga"):
        torch.manual_seed(0)
        config = run.RunConfig(name, "mnist", 8, "digits", 32, 1, models.options(name), str(tmp_path))
        record = {"format": 2, "config": config.to_dict(), "weights": config.build_model().state_dict()}
        checkpoint.save(tmp_path / "digits" / name, record)
    return ["--dataset", "digits", "--checkpoint", str(tmp_path), "--save-path", str(tmp_path / "results")]


def test_the_script_puts_several_models_in_one_table(checkpoints, tmp_path):
    small = ["--test-size", "60", "--pairs", "40", "--metric-codes", "3"]
    command = [sys.executable, "isometry.py", *checkpoints, "--model-name", "ae", "radogaga", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "results" / "digits" / "isometry"
    rows = json.loads((folder / "ae+radogaga.json").read_text())
    assert [row["model_name"] for row in rows] == ["ae", "radogaga"]
    x = next(data.load("digits", "test", str(tmp_path), 60).batches(60))
    errors = {}
    for name in ("ae", "radogaga"):
        saved = run.read(tmp_path / "digits" / name)
        model = saved.config.build_model().eval()
        model.load_state_dict(saved.weights)
        with torch.no_grad():
            errors[name] = float((model(x) - x).square().mean())
    for row in rows:
        assert set(row["pearson"]) == set(METRICS)
        assert all(-1 <= value <= 1 for value in row["pearson"].values())
        assert row["isometry"] == row["pearson"]["mse-difference"]
        assert row["mse"] == pytest.approx(errors[row["model_name"]], rel=1e-4)
        assert row["variance"] == sorted(row["variance"], reverse=True)
        assert sorted(row["dimensions"]) == list(range(8))
        assert f"{row['model_name']} {row['pearson']['mse-difference']:.4f}" in done.stdout.splitlines()[-1]
    assert (folder / "ae+radogaga.md").read_text().count("\n") == 4
    for file in ("ae+radogaga.png", "ae-traverse.png", "radogaga-traverse.png"):
        assert (folder / file).read_bytes()[:4] == b"\x89PNG"


def test_one_image_is_not_enough(checkpoints, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["isometry.py", *checkpoints, "--model-name", "ae", "--test-size", "1"])
    with pytest.raises(UserError, match=r"1 test image: .* raise --test-size"):
        script.main()
