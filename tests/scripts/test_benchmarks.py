"""benchmarks/: what it counts, what it measures, and that it runs as typed."""

import argparse
import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from conftest import assert_refused, run_script

import data
from benchmarks import growth, measurement, paths, reference
from utils.errors import UserError

ARGUMENTS = argparse.Namespace(gpu=False, threads=1, images=64, data_path=None, workers=1)


def test_a_row_as_typed(tmp_path):
    flags = ("--models", "irmae", "--datasets", "mnist", "--batch-sizes", 8, "--precisions", "fp32", "--seconds", 0.1)
    flags += ("--rounds", 1, "--images", 64, "--workers", 1, "--threads", 1, "--json", tmp_path / "rows.json")
    result = run_script("benchmarks/throughput.py", *flags)
    assert result.status == 0, result.err
    assert "1 row" in result.last_line and "fp32" in result.last_line
    saved = json.loads((tmp_path / "rows.json").read_text())
    (row,) = saved["rows"]
    assert saved["machine"]["threads"] == 1 and saved["machine"]["images"] == "noise"
    assert (row["model"], row["dataset"], row["batch_size"], row["precision"]) == ("irmae", "mnist", 8, "fp32")
    assert row["images_per_second"] == pytest.approx(8e3 / row["ms_per_step"])
    assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"] and len(row["rounds"]) == 1
    fractions = [row["flops_per_step"] / each["ours"] / each["rate"] for each in row["rounds"]]
    assert row["product_fraction"] == pytest.approx(np.median(fractions))
    assert 1e8 < row["product_flops_per_second"] < 1e14
    assert 100e6 < row["peak_memory_bytes"] < 4e9


def test_arithmetic_is_counted_as_by_hand():
    """The published MNIST network: two operations a multiplication, three passes but one for the first layer."""
    encoder = [256 * 32 * 1, 64 * 64 * 32, 16 * 128 * 64, 4 * 256 * 128]  # output pixels, channels out and in
    decoder = [64 * 128 * 64, 256 * 64 * 32]  # a transposed convolution: input pixels
    convolutions = [16 * each for each in (*encoder, *decoder)]
    others = [1024 * 128, 128 * 8192, 1024 * 32]  # linear layers; the 1x1 convolution on 32x32 pixels
    expected = 2 * (3 * sum(convolutions + others) - convolutions[0])
    setting = measurement.Setting("ae", "mnist", 32, "fp32")
    assert measurement.flops_per_step(setting) == pytest.approx(32 * expected, rel=1e-6)


@pytest.mark.parametrize("dataset", ["mnist", "shape", "celeba"])
def test_both_loops_see_images_of_the_same_kind(dataset):
    ours = measurement.load_images(dataset, 4, None)
    theirs = reference.Images(dataset)
    (x,) = ours.batches(4)
    assert theirs[0].shape == x.shape[1:] and theirs[0].dtype == x.dtype
    assert theirs[0].min() >= 0 and theirs[0].max() <= 1 and not torch.equal(theirs[0], theirs[1])


def test_the_reference_draws_shapes_with_the_statistics_of_the_data_set():
    drawn = np.stack([reference.draw_shape(np.random.default_rng(seed)) for seed in range(500)])
    rendered = measurement.load_images("shape", 500, None)[:].mul(255).round().byte()
    assert drawn.max(axis=(1, 2, 3)).mean() == pytest.approx(rendered.amax((1, 2, 3)).float().mean().item(), rel=0.05)
    assert (drawn.sum(3) > 0).mean() == pytest.approx((rendered.sum(1) > 0).float().mean().item(), rel=0.1)


def test_both_loops_learn(monkeypatch):
    """What is timed is training: the losses of our loop and of the reference fall."""
    monkeypatch.setattr(reference, "GENERATED", 8)
    setting = measurement.Setting("ae", "mnist", 8, "fp32")
    config = dataclasses.replace(measurement.configuration("ae", "mnist"), latent_dim=8)
    torch.manual_seed(0)
    losses = reference.steps(config, reference.Images("mnist"), 8, 1, torch.device("cpu"))
    theirs = [next(losses) for _ in range(30)]
    losses.close()
    totals = measurement.our_steps(config, setting, measurement.load_images("mnist", 8, None), torch.device("cpu"))
    sums = [next(totals).state() for _ in range(30)]
    first, last = sums[0]["sums"]["loss"] / 8, (sums[29]["sums"]["loss"] - sums[28]["sums"]["loss"]) / 8
    assert theirs[-1] < 0.9 * theirs[0] and last < 0.9 * first


def test_the_profile_adds_up_to_the_step(monkeypatch):
    monkeypatch.setattr(measurement, "LOOP", {})
    measurement.start("ours", ARGUMENTS, measurement.Setting("irmae", "mnist", 8, "fp32"))
    kinds = measurement.profile()
    assert set(kinds) == set(measurement.KINDS) and min(kinds.values()) >= 0
    assert kinds["convolutions, backward"] > kinds["convolutions, forward"] > 0 and kinds["optimiser"] > 0
    step = 1e3 * measurement.advance(1.0)
    assert step / 3 < sum(kinds.values()) < 3 * step  # the profiler costs time itself


def test_paths_are_compared_by_what_they_learn(tmp_path, call, monkeypatch):
    """The prepared model ends where the plain one does. The scripts run in this process: four starts would be slow."""
    monkeypatch.setattr(paths, "call", lambda script, *words: call(script, *words))
    file = tmp_path / "paths.json"
    training = ("--dataset", "digits", "-l", 1, "-n", 4, "--arch", "mlp", "--epochs", 1, "--train-size", 64)
    done = call("benchmarks/paths.py", *training, "--paths", "fp32", "--json", file)
    assert done.status == 0, done.err
    assert done.last_line.endswith("so on every path")
    eager, prepared = json.loads(file.read_text())["rows"]
    assert eager["path"] == "eager, fp32" and prepared["valid_loss"] == pytest.approx(eager["valid_loss"], rel=1e-4)
    assert 1 <= eager["rank"] <= 4 and prepared["rank"] == eager["rank"]


@pytest.mark.parametrize("loss, rank, agrees", [(1.0, 6, True), (1.009, 7, True), (0.98, 6, False), (1.0, 8, False)])
def test_what_counts_as_the_same(loss, rank, agrees):
    row = {"valid_loss": loss, "rank": rank}
    paths.compare(row, {"valid_loss": 1.0, "rank": 6})
    assert row["agrees"] is agrees and row["difference"] == pytest.approx(loss - 1)


def test_the_cpu_beside_a_gpu_is_the_same_training_without_it(tmp_path, call, monkeypatch):
    trained = {}

    def run(script, *words):
        if script == "train.py":
            trained[words[words.index("--model-name") + 1]] = "--gpu" in words
        assert call(script, *words).status == 0

    monkeypatch.setattr(paths, "call", run)
    flags = ("--dataset", "digits", "-l", 1, "-n", 4, "--arch", "mlp", "--epochs", 1, "--train-size", 64)
    done = call("benchmarks/paths.py", "--gpu", *flags, "--paths", "cpu")
    assert done.status == 0, done.err
    assert trained == {"eager-fp32": True, "cpu": False}


def test_paths_sets_the_path_itself(call, tmp_path):
    assert_refused(
        call("benchmarks/paths.py", "--dataset", "digits", "--precision", "bf16"), "--precision", "leave it out"
    )
    assert_refused(call("benchmarks/paths.py", "--dataset", "digitz"), "digitz")


def test_no_real_images_is_the_users_mistake(tmp_path):
    for name in ("mnist", "celeba"):
        with pytest.raises(UserError, match="--data-path"):
            reference.Images(name, tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_time_and_memory_of_a_process_and_its_child():
    child = "import time; x = bytearray(100 << 20); time.sleep(0.5)"
    alone = f"import subprocess, sys; x = bytearray(200 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    found = growth.measured("-c", alone)
    assert 300 << 20 < found["peak_bytes"] < 400 << 20 and 0 < found["seconds"] < 10
    with pytest.raises(UserError, match="no such thing"):
        growth.measured("-c", "raise SystemExit('no such thing')")


def test_images_are_made_in_equal_classes(tmp_path):
    growth.draw(tmp_path / "made", 10)
    counts = [len(list((tmp_path / "made" / name).iterdir())) for name in growth.CLASSES]
    assert counts == [3, 3, 2, 2]
    train = data.load("folder", "train", str(tmp_path / "made"), image_size=64)
    assert train.store.shape[1:] == (3, 64, 64) and train.classes == sorted(growth.CLASSES)
