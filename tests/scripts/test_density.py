"""Estimated against true density on the toy data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import density
from data import toy
from utils.errors import Diverged, UserError

ROOT = Path(__file__).parents[2]


def test_correlations_do_not_depend_on_the_scale_of_the_estimate():
    true = np.random.default_rng(0).random(500)
    for factor in (-2000.0, 0.0, 2000.0):  # exp of neither is a float64
        found = density.correlations(true, np.log(true) + factor)
        assert found["pearson"] == pytest.approx(1) and found["spearman"] == pytest.approx(1)
    assert density.correlations(true, 3 * np.log(true))["pearson"] < 0.99
    assert density.correlations(true, 3 * np.log(true))["spearman"] == pytest.approx(1)


def test_the_linear_ceiling_finds_the_density_of_generated_data():
    points = toy.generate(3000, 1)
    estimate = density.log_density(points, "pca-gmm", 0, {}, False)
    assert density.correlations(points.density, estimate)["pearson"] > 0.99


def test_the_script_writes_what_it_prints(tmp_path):
    small = ["--size", "400", "--epochs", "2", "--runs", "2", "--save-path", str(tmp_path)]
    models = ["radogaga-log", "dagmm", "dagmm-no-residual", "pca-gmm"]
    command = [sys.executable, "density.py", *small, "--models", *models]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "toy" / "density" / "density.json").read_text())
    assert [(row["model"], row["seed"]) for row in content["runs"]] == [
        (name, seed) for name in models for seed in (0, 1)
    ]
    first = {row["model"]: row["spearman"] for row in content["runs"] if row["seed"] == 0}
    assert first["dagmm"] != first["dagmm-no-residual"]
    for name, median in content["median"].items():
        values = [row["pearson"] for row in content["runs"] if row["model"] == name]
        assert median["pearson"] == pytest.approx(np.median(values))
        assert f"{name} {median['pearson']:.4f}" in done.stdout.splitlines()[-1]
    assert (tmp_path / "toy" / "density" / "density.png").read_bytes()[:4] == b"\x89PNG"


def called_with(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["density.py", *map(str, arguments)])
    density.main()


def test_the_same_seed_gives_the_same_numbers(monkeypatch, capsys, tmp_path):
    small = ["--size", 300, "--epochs", 1, "--runs", 1, "--models", "radogaga-d", "--jobs", 1, "--save-path", tmp_path]
    lines = []
    for seed in (3, 3, 4):
        called_with(monkeypatch, *small, "--seed", seed)
        lines.append(capsys.readouterr().out.splitlines()[-1])
    assert lines[0] == lines[1] != lines[2]


def test_bad_input_is_named(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"none\.csv"):
        called_with(monkeypatch, "--data-path", tmp_path / "none.csv")
    constant = tmp_path / "constant.csv"
    rows = np.random.default_rng(0).random((20, 18))
    rows[:, 16], rows[:, 17] = 1.0, 0
    np.savetxt(constant, rows, delimiter=",")
    with pytest.raises(UserError, match=r"density \(column 17\)"):
        called_with(monkeypatch, "--data-path", constant)
    with pytest.raises(UserError, match="--size 4"):
        called_with(monkeypatch, "--size", 4)
    np.savetxt(tmp_path / "few.csv", np.random.default_rng(0).random((5, 17)), delimiter=",")
    with pytest.raises(UserError, match=r"few\.csv: 5 points"):
        called_with(monkeypatch, "--data-path", tmp_path / "few.csv")


def test_a_diverging_training_is_named(monkeypatch, tmp_path):
    with pytest.raises(Diverged, match="radogaga-d, seed 0"):
        called_with(monkeypatch, "--size", 300, "--epochs", 3, "--lr", 1e30, "--models", "radogaga-d", "--runs", 1)
