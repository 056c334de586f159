"""``train.py --wandb`` with a module in place of wandb that records its calls; and without any."""

import importlib.util
import json
import signal
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT, assert_refused, run_script, start_script

from experiments import run

FLAGS = ("--dataset", "digits", "--arch", "mlp", "-l", 1, "-n", 4, "--train-size", 40, "--valid-size", 20)
FAKE = """
import json, os

class Error(Exception):
    pass

class Image:
    def __init__(self, picture):
        self.size = picture.size

class Run:
    def __init__(self, id):
        self.id, self.step = id, int(os.environ.get("FAKE_STEP", 0))

    def log(self, values, step):
        assert step >= self.step
        self.step = step
        record("log", step=step, **{k: v.size if isinstance(v, Image) else v for k, v in values.items()})

def record(call, **values):
    with open(os.environ["FAKE_CALLS"], "a") as stream:
        stream.write(json.dumps({"call": call} | values) + "\\n")

def init(**given):
    record("init", pid=os.getpid(), **given)
    if given["project"] == "closed":
        raise Error("No API key configured.\\nUse `wandb login` to log in.")
    return Run(given["id"] or "abc123")
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What the scripts told the module so far."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "wandb.py").write_text(FAKE)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setitem(ENVIRONMENT, "FAKE_CALLS", str(tmp_path / "calls"))
    return lambda: [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_it_has_the_metrics_of_the_checkpoint_and_one_run_over_a_resume(calls, tmp_path, monkeypatch):
    """Begun by two processes, of which the first logs, and ended by one."""
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path, "--model-name", "x")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", ROOT / command[0], *command[1:]]
    words = list(map(str, [*torchrun, "--epochs", 2, "--wandb", "project"]))
    assert subprocess.run(words, env=ENVIRONMENT, capture_output=True, timeout=120).returncode == 0
    monkeypatch.setitem(ENVIRONMENT, "FAKE_STEP", "2")  # wandb has it up to epoch 1
    result = run_script(*command, "--epochs", 3, "--resume")
    assert result.status == 0, result.err
    saved = run.read(tmp_path / "digits" / "x")
    first, *logged = calls()
    (second,) = (each for each in logged if each["call"] == "init")
    logged.remove(second)
    assert (first["project"], first["name"], first["id"], second["id"]) == ("project", "x", None, "abc123")
    assert first["config"]["latent_dim"] == 4 and first["config"]["model"] == "irmae"
    assert second["resume"] == "allow" and second["pid"] != first["pid"]
    assert [entry["wandb"] for entry in saved.provenance] == ["abc123"] * 2
    assert [each["step"] for each in logged] == [1, 2, 2, 3]  # the second 2: what the resumed run lacked
    for each in logged:
        row = saved.metrics[each["step"] - 1]
        assert {key.replace("/", "_"): value for key, value in each.items() if "/" in key} == {
            key: value for key, value in row.items() if "_" in key
        }
    assert logged[0]["reconstruction"] == logged[-1]["reconstruction"] == [16 * 66 + 2, 3 * 66 + 2]


def test_it_may_be_refused_ended_and_interrupted(calls, call, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path)
    assert_refused(call(*command, "--wandb", "closed"), "--wandb: No API key", "WANDB_MODE=offline")
    assert not (tmp_path / "digits").exists()
    process = start_script(*command, "--epochs", 5000, "--wandb", "project")
    for line in process.stdout:
        if "epoch 2/" in line:
            process.send_signal(signal.SIGINT)
            break
    assert "Traceback" not in process.stdout.read() and process.wait() == 128 + signal.SIGINT
    epoch, before = run.read(tmp_path / "digits" / "irmae").epoch, len(calls())
    assert call(*command, "--resume", "--epochs", epoch + 1, "--wandb", "").status == 0 and len(calls()) == before
    del sys.modules["wandb"]


def test_without_the_package_one_line_says_so(call, tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # as its runs leave it; the folder alone is no package
    monkeypatch.syspath_prepend(tmp_path)
    if importlib.util.find_spec("wandb").origin is not None:
        pytest.skip("wandb is installed")
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path / "checkpoint", "--wandb", "project")
    assert_refused(call(*command), "--wandb project", "pip install wandb")
    assert not (tmp_path / "checkpoint").exists()
