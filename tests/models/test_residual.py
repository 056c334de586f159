"""The mixture on the code with or without the reconstruction's features, of DAGMM and of RaDOGAGA (section 5.3)."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import models
from data.base import VectorDataset
from experiments import run, train_flags
from experiments.plan import configuration
from models.layers.residual import append_residual
from utils import checkpoint, loop
from utils.errors import UserError

VECTORS = {"architecture": "mlp:12", "channels": 6, "latent_dim": 3, "components": 2}
OPTIONS = {"radogaga": {"prior": "gmm", "estimation_dropout": 0.0}, "dagmm": {}}
BOTH = pytest.mark.parametrize("name", list(OPTIONS))
EITHER = pytest.mark.parametrize("residual", [True, False])


def build(name: str, residual: bool, **options) -> models.Autoencoder:
    torch.manual_seed(0)
    return models.build(name, **VECTORS | OPTIONS[name] | options, residual=residual)


def expected_features(x: np.ndarray, z: np.ndarray, decoded: np.ndarray, residual: bool) -> np.ndarray:
    """Relative error and cosine, written with sums."""
    if not residual:
        return z
    length = np.sqrt((x**2).sum(1))
    relative = np.sqrt(((x - decoded) ** 2).sum(1)) / length
    cosine = (x * decoded).sum(1) / (length * np.sqrt((decoded**2).sum(1)))
    return np.column_stack([z, relative, cosine])


def expected_energy(features: np.ndarray, memberships: np.ndarray) -> np.ndarray:
    """−log of the mixture that the memberships ``(N, K)`` make of the features, with scipy's Gaussian."""
    parts = []
    for gamma in memberships.T:
        mean = (gamma[:, None] * features).sum(0) / gamma.sum()
        centred = features - mean
        covariance = (gamma[:, None, None] * centred[:, :, None] * centred[:, None, :]).sum(0) / gamma.sum()
        density = multivariate_normal(mean, covariance + 1e-6 * np.eye(len(mean)))
        parts.append(np.log(gamma.mean()) + density.logpdf(features))
    return -logsumexp(parts, axis=0)


@BOTH
@EITHER
def test_features_energy_and_rate_are_the_formulas(name, residual):
    model = build(name, residual).double()
    x = torch.rand(40, 6, dtype=torch.float64)
    with torch.no_grad():
        z = model.encode(x)
        features = expected_features(x.numpy(), z.numpy(), model.decode(z).numpy(), residual)
        np.testing.assert_allclose(model.features(x).numpy(), features, rtol=1e-12)
        first, second = model.prior.network[0], model.prior.network[3]
        hidden = np.tanh(features @ first.weight.numpy().T + first.bias.numpy())
        scores = hidden @ second.weight.numpy().T + second.bias.numpy()
        memberships = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
        expected = expected_energy(features, memberships)
        model.fit_prior([x[:15], x[15:]])
        np.testing.assert_allclose(model.energy(x).numpy(), expected, rtol=1e-8)
        if name == "radogaga":  # in training, without dropout, the mixture is that of the batch
            np.testing.assert_allclose(float(model.train().losses(x)["rate"]), expected.mean(), rtol=1e-8)


@BOTH
@EITHER
def test_the_code_alone_reaches_the_decoder(monkeypatch, name, residual):
    model = build(name, residual)
    decoded = []
    monkeypatch.setattr(model, "decode", lambda z, decode=model.decode: decoded.append(z) or decode(z))
    x = torch.rand(9, 6)
    model.losses(x)["loss"].backward()
    model.energy(x)
    z = model.encode(x)
    assert torch.equal(decoded[0], z) and all(each.shape == (9, 3) for each in decoded)
    assert len(decoded) == (2 if name == "radogaga" else 1) + residual  # scoring decodes only for the residual
    assert model.prior.network[0].in_features == 3 + 2 * residual
    assert model.sample_prior(5).shape == (5, 3)


def test_only_with_the_residual_does_the_rate_train_the_decoder():
    x = torch.rand(20, 6)
    for residual in (True, False):
        model = build("radogaga", residual, lambda1=0.0, lambda2=0.0)
        model.losses(x)["rate"].backward()
        gradients = [p.grad for p in model.dec.parameters()]
        assert any(grad is not None and grad.abs().max() > 0 for grad in gradients) == residual


def test_images_are_measured_over_all_pixels_and_zeros_have_no_relative_error():
    x, decoded = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    features = append_residual(torch.zeros(4, 2), x, decoded)
    assert torch.allclose(features, append_residual(torch.zeros(4, 2), x.flatten(1), decoded.flatten(1)))
    black = torch.zeros(4, 3, 8, 8)
    assert torch.equal(append_residual(torch.zeros(4, 2), black, black), torch.zeros(4, 4))


@BOTH
def test_training_and_scoring_without_the_other(name):
    """One step with each, and the mixture of the other does not fit into the model."""
    x = torch.rand(60, 6)
    for residual in (True, False):
        model = build(name, residual)
        step = loop.Step(model, loop.make_optimizer(model, 1e-3), VectorDataset(x), eager=True)
        for _ in loop.epoch(step, 20, 0, 1):
            pass
        model.fit_prior([x], em=True)
        assert torch.isfinite(model.energy(x)).all() and model.energy(x).shape == (60,)
        with pytest.raises(RuntimeError, match="size mismatch"):
            build(name, not residual).load_state_dict(model.state_dict())


def test_the_entropy_bottleneck_has_no_residual():
    with pytest.raises(UserError, match="--residual needs --prior gmm"):
        models.build("radogaga", **VECTORS, residual=True)


@pytest.mark.parametrize(("name", "before"), [("radogaga", False), ("dagmm", True)])
def test_a_file_without_the_option_is_as_it_was_trained(tmp_path, name, before):
    """RaDOGAGA's mixture was on the code alone, DAGMM's never; a training as it was before keeps its name."""
    options = models.options(name) | ({"prior": "gmm"} if name == "radogaga" else {})
    assert options["residual"] == before  # of train.py too: RaDOGAGA as in 5.1 and 5.2, DAGMM as in its paper
    config = run.RunConfig(name, "mnist", 4, "mnist", 32, 1, options)
    assert "residual" not in configuration(config, 1)["model"]["config"]
    other = run.RunConfig(name, "mnist", 4, "mnist", 32, 1, options | {"residual": not before})
    assert configuration(other, 1)["model"]["config"]["residual"] != before
    checkpoint.save(tmp_path / "new", {"format": 2, "config": other.to_dict(), "weights": {}})
    assert run.read(tmp_path / "new").config.options["residual"] != before
    stored = {key: value for key, value in options.items() if key != "residual"}
    shared = {"architecture": "mnist", "channels": 1, "latent_dim": 4}
    format_1 = {
        "format": 1,
        "model": {"name": name, "config": shared | stored},
        "data": {"name": "mnist", "image_size": 32, "channels": 1, "path": None},
        "training": {"batch_size": 32, "seed": 0, "lr": 1e-4, "precision": "fp32"},
    }
    for record in ({"format": 2, "config": config.to_dict() | {"options": stored}}, format_1):
        checkpoint.save(tmp_path / "old", record | {"weights": {}})
        found = run.read(tmp_path / "old").config
        assert found.options == options
        assert found.build_model().prior.network[0].in_features == (6 if before else 4)


def test_the_flag_of_train_py():
    for words, residual in (([], True), (["--no-residual"], False), (["--residual"], True)):
        args = train_flags.parse(["--model", "dagmm", "--dataset", "digits", *words])
        assert run.RunConfig.from_args(args).options["residual"] == residual
    args = train_flags.parse(["--model", "radogaga", "--prior", "gmm", "--dataset", "digits"])
    assert run.RunConfig.from_args(args).options["residual"] is False
    with pytest.raises(UserError, match="no such option, it belongs to radogaga, dagmm"):
        run.RunConfig.from_args(train_flags.parse(["--model", "ae", "--residual"]))
