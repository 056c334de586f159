"""Learning rates from epoch to epoch: the released codes' rules written out, and runs that follow them."""

import math

import pytest
import torch

from experiments import run
from utils import checkpoint, schedules

FLAGS = ("--dataset", "digits", "--model", "wae-gan", "--arch", "mlp", "-n", 4, "--train-size", 64, "--valid-size", 32)


def test_the_schedules_of_wae():
    """tolstikhin/wae, wae.py, train: the decay is changed at the beginning of an epoch, the first included."""
    decay, smooth = 1.0, 1.0
    for epoch in range(120):
        decay /= {30: 2, 50: 5, 100: 10}.get(epoch, 1)
        smooth /= math.exp(math.log(100) / 120)
        assert schedules.factor("wae", epoch, 120, []) == pytest.approx(decay, rel=1e-12)
        assert schedules.factor("smooth", epoch, 120, []) == pytest.approx(smooth, rel=1e-12)
        assert schedules.factor("constant", epoch, 120, []) == 1
    assert schedules.factor("smooth", 119, 120, []) == pytest.approx(1 / 100)


def test_the_plateau_of_rae():
    """Keras 2.3, ReduceLROnPlateau(factor=0.5, patience=5), whose min_delta is 1e-4, at every epoch of a long run."""
    torch.manual_seed(0)
    losses = (0.1 / torch.arange(1, 80) + 5e-5 * torch.randn(79)).tolist()
    rate, best, wait, rates = 1.0, math.inf, 0, [1.0]
    for loss in losses:
        if loss < best - 1e-4:
            best, wait = loss, 0
        else:
            wait += 1
            if wait >= 5:
                rate, wait = rate / 2, 0
        rates.append(rate)
    assert [schedules.factor("plateau", epoch, 100, losses[:epoch]) for epoch in range(80)] == rates
    assert len(set(rates)) > 2


def test_a_run_follows_its_schedule(call, tmp_path):
    """The rates of both players are multiplied; the table names that of the autoencoder."""
    flags = (*FLAGS, "--lr", 1e-2, "--adversary-lr", 3e-2, "--lr-schedule", "smooth", "--epochs", 4)
    assert call("train.py", *flags, "--checkpoint", tmp_path / "whole").status == 0
    whole = run.read(tmp_path / "whole" / "digits" / "wae-gan")
    assert [row["lr"] for row in whole.metrics] == pytest.approx([1e-2 * 0.01 ** (epoch / 4) for epoch in (1, 2, 3, 4)])
    rates = [group["lr"] for group in whole.optimizer["param_groups"]]
    assert rates[1] == pytest.approx(3 * rates[0])


def test_a_resumed_run_is_exact(call, tmp_path, monkeypatch):
    flags = (*FLAGS, "--lr", 1e-2, "--lr-schedule", "plateau", "--epochs", 9)
    monkeypatch.setattr(schedules, "PROGRESS", 10.0)  # nothing is progress: halved every fifth epoch
    assert call("train.py", *flags, "--checkpoint", tmp_path / "whole").status == 0
    assert call("train.py", *flags[:-1], 6, "--checkpoint", tmp_path / "parts").status == 0
    assert call("train.py", *flags, "--checkpoint", tmp_path / "parts", "--resume").status == 0
    whole, parts = (checkpoint.load(tmp_path / folder / "digits" / "wae-gan") for folder in ("whole", "parts"))
    assert [row["lr"] for row in parts["metrics"]] == [row["lr"] for row in whole["metrics"]] == [1e-2] * 6 + [5e-3] * 3
    assert all(torch.equal(value, whole["weights"][name]) for name, value in parts["weights"].items())
