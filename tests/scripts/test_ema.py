"""``train.py --ema``: what is averaged, that the average is what is evaluated, and that --resume loses nothing."""

import dataclasses
import signal

import pytest
import torch
from conftest import assert_refused

from experiments import ema, run, trained
from utils import checkpoint, loop

FLAGS = ("--dataset", "digits", "--vae", "--arch", "mlp", "-n", 4, "--train-size", 100, "--valid-size", 50)
FLAGS += ("--batch-size", 20, "--lr", 1e-3)  # five steps an epoch


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def steps(monkeypatch):
    """The weights before the first step and after each one, in float64."""
    seen, step = [], loop.Step.__call__

    def record(self, index):
        copy = lambda: {k: v.detach().double().clone() for k, v in self.model.state_dict().items()}  # noqa: E731
        if not seen:
            seen.append(copy())
        losses = step(self, index)
        seen.append(copy())
        return losses

    monkeypatch.setattr(loop.Step, "__call__", record)
    return seen


def test_the_average_is_that_of_its_formula_and_changes_no_step(tmp_path, call, steps):
    """D^t θ_0 + (1 − D) Σ D^(t − s) θ_s over the ten steps s, in float64."""
    for folder, more in (("with", ("--ema", 0.7)), ("without", ())):
        steps.clear()
        assert call("train.py", *FLAGS, "--epochs", 2, "--checkpoint", tmp_path / folder, *more).status == 0
    first, *later = steps  # of the run without an average: the steps are the same
    saved, plain = (run.read(tmp_path / folder / "digits" / "vae") for folder in ("with", "without"))
    assert len(later) == 10 and same(saved.raw_weights, plain.weights) and plain.raw_weights is None
    for key, value in saved.weights.items():
        expected = 0.7**10 * first[key]
        expected += sum(0.3 * 0.7 ** (10 - number) * weights[key] for number, weights in enumerate(later, 1))
        assert torch.allclose(value.double(), expected, rtol=0, atol=1e-7), key
        assert not torch.equal(value, saved.raw_weights[key])
    assert [row["train_loss"] for row in saved.metrics] == [row["train_loss"] for row in plain.metrics]
    assert saved.metrics[-1]["valid_loss"] > plain.metrics[-1]["valid_loss"]  # so early the average is behind


def test_the_average_is_what_is_evaluated(tmp_path, call):
    """Validation, the best epoch and the Python API see the averaged weights."""
    command = ("train.py", *FLAGS, "--epochs", 2, "--checkpoint", tmp_path, "--ema", 0.7, "--keep-best")
    assert call(*command, "--samples-every", 1).status == 0
    path = tmp_path / "digits" / "vae"
    saved, opened = run.read(path), trained.load(path)
    assert same(dict(opened.model.state_dict()), saved.weights)
    losses = loop.evaluate(opened.model, opened.dataset("valid", 50).batches(128, torch.device("cpu")))
    assert losses["loss"] == saved.metrics[-1]["valid_loss"]
    best = run.read(path.with_name("vae.best"))
    assert best.epoch == 2 and same(best.weights, saved.weights) and best.raw_weights is None
    assert len(list(path.with_name("vae.samples").iterdir())) == 4


def test_an_interrupted_run_ends_with_the_bits_of_one_that_was_not(tmp_path, call, monkeypatch):
    """SIGTERM after step 7 of 15, in the second epoch."""
    command = ("train.py", *FLAGS, "--epochs", 3, "--ema", 0.9, "--checkpoint")
    assert call(*command, tmp_path / "whole").status == 0
    step, calls = loop.Step.__call__, []

    def stop(self, index):
        calls.append(0)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGTERM)
        return step(self, index)

    monkeypatch.setattr(loop.Step, "__call__", stop)
    assert call(*command, tmp_path / "halves").status == 128 + signal.SIGTERM
    half = run.read(tmp_path / "halves" / "digits" / "vae")
    assert (half.epoch, half.step) == (1, 2) and not same(half.weights, half.raw_weights)
    # The flag of the first run is taken from the checkpoint, and none but it is accepted.
    resume = ("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / "halves", "--resume")
    assert_refused(call(*resume, "--ema", 0.5), "ema is 0.9", "0.5 on the command line")
    assert call(*resume).status == 0
    whole, halves = (run.read(tmp_path / folder / "digits" / "vae") for folder in ("whole", "halves"))
    assert same(whole.weights, halves.weights) and same(whole.raw_weights, halves.raw_weights)
    assert [row["valid_loss"] for row in whole.metrics] == [row["valid_loss"] for row in halves.metrics]


def test_files_that_lack_the_weights_or_the_average_are_refused(tmp_path, call):
    command = ("train.py", *FLAGS, "--epochs", 1, "--checkpoint", tmp_path)
    path = tmp_path / "digits" / "vae"
    assert call(*command, "--ema", 0.9).status == 0
    record = checkpoint.load(path)
    checkpoint.save(path, record | {"raw_weights": None})
    assert_refused(call(*command, "--epochs", 2, "--resume"), path, "without raw_weights cannot be resumed")
    checkpoint.save(path, record | {"raw_weights": dict(list(record["raw_weights"].items())[1:])})
    assert_refused(call(*command, "--epochs", 2, "--resume"), path, "raw_weights: no ")
    assert call(*command).status == 0
    assert_refused(call(*command, "--epochs", 2, "--resume", "--ema", 0.9), "ema is 0.0", "another --model-name")


@pytest.mark.parametrize("value", ["1", "-0.1", "much"])
def test_a_decay_is_below_one(call, value):
    assert_refused(call("train.py", f"--ema={value}"), "--ema", "from 0 to below 1", value)


STATEFUL = {  # models that keep more than weights: buffers, a folded matrix, schedules
    "irmae": ("-l", 2),
    "rrae": ("--adaptive-rank",),
    "rae": ("--penalty", "sn"),
    "radogaga": ("--prior", "gmm"),
    "infocat-vae": (),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_without_memory_the_average_is_the_model_itself(tmp_path, call, name):
    """D = 1e-30 forgets all but the last step, so that every number is that of a run without an average."""
    command = ("train.py", "--dataset", "digits", "--model", name, "--arch", "mlp", "--batch-size", 8, "--epochs", 2)
    command += ("--train-size", 23, "--valid-size", 17, *STATEFUL[name], "--checkpoint")
    assert call(*command, tmp_path / "with", "--ema", 1e-30).status == 0
    assert call(*command, tmp_path / "without").status == 0
    one, other = (run.read(tmp_path / folder / "digits" / name) for folder in ("with", "without"))
    assert same(one.weights, other.weights) and same(one.raw_weights, other.weights)
    for row, like in zip(one.metrics, other.metrics, strict=True):
        assert row | {"seconds": 0} == like | {"seconds": 0}


def test_a_run_that_is_too_short_for_its_average_says_so(capsys):
    config = run.RunConfig("ae", "mnist", 4, "digits", 32, 1, {}, batch_size=32, epochs=3)
    ema.caution(dataclasses.replace(config, ema=0.999), images=1437)  # 135 steps: 0.999 ** 135 = 0.874
    assert "after 135 steps the initial weights still make up 87 % of the average" in capsys.readouterr().out
    ema.caution(dataclasses.replace(config, ema=0.9), images=1437)
    ema.caution(config, images=1437)
    assert capsys.readouterr().out == ""
