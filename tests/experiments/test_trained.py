"""The Python API: codes, images and samples of a checkpoint, whoever wrote it; and what importing it leaves alone."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT

import models
from experiments.export import export
from experiments.trained import load
from utils import devices
from utils.errors import UserError


@pytest.fixture(scope="module")
def ae(trained):
    return load(trained / "digits" / "ae")


@pytest.fixture(scope="module")
def vae(trained):
    return load(trained / "digits" / "vae")


def test_images_of_any_number_and_type_are_encoded_in_batches(ae):
    pixels = ae.dataset("test").store[:23]
    with torch.no_grad():
        expected = ae.model.encode(pixels / 255)
    ae.batch_size = 10
    for images in (pixels, pixels / 255, (pixels / 255).numpy(), pixels.numpy(), ae.dataset("test", 23)):
        codes = ae.encode(images)
        assert codes.shape == (23, 16) and codes.dtype == torch.float32
        torch.testing.assert_close(codes, expected)
    torch.testing.assert_close(ae.decode(codes.numpy()), ae.model.decode(expected).clamp(0, 1).detach())
    assert ae.encode(pixels[:0]).shape == (0, 16)


def test_only_training_keeps_freed_memory(trained, monkeypatch):
    """Codes that are kept from one batch to the next would split the freed images: a new block for every batch."""
    calls = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: calls.append(1))
    load(trained / "digits" / "ae")
    assert not calls
    devices.prepare(torch.nn.Linear(1, 1), torch.device("cpu"))
    assert calls


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 28, 28)), r"\(2, 28, 28\): expected \(N, 1, 32, 32\)"),
        (np.full((2, 1, 32, 32), 255.0), r"expected uint8, or floats in \[0, 1\]"),
        (np.zeros((2, 1, 32, 32), dtype=np.int64), "int64"),
        (np.full((2, 1, 32, 32), np.nan), "floats in"),
    ],
)
def test_other_images_are_refused(ae, images, message):
    with pytest.raises(UserError, match=message):
        ae.encode(images)


def test_posteriors_are_sampled_from_the_seed_without_changing_the_random_state(vae, ae):
    images = vae.dataset("test", 40)
    state = torch.get_rng_state()
    first, again = vae.sample_codes(images), vae.sample_codes(images)
    assert torch.equal(first, again) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(vae.codes(images), first), "the default, as in the code released with IRMAE"
    vae.seed = 1
    assert not torch.equal(vae.sample_codes(images), first)
    vae.seed, vae.posterior = 0, "mean"
    assert torch.equal(vae.codes(images), vae.encode(images))
    mean, logvar = vae.model.posterior(images[:])
    ratio = ((first - mean) / torch.exp(logvar / 2)).detach()
    assert abs(float(ratio.std()) - 1) < 0.15 and abs(float(ratio.mean())) < 0.15
    assert torch.equal(ae.sample_codes(images), ae.encode(images))


def test_samples(vae, ae):
    for density in ("prior", "mvg", "gmm"):
        codes = vae.sample(density, 30, seed=2)
        assert codes.shape == (30, 16) and torch.equal(codes, vae.sample(density, 30, seed=2))
        images = vae.decode(codes)
        assert images.shape == (30, 1, 32, 32) and images.min() >= 0 and images.max() <= 1
    with pytest.raises(UserError, match="no prior"):
        ae.sample("prior", 1)
    with pytest.raises(UserError, match="expected prior, mvg or gmm"):
        ae.sample("gaussian", 1)


def test_other_codes_splits_and_posteriors_are_refused(ae):
    with pytest.raises(UserError, match=r"codes of shape \(3, 17\): expected \(N, 16\)"):
        ae.decode(torch.zeros(3, 17))
    with pytest.raises(UserError, match="expected train, valid or test"):
        ae.codes("validation")
    with pytest.raises(UserError, match="expected sample or mean"):
        replace(ae, posterior="samples").codes("test")


def test_codes_that_do_not_vary_are_fitted_with_nothing(ae, capsys):
    from utils import latents

    same = ae.encode(torch.ones(20, 1, 32, 32))
    for fit in (latents.fit_pca, latents.fit_mixture):
        with pytest.raises(UserError, match="all 20 codes are the same"):
            fit(same, 2, 0)
    two = torch.cat([same, same + 1])
    latents.fit_mixture(two, 4, 0)
    warning = capsys.readouterr().err.splitlines()
    assert len(warning) == 1 and warning[0].startswith("warning: -d 4: ")


def variants(weights: dict) -> dict[str, dict]:
    """A state dict as trainers write it."""
    return {
        "plain": weights,
        "data-parallel": {f"module.{key}": value for key, value in weights.items()},
        "compiled": {f"_orig_mod.module.{key}": value for key, value in weights.items()},
        "wrapped": {"state_dict": weights, "epoch": 3, "optimizer": {"state": {}}},
        "wrapped-data-parallel": {"epoch": 3, "model": {f"module.{key}": value for key, value in weights.items()}},
    }


@pytest.mark.parametrize("variant", list(variants({})))
def test_state_dicts_of_other_trainers(tmp_path, variant):
    torch.manual_seed(0)
    model = models.build("irmae", architecture="mnist", channels=1, latent_dim=8, linear_layers=3)
    path = tmp_path / "mnist" / variant
    path.parent.mkdir()
    torch.save(variants(model.state_dict())[variant], path)
    run = load(path)
    assert (run.config.model, run.config.latent_dim, run.config.options["linear_layers"]) == ("irmae", 8, 3)
    assert run.config.dataset == "mnist" and run.epochs is None
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(run.encode(images), model.eval().encode(images).detach())


def test_a_state_dict_of_another_network_is_refused(tmp_path):
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "linear")
    with pytest.raises(UserError, match="neither a checkpoint of train"):
        load(tmp_path / "linear")


def test_torch_hub(trained):
    def hub(entry, *args, **options):
        return torch.hub.load(str(ROOT), entry, *args, source="local", **options)

    assert hub("load", trained / "digits" / "irmae").config.options["linear_layers"] == 2
    for name in models.MODELS:
        hub(name.replace("-", "_"), dataset="digits")
    assert len(hub("irmae", dataset="shape", latent_dim=9, linear_layers=5).mlp.hidden) == 5
    for options, message in (({"latent_dim": 0}, "latent_dim: .* found 0"), ({"dataset": "x-csv"}, "'x-csv': a file")):
        with pytest.raises(UserError, match=message):
            hub("ae", **options)
    assert "linear_layers=8" in importlib.import_module("hubconf").irmae.__doc__


def test_importing_changes_nothing_global(trained):
    """Backend of matplotlib, signal handlers, threads, precision, random state: as they were, after use too."""
    code = f"""
import signal, sys
import matplotlib, torch
matplotlib.use("svg")
def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return (matplotlib.get_backend(), handlers, torch.get_num_threads(), torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32, torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.get_rng_state().tolist())
before = state()
import hubconf, train, generation, singular, isometry, evaluate, classification
from utils import plots
assert state() == before, "importing"
run = hubconf.load({str(trained / "digits" / "ae")!r})
torch.manual_seed(torch.initial_seed())
before = state()
run.spectrum()
plots.spectra({{"ae": run.spectrum().values}}, 1e-3)
assert "matplotlib.pyplot" not in sys.modules
assert state()[:-1] == before[:-1], "using"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "kind"), [("irmae", "onnx"), ("vae", "onnx"), ("ae", "pt2")])
def test_exported_parts_give_the_same_codes_and_images(trained, tmp_path, name, kind):
    run = load(trained / "digits" / name)
    images = run.dataset("test")[:7]
    codes = run.encode(images)
    parts = dict(zip(("encoder", "decoder"), export(run, tmp_path / name, kind), strict=True))
    assert [path.name for path in parts.values()] == [f"{name}-{part}.{kind}" for part in parts]
    for part, given, expected in (("encoder", images, codes), ("decoder", 3 * codes, run.decode(3 * codes))):
        if kind == "onnx":
            runtime = pytest.importorskip("onnxruntime")
            (found,) = runtime.InferenceSession(parts[part]).run(None, {"x": given.numpy()})
        else:
            found = torch.export.load(parts[part]).module()(given).detach().numpy()
        assert np.allclose(found, expected.numpy(), atol=1e-5) and found.shape == expected.shape
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_numbers_that_no_training_or_mixture_has(ae):
    for key in ("batch_size", "epochs", "latent_dim"):
        with pytest.raises(UserError, match=f"{key}: expected a whole number from 1 .*, found 0"):
            replace(ae.config, **{key: 0})
    with pytest.raises(UserError, match="-d 0: expected 1 to"):
        ae.sample("gmm", 5, components=0)
    with pytest.raises(UserError, match="--test-size -1"):
        ae.codes("test", -1)


def test_the_rank_that_rrae_found_is_exported(ae, tmp_path):
    model = models.build("rrae", architecture="mnist", channels=1, latent_dim=16, adaptive_rank=True)
    model.kept.fill_(5)
    model.second_moment.copy_(torch.diag(torch.arange(16.0)))
    run = replace(ae, model=model.eval(), config=replace(ae.config, model="rrae"))
    images = run.dataset("test")[:3]
    (encoder, _) = export(run, tmp_path / "x", "pt2")
    found = torch.export.load(encoder).module()(images).detach()
    assert np.allclose(found, run.encode(images), atol=1e-5) and (found[:, :11] == 0).all() and model.adaptive_rank


def test_what_cannot_be_exported_says_what_to_do(ae, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    truncated = models.build("rrae", architecture="mnist", channels=1, latent_dim=16)  # its encoder has eigenvectors
    config = replace(ae.config, model="rrae")
    with pytest.raises(UserError, match=r"rrae .*ONNX lacks: use --format pt2"):
        export(replace(ae, model=truncated, config=config), tmp_path / "x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript"):
        export(ae, tmp_path / "x")
    assert not list(tmp_path.iterdir())
