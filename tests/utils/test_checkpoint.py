"""Checkpoints: whole or not there, read without running code, and those of the released code as they are."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, assert_refused
from torch import nn

from experiments import run
from utils import checkpoint
from utils.errors import UserError


def test_what_is_saved_is_loaded(tmp_path):
    record = {"weights": {"w": torch.arange(3.0)}, "model": {"name": "ae", "config": {}}, "metrics": [{"epoch": 1}]}
    path = tmp_path / "digits" / "ae"
    checkpoint.save(path, record)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["weights"]["w"], record["weights"]["w"])
    assert loaded["metrics"] == record["metrics"]
    assert os.listdir(path.parent) == ["ae"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "ae"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(path, {"epoch": 2, "bad": lambda: None})
    assert checkpoint.load(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["ae"]


def test_a_killed_save_leaves_a_whole_file(tmp_path):
    """A process that saves without pause is killed at different moments; the file can always be read."""
    program = (
        "import sys, torch, itertools; from pathlib import Path; from utils import checkpoint\n"
        "for i in itertools.count(1):\n"
        "    checkpoint.save(Path(sys.argv[1]), {'epoch': i, 'weights': {'w': torch.full((300_000,), float(i))}})\n"
        "    print(i, flush=True)\n"
    )
    path = tmp_path / "ae"
    for delay in (0.0, 0.007, 0.013):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        record = checkpoint.load(path)
        assert (record["weights"]["w"] == record["epoch"]).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 damaged zip", b"\x80\x02}q\x00."],
    ids=["empty", "text", "zip", "{}"],
)
def test_what_is_no_checkpoint(tmp_path, content):
    (tmp_path / "ae").write_bytes(content)
    with pytest.raises(UserError, match=r"ae: not a checkpoint"):
        checkpoint.load(tmp_path / "ae")


def test_a_truncated_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "ae", {"weights": {"w": torch.zeros(1000)}})
    (tmp_path / "ae").write_bytes((tmp_path / "ae").read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "ae")


def test_a_flipped_bit_is_noticed(tmp_path):
    """torch.load itself does not compare the checksums of the file."""
    weights = torch.arange(1000.0)
    checkpoint.save(tmp_path / "ae", {"weights": {"w": weights}})
    content = bytearray((tmp_path / "ae").read_bytes())
    content[content.find(weights.numpy().tobytes()) + 2001] ^= 1
    (tmp_path / "ae").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "ae")


def test_loading_runs_no_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made-by-the-checkpoint"),)

    torch.save({"format": 1, "x": Malicious()}, tmp_path / "ae")
    with pytest.raises(UserError):
        checkpoint.load(tmp_path / "ae")
    assert not (tmp_path / "made-by-the-checkpoint").exists()


def test_a_missing_checkpoint_lists_what_there_is(tmp_path):
    checkpoint.save(tmp_path / "ae", {})
    with pytest.raises(UserError, match="there are: ae"):
        checkpoint.load(tmp_path / "vae")


def test_newest_first_and_only_checkpoints(tmp_path):
    for age, name in enumerate(("README", "notes.TXT", "irmae-l2.5", "ae", "ae.csv", ".ae-x.tmp")):
        if name in ("irmae-l2.5", "ae"):
            checkpoint.save(tmp_path / name, {})
        else:
            (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "tensorboard").mkdir()
    assert checkpoint.available(tmp_path) == ["irmae-l2.5", "ae"]
    assert checkpoint.available(tmp_path / "nowhere") == []


def test_an_earlier_run_is_set_aside_and_never_overwritten(tmp_path):
    path = tmp_path / "ae"
    kept = []
    for content in ("first", "second", "third"):
        path.write_text(content)
        os.utime(path, (1e9, 1e9))
        (tmp_path / "ae.csv").write_text(content)
        kept.append(checkpoint.archive_previous_run(path))
    assert [file.read_text() for file in kept] == ["first", "second", "third"]
    assert [file.with_name(file.name + ".csv").read_text() for file in kept] == ["first", "second", "third"]
    assert checkpoint.archive_previous_run(path) is None


@pytest.mark.parametrize("name", ["../ae", "a/b", "", ".hidden", "ae.csv"])
def test_names_that_are_no_plain_file_names(name):
    with pytest.raises(UserError, match="--model-name"):
        checkpoint.path_of("checkpoint", "mnist", name)


# The networks of the released code, put together here from its description and not from models/.
class Reference(nn.Module):
    def __init__(self, dataset: str, n: int, layers: int, vae: bool):
        super().__init__()
        self.n, self.vae = n, vae
        out = 2 * n if vae else n

        def conv(*widths):
            pairs = itertools.pairwise(widths)
            return [m for a, b in pairs for m in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]

        def up(*widths):
            pairs = itertools.pairwise(widths)
            return [m for a, b in pairs for m in (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU())]

        last = nn.Sigmoid() if vae else nn.Tanh()
        self.enc, self.dec = nn.Module(), nn.Module()
        if dataset == "shape":
            self.enc.dcnn = nn.Sequential(*conv(3, 32, 64, 128, 256), nn.Conv2d(256, out, 2, 1, 0))
            self.dec.dcnn = nn.Sequential(
                nn.ConvTranspose2d(n, 256, 2, 1, 0),
                nn.ReLU(),
                *up(256, 128, 64, 32),
                nn.ConvTranspose2d(32, 3, 4, 2, 1),
                last,
            )
        else:
            self.enc.dcnn = nn.Sequential(*conv(1, 32, 64, 128, 256))
            self.enc.fc = nn.Linear(1024, out)
            self.dec.fc = nn.Linear(n, 8192)
            self.dec.dcnn = nn.Sequential(nn.ReLU(), *up(128, 64, 32), nn.ConvTranspose2d(32, 1, 1), last)
        self.dataset = dataset
        if layers:
            self.mlp = nn.Module()
            self.mlp.hidden = nn.ModuleList(nn.Linear(n, n, bias=False) for _ in range(layers))

    def encode(self, x):
        h = self.enc.dcnn(x).flatten(1)
        if self.dataset == "mnist":
            h = self.enc.fc(h)
        for layer in self.mlp.hidden if hasattr(self, "mlp") else []:
            h = layer(h)
        return h

    def decode(self, z):
        if self.dataset == "shape":
            return self.dec.dcnn(z.view(-1, self.n, 1, 1))
        return self.dec.dcnn(self.dec.fc(z).view(-1, 128, 8, 8))

    def loss(self, x, noise):
        h = self.encode(x)
        if not self.vae:
            return F.mse_loss(self.decode(h), x)
        mean, logvar = h[:, : self.n], h[:, self.n :]
        x_hat = self.decode(mean + noise * torch.exp(logvar / 2))
        return F.binary_cross_entropy(x_hat, x) - 0.1 * torch.mean(1 + logvar - mean**2 - logvar.exp())


@pytest.mark.parametrize("dataset", ["mnist", "shape"])
@pytest.mark.parametrize(("layers", "vae"), [(0, False), (3, False), (0, True)])
def test_a_checkpoint_of_the_released_code(tmp_path, dataset, layers, vae):
    """Same encoding, decoding and loss, from nothing but the bare state dict."""
    torch.manual_seed(1)
    reference = Reference(dataset, 9, layers, vae)
    (tmp_path / dataset).mkdir()
    torch.save(reference.state_dict(), tmp_path / dataset / "released")
    saved = run.read(tmp_path / dataset / "released")
    model = saved.config.build_model().eval()
    model.load_state_dict(saved.weights)
    x = torch.rand(5, 3 if dataset == "shape" else 1, 32, 32)
    with torch.no_grad():
        code = reference.encode(x)[:, :9]
        assert torch.allclose(model.encode(x), code, atol=1e-6)
        assert torch.allclose(model.decode(code), reference.decode(code), atol=1e-6)
        torch.manual_seed(3)
        loss = model.losses(x)["loss"]
        torch.manual_seed(3)
        assert torch.allclose(loss, reference.loss(x, torch.randn(5, 9)), rtol=1e-5)


def test_every_script_takes_a_released_checkpoint(tmp_path, call):
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint" / "digits"
    folder.mkdir(parents=True)
    torch.save(Reference("mnist", 12, 2, False).state_dict(), folder / "released")
    common = ("--dataset", "digits", "--checkpoint", tmp_path / "checkpoint", "--save-path", tmp_path / "results")
    flags = ("-n", 12, "-l", 2, "--model-name", "released")
    for script in (
        ("generation.py", "--task", "pca", "-X", 2, "-Y", 3),
        ("singular.py",),
        ("classification.py", "--epochs", 1, "--train-size", 50),
    ):
        result = call(*script, *flags, *common)
        assert result.status == 0, result.err
    assert_refused(call("singular.py", "-n", 12, "-l", 3, "--model-name", "released", *common), "-l 3", "l = 2")


def test_a_state_dict_of_something_else(tmp_path):
    torch.save({"layer1.weight": torch.zeros(2, 2)}, tmp_path / "resnet")
    with pytest.raises(UserError, match=r"resnet: neither a checkpoint of .* nor a state dict of the IRMAE release"):
        run.read(tmp_path / "resnet")


def test_numbers_in_json_are_numbers(tmp_path):
    from utils.files import write_json

    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"loss": float(np.nan)})
    assert not list(tmp_path.iterdir())


def test_an_exclusive_run_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a" / "b" / "ae"
    with pytest.raises(KeyError), checkpoint.exclusive_run(path):
        assert path.parent.is_dir()
        raise KeyError
    assert not list(tmp_path.iterdir())
    with checkpoint.exclusive_run(path):
        with (
            pytest.raises(UserError, match="another process is training under this name"),
            checkpoint.exclusive_run(path),
        ):
            pass
        with checkpoint.exclusive_run(path, main_process=False):  # the other processes of torchrun
            path.write_text("trained")
    assert [file.name for file in path.parent.iterdir()] == ["ae"]
