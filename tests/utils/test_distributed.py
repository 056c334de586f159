"""Several processes by torchrun: the same numbers as one, one checkpoint, and an end when a process dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ENVIRONMENT, ROOT
from torch import nn

import models
from utils import checkpoint, distributed

FLAGS = ("--dataset", "digits", "--vae", "-n", 8, "--lr", 1e-4, "--train-size", 321, "--valid-size", 41)


def torchrun(*arguments: object) -> subprocess.Popen:
    """train.py in two processes, its output unbuffered."""
    command = [sys.executable, "-u", "-m", "torch.distributed.run", "--nproc_per_node=2", str(ROOT / "train.py")]
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


def assert_same_run(first: Path, second: Path) -> None:
    """Two checkpoints of the same training: weights, losses and random state, but for the rounding of sums."""
    one, other = checkpoint.load(first), checkpoint.load(second)
    assert one["epoch"] == other["epoch"] == len(one["metrics"]) == len(other["metrics"])
    for row, like in zip(one["metrics"], other["metrics"], strict=True):
        del row["seconds"], like["seconds"]
        # A divergence near 0 is what is left of terms near 1, and keeps their rounding: 2e-6 without AVX-512.
        assert row == pytest.approx(like, rel=1e-4, abs=1e-5)
    for name, weight in one["weights"].items():
        # As a whole: where a gradient is all rounding, Adam takes a full step of either sign. A rate 1 % higher moves
        # the first of them by 8e-3 and the loss by 4e-4, one image less by 3e-2 and 1e-3.
        like = other["weights"][name]
        assert (weight - like).norm() <= 5e-3 * like.norm(), name
    assert torch.equal(one["random"]["cpu"], other["random"]["cpu"])


def test_what_two_processes_begin_one_ends_as_if_alone(call, tmp_path):
    """SIGTERM to torchrun in the second epoch; the last batch of each epoch has one image for two processes."""
    path, alone = (tmp_path / folder / "digits" / "vae" for folder in ("two", "alone"))
    process = torchrun(*FLAGS, "--epochs", 3, "--checkpoint", tmp_path / "two")
    read_until(process, "vae: epoch 1/3")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert output.count("with --resume goes on") == 1, output
    assert 1 <= checkpoint.load(path)["epoch"] < 3
    assert sorted(file.name for file in path.parent.iterdir()) == ["tensorboard", "vae", "vae.csv"]
    assert len(list((path.parent / "tensorboard" / "vae").iterdir())) == 1

    for folder in ("two", "alone"):
        result = call("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / folder, "--resume")
        assert result.status == 0, result.err
    assert_same_run(path, alone)


def test_two_processes_go_on_where_one_stopped_and_a_killed_one_ends_the_job(call, tmp_path):
    path = tmp_path / "digits" / "vae"
    assert call("train.py", *FLAGS, "--epochs", 1, "--checkpoint", tmp_path).status == 0
    process = torchrun(*FLAGS, "--epochs", 1000, "--checkpoint", tmp_path, "--resume")
    read_until(process, "vae: epoch 2/1000")
    os.kill(worker(process, 1), signal.SIGKILL)
    started = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - started < 30
    assert process.returncode != 0
    assert "another process of this run ended" in output and "--resume goes on" in output, output
    assert checkpoint.load(path)["epoch"] >= 2


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


def test_parts_draw_what_the_whole_batch_would(monkeypatch):
    """Noise, dropout, and draws that belong to no image; also in the channels-last format, which orders draws."""
    dropout = nn.Dropout(0.5)

    def draw(x, wide):
        return torch.randn_like(x), torch.rand_like(wide), dropout(x), torch.randn(7)

    x = torch.rand(5, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    wide = torch.rand(5, 40).chunk(2, dim=1)[0]
    torch.manual_seed(0)
    expected, state = draw(x, wide), torch.get_rng_state()
    monkeypatch.setattr(distributed, "world", lambda: 2)
    states = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        part = distributed.part(5)
        torch.manual_seed(0)
        with distributed.draws(5):
            found = draw(x[part], wide[part])
        for whole, values in zip(expected[:3], found[:3], strict=True):
            assert torch.equal(values, whole[part])
        assert torch.equal(found[3], expected[3])
        assert torch.equal(torch.get_rng_state(), state)
        with distributed.draws(5):
            assert dropout(torch.ones(3, 2)).shape == (3, 2)  # by chance as long as one of the parts
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    assert not torch.equal(F.dropout(x, 0.5), x)


# Where the loss is a mean over images, the parts add up to the whole; in the others terms see only their own part.
EXACT = {
    "irmae": ("irmae", {}),
    "vae": ("vae", {}),
    "beta-vae": ("beta-vae", {}),
    "wae-gan": ("wae-gan", {"noise": "gaussian"}),
    "rae-l2": ("rae", {}),
    "rae-gp": ("rae", {"penalty": "gp"}),
    "rae-sn": ("rae", {"penalty": "sn"}),
    "radogaga": ("radogaga", {}),
    "infocat-vae": ("infocat-vae", {"smooth_weight": 1.0}),
}
OF_PARTS = {
    "wae-mmd": ("wae-mmd", {}),
    "radogaga-gmm": ("radogaga", {"prior": "gmm", "estimation_dropout": 0.0}),
    "dagmm": ("dagmm", {}),
    "infocat-balance": ("infocat-vae", {"balance_weight": 10.0}),
    "batch-norm": ("ae", {"architecture": "wae-32"}),
}


@pytest.mark.parametrize("case", [*EXACT, *OF_PARTS])
def test_weighted_gradients_of_uneven_parts_are_those_of_the_batch(monkeypatch, case):
    name, options = (EXACT | OF_PARTS)[case]
    sizes = {"architecture": "image-mlp-32", "channels": 1, "latent_dim": 20}
    torch.manual_seed(0)
    model = models.build(name, **sizes | options).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(5, 1, 32, 32)

    def gradients(weight: float, rows: torch.Tensor) -> list[torch.Tensor]:
        model.load_state_dict(state)  # a spectral norm changes its buffers
        model.zero_grad()
        torch.manual_seed(1)
        with distributed.draws(5):
            loss = model.losses(rows)["loss"]
        (loss * weight).backward()
        return [p.grad.clone() for p in model.parameters()]

    whole = gradients(1.0, x)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    total = [torch.zeros_like(gradient) for gradient in whole]
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        torch._foreach_add_(total, gradients(distributed.count(5) / 5, x[distributed.part(5)]))
    largest = max(gradient.abs().max() for gradient in whole)
    distance = max((a - b).abs().max() for a, b in zip(total, whole, strict=True)) / largest
    assert (distance < 1e-5) == (case in EXACT), distance
