"""Every script on files of one's own: numbers or one clear line."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import assert_refused

from experiments import evaluation
from experiments.trained import load
from utils.errors import UserError

RNG = np.random.default_rng(0)
PLANE = RNG.standard_normal((300, 2)) @ RNG.standard_normal((2, 5)) * 100 + 1000  # 2 dimensions in 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 5 numbers, a constant and a class, and fields."""
    folder = tmp_path_factory.mktemp("files")
    table = pd.DataFrame(PLANE, columns=list("abcde")).assign(constant=7.0)
    table["class"] = np.where(PLANE[:, 0] > PLANE[:, 0].mean(), "high", "low")
    table.to_csv(folder / "own.csv", index=False)
    table.assign(city="Rome").to_csv(folder / "words.csv", index=False)
    np.save(folder / "fields.npy", RNG.standard_normal((30, 1, 32, 32)) * 50)
    return folder


@pytest.fixture
def run(call, folder, monkeypatch):
    """Call a script in that folder; a first call trains a model of the table."""
    monkeypatch.chdir(folder)
    train = ("--dataset", "own.csv", "-l", 2, "--arch", "mlp:16", "--epochs", 30, "--lr", 1e-2)
    if not (folder / "checkpoint/own-csv/irmae").exists():
        result = call("train.py", *train)
        assert result.status == 0, result.err
        assert (
            "300 rows of 6 columns; columns a, b, c, d, e, constant; 1 of 6 values constant (every mean counts them)"
            in result.out
        )
        assert "label class (2 classes)" in result.out
    return call


def test_its_dimension_coordinates_and_errors(run, folder):
    result = run("singular.py", "--dataset", "own.csv", "--save-codes")
    assert "rank 2 of 6" in result.out, result.out + result.err
    error = evaluation.error_at_rank(load("checkpoint/own-csv/irmae"), 2)
    assert f"test error of what they decode to: {error:.4g}" in result.last_line
    coordinates = np.load(folder / "results/own-csv/singular/irmae-coordinates.npy")
    trained = load("checkpoint/own-csv/irmae")
    values = np.hstack([PLANE, np.full((300, 1), 7.0)])
    assert np.allclose(coordinates, trained.coordinates(values, 2), atol=1e-5)
    back = trained.from_coordinates(coordinates)
    assert back.shape == (300, 6) and back.dtype == torch.float64
    error = evaluation.error_at_rank(trained, 2)
    test = trained.dataset("test")
    scaled = trained.scaling.from_units(back[test.rows]) - test[:]
    assert error == pytest.approx(float(scaled.square().mean()), rel=1e-4) and error < 0.05
    assert evaluation.error_at_rank(trained, 1) > 3 * error

    assert run("generation.py", "--dataset", "own.csv").status == 0
    with open("results/own-csv/reconstruction/irmae.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["column"] for row in rows] == ["a", "b", "c", "d", "e", "constant"]
    expected = np.sqrt(np.square(trained.decode(trained.encode(test)).numpy() - values[test.rows]).mean(axis=0))
    assert np.allclose([float(row["rmse"]) for row in rows], expected, rtol=1e-4)
    assert rows[-1]["r2"] == "" and float(rows[0]["r2"]) > 0.9


def test_samples_are_rows_in_the_units_of_the_file(run):
    for task in ("mvg", "gmm", "interpolation", "traverse"):
        result = run("generation.py", "--dataset", "own.csv", "--task", task, "-X", 10, "-Y", 20)
        assert result.status == 0, result.err
    drawn = pd.read_csv("results/own-csv/mvg/irmae.csv")
    assert list(drawn) == ["a", "b", "c", "d", "e", "constant"] and len(drawn) == 200
    assert np.allclose(drawn.mean(), [*PLANE.mean(axis=0), 7], rtol=0.1)
    assert np.allclose(drawn.std()[:5], PLANE.std(axis=0), rtol=0.35)


def test_a_task_that_is_impossible_stops_the_others_before_they_write(run, tmp_path):
    flags = ("--dataset", "own.csv", "--save-codes", "--save-path", tmp_path, "--task", "mvg")
    assert_refused(run("generation.py", *flags, "explore"), "--task explore", "of a file use")
    assert_refused(run("generation.py", *flags, "prior"), "no prior", "--task mvg")
    assert not list(tmp_path.iterdir())


def test_the_other_scripts(run):
    assert run("generation.py", "--dataset", "own.csv", "--task", "tsne").status == 0
    assert json.loads(Path("results/own-csv/tsne/irmae.json").read_text())["fit_to"] == "train"
    result = run("evaluate.py", "--dataset", "own.csv")
    assert result.status == 0 and "| irmae | 0.0" in result.out, result.out + result.err
    raw = ("--dataset", "own.csv", "-l", 0, "--arch", "mlp:16", "--epochs", 2, "--scale", "none")
    assert run("train.py", *raw).status == 0
    rows = {}
    for names in (["irmae"], ["ae"], ["irmae", "ae"]):  # each in its own scale
        assert run("evaluate.py", "--dataset", "own.csv", "--model-name", *names).status == 0
        content = json.loads(Path(f"results/own-csv/evaluate/{'+'.join(names)}.json").read_text())
        rows |= {(row["model_name"], len(names)): row["mse"] for row in content}
    assert rows["irmae", 1] == rows["irmae", 2] < 1 < 100 < rows["ae", 1] == rows["ae", 2]
    for file in Path("checkpoint/own-csv").glob("ae*"):  # the newest stays the other
        file.unlink()
    result = run("isometry.py", "--dataset", "own.csv", "--model-name", "irmae", "--num-pairs", 50, "--metric-codes", 2)
    assert result.status == 0 and "Pearson r" in result.last_line, result.err
    result = run("classification.py", "--dataset", "own.csv", "--model-name", "irmae", "--epochs", 60)
    assert float(result.out.split("test accuracy ")[1].split()[0]) > 0.8, result.out
    result = run("classification.py", "--dataset", "own.csv", "--epochs", 10, "--supervised")
    assert result.status == 0 and "supervised on own-csv" in result.last_line, result.err


def test_fields_with_convolutions(run):
    fields = ("--dataset", "fields.npy")
    result = run("train.py", *fields, "--arch", "conv", "-l", 1, "-n", 4, "--epochs", 1, "--model-name", "conv")
    assert result.status == 0, result.err
    assert run("generation.py", *fields, "--task", "mvg", "-X", 2, "-Y", 1).status == 0
    assert np.load("results/fields-npy/mvg/conv.npy").shape == (2, 1, 32, 32)
    assert load("checkpoint/fields-npy/conv").decode(torch.zeros(1, 4)).abs().max() > 1  # no tanh, no sigmoid


def test_a_model_belongs_to_the_file_as_it_was(run, folder):
    text = (folder / "own.csv").read_text()
    try:
        assert run("train.py", "--dataset", "own.csv", "--resume", "--epochs", 31).status == 0
        assert_refused(run("train.py", "--dataset", "own.csv", "--resume", "--scale", "none"), "scale", "standard")
        (folder / "own.csv").write_text(text + "1,2,3,4,5,7,low\n")
        assert_refused(run("train.py", "--dataset", "own.csv", "--resume", "--epochs", 32), "has changed")
        assert_refused(run("singular.py", "--dataset", "own.csv"), "own.csv", "has changed")
        (folder / "own.csv").unlink()
        assert_refused(run("singular.py", "--dataset", "own.csv"), "own.csv: expected a file", "found none")
        with pytest.raises(UserError, match=r"own.csv: expected a file"):
            load("checkpoint/own-csv/irmae").spectrum()
    finally:
        (folder / "own.csv").write_text(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--dataset", "words.csv"), ["column city", "'Rome'", "--ignore city", "--label city"]),
        (("--dataset", "none.csv"), ["none.csv", "found none"]),
        (("--dataset", "own.txt"), ["own.txt", "mnist", "a file"]),
        (("--dataset", "own.csv", "--vae"), ["vae", "0 to 1", "irmae"]),
        (("--dataset", "own.csv", "--arch", "gdn"), ["--arch gdn", "relu:512-256"]),
        (("--dataset", "own.csv", "--arch", "conv"), ["--arch conv", "square fields"]),
        (("--dataset", "own.csv", "--image-size", 64), ["--image-size 64"]),
        (("--dataset", "digits", "--split", "time"), ["--split time", "a file of your own"]),
        (("--dataset", "own.csv", "--model", "radogaga", "--distortion", "ssim"), ["ssim", "mse"]),
    ],
)
def test_what_does_not_fit(run, flags, words):
    assert_refused(run("train.py", *flags), *words)
