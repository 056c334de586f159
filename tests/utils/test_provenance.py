"""Every checkpoint and every result says which command, machine and code made it."""

import json
import os
import platform
import subprocess
import sys

import torch
from conftest import ENVIRONMENT, ROOT, run_script

from experiments import run

KEYS = {"command", "seed", "precision", "device", "device_name", "threads", "python", "torch", "commit", "date"}


def head() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()[:12]


def assert_complete(found: dict, *command: str) -> None:
    assert set(found) == KEYS
    assert all(word in found["command"] for word in command)
    assert (found["device"], found["threads"], found["torch"]) == ("cpu", 1, torch.__version__)
    assert found["python"] == platform.python_version() and found["device_name"]
    if (ROOT / ".git").exists():
        assert found["commit"].removesuffix("-dirty") == head()


def test_a_checkpoint_and_what_is_made_of_it(trained, tmp_path):
    (made,) = run.read(trained / "digits" / "irmae").provenance
    assert_complete(made, "train.py", "--dataset digits", "-l 2")
    flags = ("--dataset", "digits", "--model-name", "irmae", "--checkpoint", trained, "--save-path", tmp_path)
    for script, folder in ((("singular.py",), "singular"), (("generation.py", "--task", "mvg"), "mvg")):
        result = run_script(*script, *flags, "--seed", 7)
        assert result.status == 0, result.err
        content = json.loads((tmp_path / "digits" / folder / "irmae.json").read_text())
        row = content[0] if isinstance(content, list) else content
        assert_complete(row["provenance"], *script, "--seed 7")
        assert row["provenance"]["seed"] == 7 and row["trained_by"] == [made]


def test_each_run_on_vectors(tmp_path):
    result = run_script("density.py", "--models", "pca-gmm", "--runs", 1, "--size", 100, "--save-path", tmp_path)
    assert result.status == 0, result.err
    assert_complete(json.loads((tmp_path / "toy/density/density.json").read_text())["provenance"], "density.py")


def test_outside_git_the_commit_is_unknown(tmp_path):
    program = "from utils import provenance; provenance.ROOT = '/'; print(provenance.commit())"
    for environment in (ENVIRONMENT, {**os.environ, "PATH": ""}):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == "unknown", done.stderr
