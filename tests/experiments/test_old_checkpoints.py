"""Checkpoints written by earlier versions load, give the numbers that those gave, and can be resumed."""

import json
import lzma
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import data
import models
from experiments import run
from experiments.plan import configuration
from utils import checkpoint

FILES = ROOT / "tests" / "data_files"
EXPECTED = json.loads((FILES / "expected.json").read_text())


@pytest.fixture
def unpack(tmp_path):
    """Decompresses a file to ``<tmp_path>/<dataset>/<name>``; returns the flags that name it."""

    def flags(key: str) -> list[object]:
        _, dataset, name = key.split("/")
        (tmp_path / dataset).mkdir()
        (tmp_path / dataset / name).write_bytes(lzma.decompress((FILES / f"{key}.xz").read_bytes()))
        return ["--dataset", dataset, "--checkpoint", tmp_path, "--model-name", name]

    return flags


@pytest.mark.parametrize("key", EXPECTED)
def test_the_numbers_are_the_same(key, unpack, call, tmp_path, monkeypatch):
    # The commit that wrote the numbers knew no released squares, which a checkpoint of the release gets today.
    shapes = replace(data.DATASETS["shape"], options={"squares": ("centred",)})
    monkeypatch.setitem(data.DATASETS, "shape", shapes)
    flags = [*unpack(key), "--save-path", tmp_path / "results", "--posterior", "mean"]  # which they always showed
    size = ["--test-size", 500] if "shape" in key else []
    result = call("singular.py", *flags, *size)
    assert result.status == 0, result.err
    _, dataset, name = key.split("/")
    (row,) = json.loads((tmp_path / "results" / dataset / "singular" / f"{name}.json").read_text())
    for column, value in EXPECTED[key]["singular"].items():
        assert row[column] == pytest.approx(value, rel=1e-3, abs=1e-6), column
    saved = run.read(tmp_path / dataset / name)
    model = saved.config.build_model().eval()
    model.load_state_dict(saved.weights)
    x = saved.config.load_data("test", 500 if "shape" in key else None)[:]
    with torch.no_grad():
        error = float((model(x).clamp(0, 1) - x).square().mean())
    assert error == pytest.approx(EXPECTED[key]["mse"], rel=1e-4)


@pytest.mark.parametrize("key", [key for key in EXPECTED if "resumed" in EXPECTED[key]])
def test_format_1_is_resumed_and_written_as_format_2(key, unpack, call, tmp_path):
    result = call("train.py", *unpack(key), "--resume", "--epochs", 2)
    assert result.status == 0, result.err
    _, dataset, name = key.split("/")
    row = run.read(tmp_path / dataset / name).metrics[1]
    for column, value in EXPECTED[key]["resumed"].items():
        # The noise of a VAE, its loss on a few units, changes with the last bit of a weight.
        assert math.isclose(row[column], value, rel_tol=1e-3), column


def test_a_release_has_nothing_to_resume(unpack, call):
    result = call("train.py", *unpack("release/shape/vae"), "--resume")
    assert result.status == 2 and "without optimizer, random cannot be resumed" in result.err


def test_the_configuration_of_format_1(unpack, tmp_path):
    unpack("format_1/digits/irmae")
    config = run.read(Path(tmp_path, "digits", "irmae")).config
    assert config.options == {"linear_layers": 2, "init_variance": 1.0}
    assert (config.model, config.architecture, config.latent_dim, config.dataset) == (
        "irmae",
        "image-mlp-32",
        4,
        "digits",
    )
    assert (config.batch_size, config.lr, config.epochs, config.precision) == (32, 1e-3, 1, "fp32")


@pytest.mark.parametrize("distortion", ["mse", "ssim"])
def test_a_file_without_the_second_distortion_has_the_first_for_both(tmp_path, distortion):
    """One flag chose both then; a file with two keeps them, and a training as it was before keeps its name."""
    stored = models.options("radogaga") | {"distortion": distortion}
    config = run.RunConfig("radogaga", "mnist", 4, "mnist", 32, 1, stored)
    named = configuration(config, 1)["model"]["config"]
    assert named.get("distortion2") == (None if distortion == "mse" else "mse")
    checkpoint.save(tmp_path / "new", {"format": 2, "config": config.to_dict(), "weights": {}})
    assert run.read(tmp_path / "new").config.options == stored
    del stored["distortion2"]
    checkpoint.save(tmp_path / "old", {"format": 2, "config": config.to_dict() | {"options": stored}, "weights": {}})
    assert run.read(tmp_path / "old").config.options == stored | {"distortion2": distortion}


def test_images_that_a_checkpoint_does_not_record(unpack, tmp_path, call):
    """Of format 1 and 2 they are those there were before the choice; of the release those it trains on."""
    unpack("release/shape/irmae")
    assert run.read(tmp_path / "shape" / "irmae").config.squares == "released"
    tiny = ["--dataset", "shape", "--train-size", 32, "--valid-size", 32, "--epochs", 1, "--checkpoint", tmp_path]
    assert call("train.py", *tiny, "-l", 0, "--squares", "centred").status == 0
    path = tmp_path / "shape" / "ae"
    record = checkpoint.load(path)
    assert record["config"].pop("squares") == "centred"
    assert record["config"].pop("crop") is None
    checkpoint.save(path, record)
    config = run.read(path).config
    assert (config.squares, config.crop) == ("centred", None)
    assert config.load_data("test", 10).squares == "centred"
    resumed = call("train.py", *tiny, "-l", 0, "--resume", "--epochs", 2)
    assert resumed.status == 0 and run.read(path).config.squares == "centred"
    refused = call("train.py", *tiny, "-l", 0, "--resume", "--epochs", 3, "--squares", "released")
    assert refused.status == 2 and "squares is centred" in refused.err
    assert call("train.py", *tiny, "-l", 0, "--model-name", "new").status == 0
    assert run.read(tmp_path / "shape" / "new").config.squares == "released"
    record["config"] |= {"dataset": "celeba"}
    checkpoint.save(path, record)
    assert run.read(path).config.crop == 148
