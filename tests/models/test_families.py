"""Every row of the table of models: the scripts train it, reload it and make pictures of it."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_refused

from experiments import run, train_flags
from experiments.presets import PRESETS
from models import MODELS
from models.base import Autoencoder
from utils import metrics


@pytest.fixture
def script(call, monkeypatch, tmp_path):
    """Calls a script in a folder of its own, and expects it to succeed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> None:
        result = call(f"{name}.py", *arguments)
        assert result.status == 0, result.err

    return run


def training(model: str, dataset: str, *more: str) -> list[str]:
    small = ["--train-size", "160", "--valid-size", "40", "--epochs", "2", "--batch-size", "16", "--lr", "1e-3"]
    small += ["--order", "fixed"]  # the same images in both epochs, of shape too
    return ["--model", model, "--dataset", dataset, *small, *more]


@pytest.mark.parametrize("dataset", ["digits", "shape"])
@pytest.mark.parametrize("model", MODELS)
def test_trains_reloads_and_generates(script, model, dataset):
    script("train", *training(model, dataset))
    rows = list(csv.DictReader(Path(f"checkpoint/{dataset}/{model}.csv").read_text().splitlines()))
    for loss in ("train_loss", "train_reconstruction"):
        first, last = (float(row[loss]) for row in rows)
        assert last < first, loss
    has_prior = MODELS[model].sample_prior is not Autoencoder.sample_prior
    task = "prior" if has_prior else "mvg"
    script("generation", "--task", task, "--dataset", dataset, "-X", "2", "-Y", "3", "-N", "40")
    assert Path(f"results/{dataset}/{task}/{model}.png").stat().st_size > 0
    assert json.loads(Path(f"results/{dataset}/{task}/{model}.json").read_text())["model"] == model


def test_classes_are_sampled_interpolated_and_compared_with_labels(script):
    script("train", *training("infocat-vae", "digits", "--num-classes", "6", "--arch", "conv"))
    config = run.read("checkpoint/digits/infocat-vae").config
    assert config.latent_dim == 12 and config.architecture == "mnist"
    for task in ("conditional", "centroids"):
        script("generation", "--task", task, "--dataset", "digits", "-Y", "4")
        assert json.loads(Path(f"results/digits/{task}/infocat-vae.json").read_text())["classes"] == 6
    script("classification", "--clusters", "--dataset", "digits")
    result = json.loads(Path("results/digits/clusters/infocat-vae.json").read_text())
    counts = np.array(result["confusion"])
    assert counts.shape == (6, 10) and counts.sum() == result["images"] == 360
    assert 0 <= result["accuracy"] <= 1 and len(result["matched_class"]) == 6
    assert Path("results/digits/clusters/infocat-vae.png").stat().st_size > 0


def test_what_has_no_classes_or_no_prior_says_so(script, call):
    script("train", *training("rae", "digits"))
    for task in ("prior", "conditional", "centroids"):
        assert_refused(call("generation.py", "--task", task, "--dataset", "digits"), "RAE")
    assert_refused(call("classification.py", "--clusters", "--dataset", "digits"), "RAE has no classes", "infocat-vae")


def test_flags_that_contradict_each_other_are_refused(call):
    assert_refused(
        call("train.py", *training("infocat-vae", "digits", "-n", "128")), "-n 128", "n = 20", "leave -n out"
    )
    assert_refused(call("train.py", *training("rae", "digits", "--kernel", "rbf")), "--kernel rbf", "rae", "wae-mmd")
    assert_refused(call("classification.py", "--clusters", "--supervised"), "--clusters", "--supervised")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_only_change_defaults(monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["train.py", "--preset", name, "--batch-size", "7"])
    args = train_flags.parse()
    flags = PRESETS[name].flags
    assert args.batch_size == 7
    assert {key: getattr(args, key) for key in flags if key != "batch_size"} == {
        key: value for key, value in flags.items() if key != "batch_size"
    }
    config = run.RunConfig.from_args(args)  # raises for an option that the model does not take
    assert all(config.options[key] == value for key, value in flags.items() if key in config.options)


def test_pretraining_is_part_of_a_run(script):
    script("train", *training("wae-mmd", "digits", "--model-name", "plain"))
    script("train", *training("wae-mmd", "digits", "--model-name", "pretrained", "--e-pretrain", "3"))
    plain, pretrained = (run.read(f"checkpoint/digits/{name}") for name in ("plain", "pretrained"))
    assert pretrained.config.options["e_pretrain"] == 3
    assert not torch.equal(plain.weights["enc.fc.weight"], pretrained.weights["enc.fc.weight"])


def test_agreement_of_clusters_with_labels():
    labels = np.repeat([0, 1, 2], 10)
    renamed = np.repeat([2, 0, 1], 10)
    counts = metrics.confusion(renamed, labels, 3, 3)
    assert metrics.match(counts) == {2: 0, 0: 1, 1: 2}
    assert metrics.agreement(renamed, labels, counts) == pytest.approx(
        {"accuracy": 1, "normalized_mutual_information": 1, "adjusted_rand_index": 1}
    )
    merged = np.repeat([0, 0, 1], 10)  # two classes in one cluster: only one of them can be matched
    counts = metrics.confusion(merged, labels, 4, 3)
    assert metrics.agreement(merged, labels, counts)["accuracy"] == pytest.approx(2 / 3)
    # Greedy choice would take the 6 first and end with 6 + 0; the best matching has 5 + 5.
    assert metrics.match(np.array([[6, 5], [5, 0]])) == {0: 1, 1: 0}
