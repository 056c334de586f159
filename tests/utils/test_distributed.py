"""Several processes by torchrun: the same numbers as one, one checkpoint, and an end when a process dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, ROOT

import models
from experiments import run
from utils import distributed

FLAGS = ("--dataset", "digits", "--arch", "mlp", "-l", 2, "-n", 8)
FLAGS += ("--lr", 1e-4, "--train-size", 321, "--valid-size", 41)


def torchrun(script: str, *arguments: object) -> subprocess.Popen:
    """A script in two processes, its output unbuffered."""
    command = [sys.executable, "-u", "-m", "torch.distributed.run", "--nproc_per_node=2", str(ROOT / script)]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
    )


def read_until(process: subprocess.Popen, words: str) -> None:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    raise AssertionError("".join(seen))


def worker(process: subprocess.Popen, rank: int) -> int:
    """The process id of a rank."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text():
            return int(pid)
    raise AssertionError(f"no process of rank {rank}")


def assert_same_run(first: Path, second: Path, distance: float) -> None:
    """Two checkpoints of the same training but for the rounding of sums."""
    one, other = run.read(first), run.read(second)
    assert one.epoch == other.epoch == len(one.metrics) == len(other.metrics)
    for row, like in zip(one.metrics, other.metrics, strict=True):
        del row["seconds"], like["seconds"]
        assert row == pytest.approx(like, rel=1e-4)
    weights, others = (torch.cat([w.flatten() for w in saved.weights.values()]) for saved in (one, other))
    assert (weights - others).norm() <= distance * weights.norm()


def test_two_processes_take_the_steps_of_one(call, tmp_path):
    """20 steps, the last of them on one image, which only one of the processes has, and averaged weights."""
    flags = ("--dataset", "digits", "--arch", "mlp", "-l", 2, "-n", 8, "--epochs", 1)
    flags += ("--train-size", 609, "--valid-size", 41, "--ema", 0.5)
    process = torchrun("train.py", *flags, "--checkpoint", tmp_path / "two", "--model-name", "x")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert call("train.py", *flags, "--checkpoint", tmp_path / "one", "--model-name", "x").status == 0
    assert_same_run(tmp_path / "two" / "digits" / "x", tmp_path / "one" / "digits" / "x", 1e-5)


def test_every_model_trains_and_resumes_in_two_processes(tmp_path):
    process = torchrun("tests/utils/every_model.py", tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    for name in models.MODELS:
        saved = run.read(tmp_path / name)
        assert saved.epoch == len(saved.metrics) == 2
        assert f"resuming {tmp_path / name} after 1 epochs" in output


def test_what_two_processes_begin_one_ends(call, tmp_path):
    """SIGTERM to torchrun in the second epoch; the last batch of each epoch has one image for two processes."""
    path, alone = (tmp_path / folder / "digits" / "irmae" for folder in ("two", "alone"))
    process = torchrun("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / "two")
    read_until(process, "irmae: epoch 1/3")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert output.count("with --resume goes on") == 1, output
    assert 1 <= run.read(path).epoch < 3
    assert sorted(file.name for file in path.parent.iterdir()) == ["irmae", "irmae.csv", "irmae.yaml", "tensorboard"]
    assert len(list((path.parent / "tensorboard" / "irmae").iterdir())) == 1

    for folder in ("two", "alone"):
        result = call("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / folder, "--resume")
        assert result.status == 0, result.err
    # Where a gradient is all rounding, Adam takes a full step of either sign.
    assert_same_run(path, alone, 5e-3)


def test_two_processes_go_on_where_one_stopped_and_a_killed_one_ends_the_job(call, tmp_path):
    path = tmp_path / "digits" / "irmae"
    assert call("train.py", *FLAGS, "--epochs", 1, "--checkpoint", tmp_path).status == 0
    process = torchrun("train.py", *FLAGS, "--epochs", 1000, "--checkpoint", tmp_path, "--resume")
    read_until(process, "irmae: epoch 11/1000")
    os.kill(worker(process, 1), signal.SIGKILL)
    started = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - started < 30
    assert process.returncode != 0
    assert "another process of this run ended" in output and "--resume goes on" in output, output
    assert run.read(path).epoch >= 10  # where a checkpoint is due


@pytest.mark.parametrize("total", [1, 2, 3, 32])
def test_parts_are_disjoint_and_complete(monkeypatch, total):
    """Every image once; a process without one computes the first, and counts none."""
    monkeypatch.setattr(distributed, "world", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        rows = list(range(total))[distributed.part(total)]
        count = distributed.count(total)
        assert rows == [0] if count == 0 else len(rows) == count
        seen += rows if count else []
    assert seen == list(range(total))
