"""The models of pretrained/: the files that were recorded, with the loss and the rank that stand beside them."""

import hashlib
import json
import shutil

import pytest
import torch
from conftest import ROOT, assert_refused

from experiments import trained
from utils import loop

FOLDER = ROOT / "pretrained" / "digits"


@pytest.mark.parametrize("name", ["ae", "irmae"])
def test_a_model_is_the_one_that_was_recorded(name):
    recorded, content = json.loads((FOLDER / f"{name}.json").read_text()), (FOLDER / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == recorded["sha256"]
    assert len(content) == recorded["bytes"] < 1_000_000
    model = trained.load(FOLDER / name)
    assert (model.epochs, model.config.seed, model.config.latent_dim) == (recorded["epochs"], recorded["seed"], 32)
    assert model.config.data_path == "./datasets"  # no path of the machine that trained it
    losses = loop.evaluate(model.model, model.dataset("valid").batches(360, torch.device("cpu")))
    assert losses["loss"] == pytest.approx(recorded["validation_loss"], rel=1e-4)
    assert model.spectrum().rank() == recorded["rank"]
    assert recorded["command"] in (each["command"] for each in model.trained_by)


def test_irmae_needs_fewer_dimensions_than_the_plain_autoencoder():
    ae, irmae = (json.loads((FOLDER / f"{name}.json").read_text())["rank"] for name in ("ae", "irmae"))
    assert irmae < ae / 2


def test_they_open_from_hub_and_scripts_and_cannot_be_resumed(call, tmp_path):
    run = torch.hub.load(str(ROOT), "pretrained", "digits/irmae", source="local")
    assert run.decode(run.sample("mvg", 2)).shape == (2, 1, 32, 32)
    with pytest.raises(Exception, match="'digits/vae': expected one of digits/ae, digits/irmae"):
        torch.hub.load(str(ROOT), "pretrained", "digits/vae", source="local")
    shutil.copytree(FOLDER, tmp_path / "digits")
    flags = ("--dataset", "digits", "--checkpoint", tmp_path)
    assert call("singular.py", *flags, "--model-name", "ae", "irmae", "--save-path", tmp_path / "results").status == 0
    result = call("train.py", *flags, "--model-name", "irmae", "--resume", "--epochs", 81)
    assert_refused(result, "irmae", "without optimizer, random cannot be resumed")
