"""Inner products that a decoder pulls back, on decoders whose metric is known; and the script on a trained model."""

import argparse
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
from experiments.trained import Trained
from models.layers.distortion import one_minus_ssim
from models.vae import BetaVAE
from utils import checkpoint, isometry
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
METRICS = ("mse-difference", "mse-jacobian", "ssim-difference", "ssim-jacobian")


def test_pairs_are_unit_vectors_at_every_angle():
    v, w = isometry.uniform_pairs(4000, 20, torch.Generator().manual_seed(0))
    ones = torch.ones(4000)
    torch.testing.assert_close(v.norm(dim=1), ones)
    torch.testing.assert_close(w.norm(dim=1), ones)
    cosine = (v * w).sum(1)
    quantiles = torch.quantile(cosine, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([-0.8, -0.5, 0.0, 0.5, 0.8]), atol=0.05, rtol=0)
    # No direction is preferred: each coordinate has the variance 1/n.
    for vectors in (v, w):
        torch.testing.assert_close(vectors.square().mean(0), torch.full((20,), 0.05), atol=0.006, rtol=0)


def test_released_pairs_lie_in_the_first_dimensions():
    """The first axis has half of their energy, each further dimension half of the one before it."""
    n = 256
    v, w = isometry.released_pairs(20_000, n, torch.Generator().manual_seed(0))
    cosine = (v * w).sum(dim=1)
    quantiles = torch.quantile(cosine, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([-0.8, -0.5, 0.0, 0.5, 0.8]), atol=0.03, rtol=0)
    for vectors in (v, w):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(20_000))
        energy = vectors.square().mean(dim=0)
        expected = 0.5 ** torch.cat([torch.ones(1), torch.arange(1.0, n) + 1])
        torch.testing.assert_close(energy[:6], expected[:6], atol=0.008, rtol=0)
        assert energy[:8].sum() == pytest.approx(0.996, abs=0.001)


def test_r_of_released_pairs_is_that_of_two_lengths():
    """The first axis stretched by a, all others by b: with A, B = (a² ± b²) / 2 and the angle θ between v and w, the
    product is A cos θ + B cos(2 γ − θ), γ uniform, so r² = A² / (A² + 1.5 B²)."""
    n, a, b = 40, 3.0, 1.0
    pairs = isometry.released_pairs(40_000, n, torch.Generator().manual_seed(0))
    stretch = torch.full((n,), b, dtype=torch.float64)
    stretch[0] = a
    codes = torch.randn(40_000, n, dtype=torch.float64)
    found = isometry.inner_products(lambda z: stretch * z, codes, pairs, 0.1, batch_size=5000)
    v, w = (vectors.double() for vectors in pairs)
    np.testing.assert_allclose(found["mse-jacobian"], 0.01 / n * (v * stretch**2 * w).sum(dim=1), rtol=1e-5, atol=1e-9)
    even, odd = (a**2 + b**2) / 2, (a**2 - b**2) / 2
    expected = even / (even**2 + 1.5 * odd**2) ** 0.5
    assert isometry.pearson(found["latent"], found["mse-jacobian"]) == pytest.approx(expected, abs=0.01)


def test_a_code_of_one_dimension_has_two_directions():
    v, w = isometry.uniform_pairs(200, 1, torch.Generator().manual_seed(0))
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
    pairs = isometry.uniform_pairs(3000, n, generator)
    found = isometry.inner_products(lambda z: 3 * z @ basis.T, codes, pairs, 0.1)
    assert isometry.pearson(found["latent"], found["mse-jacobian"]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found["mse-jacobian"], 9 / 100 * found["latent"], atol=1e-7)
    assert set(found) == {"latent", "mse-difference", "mse-jacobian"}  # vectors have no SSIM

    # v and w = c v + s u, with u a random direction orthogonal to v: r follows from the traces of the metric G alone.
    stretch = torch.linspace(0.1, 3, n)
    found = isometry.inner_products(lambda z: stretch * z, codes, pairs, 0.1)
    trace, trace_of_square = float(stretch.square().sum()), float(stretch.pow(4).sum())
    parallel = (2 * trace_of_square + trace**2) / (n * (n + 2))  # E (vᵀGv)²
    across = (trace_of_square / n - parallel) / (n - 1)  # E (vᵀGu)²
    expected = (trace / n / 3) / (1 / 3 * (parallel / 3 + 2 / 3 * across)) ** 0.5
    assert isometry.pearson(found["latent"], found["mse-jacobian"]) == pytest.approx(expected, abs=0.005)


class LinearGaussian(BetaVAE):
    """x = Σ_i c_i z_i u_i with orthogonal unit u_i, and the posterior N(c_i⁻¹ u_i·x, c_i⁻²)."""

    def __init__(self, lengths: torch.Tensor):
        super().__init__("mlp:10", 6, len(lengths))
        self.lengths, self.basis = lengths, torch.linalg.qr(torch.randn(6, len(lengths))).Q

    def posterior(self, x):
        mean = x.flatten(1) @ self.basis / self.lengths
        return mean, (-2 * self.lengths.log()).expand_as(mean)

    def decode(self, z):
        return (self.lengths * z) @ self.basis.T


@pytest.mark.parametrize("kind", ["released", "uniform"])
def test_a_linear_vae_is_isometric_after_rescaling(kind):
    """Its columns are orthogonal and of unequal lengths: the posterior's deviations are the reciprocals of those."""
    torch.manual_seed(0)
    lengths = torch.tensor([8.0, 2.0, 0.5])
    model = LinearGaussian(lengths).eval()
    images = {split: torch.rand(300, 6, 1, 1) for split in ("train", "test")}
    config = run.RunConfig("beta-vae", "mlp:10", 3, "folder", 1, 6)
    trained = Trained("linear", Path(), model, config, torch.device("cpu"), batch_size=100)
    trained.dataset = lambda split, size=None: data.Dataset((255 * images[split]).byte())
    args = argparse.Namespace(seed=0, num_pairs=200, test_size=None, delta=0.1, batch_size=100)
    torch.testing.assert_close(script.posterior_scale(trained, trained.dataset("test")), 1 / lengths)
    found, codes = script.inner_products(trained, kind, args)
    r = {key: isometry.pearson(values["latent"], values["mse-jacobian"]) for key, values in found.items()}
    assert len(codes) == 200
    assert r[kind] < 0.9
    assert r[f"{kind}_rescaled"] == pytest.approx(1, abs=1e-6)


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


def test_differences_are_those_of_the_jacobian_from_the_shortest_step_on():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 200))
    codes, pairs = 30 * torch.randn(400, 8), isometry.uniform_pairs(400, 8, torch.Generator().manual_seed(0))
    off = []
    for shorter in (1, 100):
        found = isometry.inner_products(decoder, codes, pairs, isometry.shortest_step(codes) / shorter)
        r = [isometry.pearson(found["latent"], found[f"mse-{way}"]) for way in ("difference", "jacobian")]
        off.append(abs(r[0] - r[1]))
    assert off[0] < 0.002 and off[1] > 0.01


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
    for name in ("ae", "beta-vae"):
        torch.manual_seed(0)
        config = run.RunConfig(name, "mnist", 8, "digits", 32, 1, models.options(name), str(tmp_path))
        record = {"format": 2, "config": config.to_dict(), "weights": config.build_model().state_dict()}
        checkpoint.save(tmp_path / "digits" / name, record)
    return ["--dataset", "digits", "--checkpoint", str(tmp_path), "--save-path", str(tmp_path / "results")]


def test_the_script_puts_several_models_in_one_table(checkpoints, tmp_path):
    small = ["--test-size", "60", "--num-pairs", "40", "--metric-codes", "3", "--posterior", "mean"]
    command = [sys.executable, "isometry.py", *checkpoints, "--model-name", "ae", "beta-vae", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / "results" / "digits" / "isometry"
    rows = json.loads((folder / "ae+beta-vae.json").read_text())
    assert [row["model_name"] for row in rows] == ["ae", "beta-vae"]
    x = next(data.load("digits", "test", str(tmp_path), 60).batches(60))
    trained_on = data.load("digits", "train", str(tmp_path))[:]
    errors, variances = {}, {}
    for name in ("ae", "beta-vae"):
        saved = run.read(tmp_path / "digits" / name)
        model = saved.config.build_model().eval()
        model.load_state_dict(saved.weights)
        with torch.no_grad():
            errors[name] = float((model(x).clamp(0, 1) - x).square().mean())
            variances[name] = model.encode(trained_on).var(dim=0).sort(descending=True).values
    for row in rows:
        kinds = ["released", "uniform"]
        kinds += ["released_rescaled", "uniform_rescaled"] if row["model"] == "beta-vae" else []
        assert sorted(row["pearson"]) == sorted(kinds) and row["pairs"] == "released"
        for kind, values in row["pearson"].items():
            assert set(values) == set(METRICS)
            assert all(-1 <= value <= 1 for value in values.values())
            assert row[f"isometry_{kind}"] == values["mse-difference"]
        assert row["isometry"] == row["isometry_released"]
        assert row["mse"] == pytest.approx(errors[row["model_name"]], rel=1e-4)
        torch.testing.assert_close(torch.tensor(row["variance"]), variances[row["model_name"]], rtol=1e-3, atol=1e-9)
        assert sorted(row["dimensions"]) == list(range(8))
        assert f"{row['model_name']} {row['isometry_released']:.4f}" in done.stdout.splitlines()[-1]
    assert (folder / "ae+beta-vae.md").read_text().count("\n") == 4
    for file in ("ae+beta-vae.png", "ae-traverse.png", "beta-vae-traverse.png"):
        assert (folder / file).read_bytes()[:4] == b"\x89PNG"


def test_one_image_is_not_enough(checkpoints, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["isometry.py", *checkpoints, "--model-name", "ae", "--test-size", "1"])
    with pytest.raises(UserError, match=r"1 test image: .* raise --test-size"):
        script.main()
