"""dimension.py: the gap, the local dimension, what it does not know, and that finished runs are kept."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, run_script

import dimension
from experiments import intrinsic_dimension as intrinsic
from experiments.intrinsic_dimension import TRAINED, TRAINING, Points
from utils.latents import Spectrum


def test_a_fall_is_looked_for_above_the_rounding_floor():
    values = np.array([1.0, 0.5, 1e-6, 1e-7, 1e-13, 1e-25])
    falls = Spectrum(values, 3.0).falls()
    assert falls == pytest.approx(np.log10([2, 5e5, 10, 1e5, 1]))
    assert Spectrum(values, 3.0).falls(floor=1e-30).argmax() == 4


@pytest.mark.parametrize("dimension, noise", [(1, 0.0), (2, 0.0), (2, 0.001)])
def test_the_local_dimension_of_a_sphere_is_one_less_than_its_coordinates(dimension, noise):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3000, dimension + 1))
    points = points / np.linalg.norm(points, axis=1, keepdims=True) * np.array([1, 0.01, 3])[: dimension + 1]
    found = intrinsic.local_dimension(points + noise * points.std(axis=0) * rng.standard_normal(points.shape))
    assert found == pytest.approx(dimension, abs=0.05)
    assert intrinsic.local_dimension(points[:10]) is None


def plane(size: int = 600) -> Points:
    """A plane in 6 dimensions, standardised."""
    rng = np.random.default_rng(1)
    values = rng.uniform(-1, 1, (size, 2)) @ rng.standard_normal((2, 6))
    x = torch.from_numpy((values - values.mean(axis=0)) / values.std(axis=0)).float()
    return Points(*x.split(size * 9 // 10), "a plane")


@pytest.mark.parametrize("method", ["irmae-wd", "lorae", "rrae"])
def test_a_plane_has_two_coordinates(method):
    settings = TRAINING | TRAINED[method] | {"architecture": "mlp:32", "steps": 400, "batch_size": 64}
    row = intrinsic.run_once(plane(), method, settings, 0)
    assert row["estimate"] == 2 and row["local"] == pytest.approx(2, abs=0.05)
    assert row["errors"][1] < 0.05 < 0.2 < row["errors"][0]
    assert row["errors"][-1] == pytest.approx(row["train_error"], rel=0.5)
    assert len(row["spectrum"]) == len(row["errors"]) == 6  # n is at most the number of columns
    assert dimension.doubts(row) == []


def test_errors_do_not_depend_on_the_units_of_the_data():
    class Shrunk(torch.nn.Module):
        """Its code is the data itself, nine tenths of which come back."""

        def encode(self, x):
            return x

        def decode(self, z):
            return 0.9 * z

    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0])
    x = x - x.mean(dim=0)
    for scale in (1.0, 100.0):
        found = intrinsic.measure(Shrunk(), Points(scale * x, scale * x, "itself"))
        assert found["train_error"] == pytest.approx(0.01, rel=1e-6)
        assert found["errors"][-1] == pytest.approx(0.01, rel=1e-6)


def row(**changed) -> dict:
    falls = [0.1, 4.0, 0.2]
    errors = [0.5, 1e-3, 1e-3, 1e-3]
    found = {"model": "irmae", "seed": 0, "estimate": 2, "falls": falls, "errors": errors, "train_error": 1e-3}
    return found | {"spectrum": [1.0, 0.8, 8e-5, 5e-5], "local": 1.9, "seconds": 1.0} | changed


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"falls": [0.1, 1.2, 0.3]}, "no gap"),
        ({"falls": [0.1, 4.0, 3.9]}, "two gaps"),
        ({"errors": [0.5, 0.3, 0.3, 0.3], "train_error": 0.3}, "train longer"),
        ({"train_error": 1e-4, "errors": [0.5, 0.01, 0.01, 0.01]}, "too few rows"),
    ],
)
def test_it_says_when_it_does_not_know(changed, words):
    assert dimension.doubts(row()) == []
    (found,) = dimension.doubts(row(**changed))
    assert words in found
    line = dimension.summary("irmae", [row(**changed), row(seed=1)])
    assert found in dimension.table([line]) and "not known" in dimension.conclusion([line])


def test_seeds_that_disagree_are_named():
    line = dimension.summary("irmae", [row(), row(seed=1), row(seed=2, estimate=3, errors=[0.5, 0.1, 1e-3, 1e-3])])
    assert line["estimate"] == 2 and line["doubts"] == ["seeds disagree: 2, 2, 3"]
    assert (line["lowest"], line["highest"], line["sides"], line["ranks"]) == (2, 3, [0.8, 8e-5], [2, 4])


def test_a_second_call_does_what_is_missing(tmp_path, call):
    small = ("--size", 300, "--steps", 6, "--arch", "mlp:8", "--seeds", 2, "--save-path", tmp_path)
    first = run_script("dimension.py", "--dataset", "manifold:circles-2-in-10", "--methods", "irmae", *small)
    assert first.status == 0, first.err
    assert "coordinates of a code" in first.last_line
    folder = tmp_path / "manifold-circles-2-in-10" / "dimension"
    again = call("dimension.py", "--dataset", "manifold:circles-2-in-10", "--methods", "irmae", "mle", *small)
    assert again.status == 0, again.err
    assert again.out.count("irmae, seed") == 0 and again.out.count("mle, seed") == 2
    assert len((folder / "runs.jsonl").read_text().splitlines()) == 4
    content = json.loads((folder / "dimension.json").read_text())
    assert [line["method"] for line in content["table"]] == ["irmae", "mle"]
    assert (content["dimension"], content["global_dimension"]) == (2, 3)
    assert (folder / "dimension.png").stat().st_size > 10_000
    wrong = call("dimension.py", "--dataset", "manifold:cube", *small)
    assert wrong.status == 2 and "unknown manifold 'cube'" in wrong.err


def test_a_small_file(tmp_path, call):
    """50 rows of a closed curve, with a column of words, one that does not vary and one that counts the rows."""
    angle = np.linspace(0, 12, 50)
    lines = [
        "row,word,constant,a,b,c",
        *(f"{i},x,1,{np.cos(t)},{np.sin(t)},{np.sin(t + 1)}" for i, t in enumerate(angle)),
    ]
    file = tmp_path / "curve.csv"
    file.write_text("\n".join(lines) + "\n")
    small = ("--methods", "irmae-wd", "mle", "--seeds", 1, "--steps", 60, "--arch", "mlp:16", "--save-path", tmp_path)
    refused = call("dimension.py", "--dataset", file, *small)
    assert refused.status == 2 and "column word holds words" in refused.err and "Traceback" not in refused.err
    result = call("dimension.py", "--dataset", file, "--ignore", "word", *small)
    assert result.status == 0, result.err
    content = json.loads((tmp_path / "curve-csv" / "dimension" / "dimension.json").read_text())
    assert content["shape"][1] == 3  # the constant column is left out
    assert content["table"][0]["estimate"] <= 2 and content["table"][1]["estimate"] < 2
    unknown = call("dimension.py", "--dataset", "curve.xls", *small)
    assert unknown.status == 2 and "expected a file of numbers" in unknown.err


def test_an_estimator_that_fails_has_no_estimate():
    few = Points(torch.rand(4, 3), torch.rand(2, 3), "four rows")
    found = intrinsic.run_once(few, "danco", {}, 0)
    assert found["estimate"] is None
    line = dimension.summary("danco", [found])
    assert line["estimate"] is None and "too few rows" in dimension.table([line])


def test_a_run_without_an_estimate_is_finished(tmp_path, call):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).standard_normal((12, 3)))
    flags = ("--dataset", tmp_path / "few.npy", "--methods", "danco", "--seeds", 1, "--save-path", tmp_path)
    for _ in range(2):
        result = call("dimension.py", *flags)
        assert result.status == 0 and "no estimate" in result.out, result.err
    assert len((tmp_path / "few-npy/dimension/runs.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "few-npy/dimension/dimension.png").exists()  # nothing to draw


def test_the_table_of_the_docs_is_that_of_its_file():
    results = json.loads((ROOT / "docs/data/dimension.json").read_text())["results"]
    lines = [line.split(" | ") for line in (ROOT / "docs/dimension.md").read_text().splitlines()]
    shown = {cells[0].strip("| "): cells[4:] for cells in lines if cells[0].strip("| ") in results}
    assert shown.keys() == results.keys() and len(shown) >= 10
    for name, cells in shown.items():
        for method, cell in zip(dimension.METHODS, cells, strict=True):
            found = [run["estimate"] for run in results[name]["runs"] if run["method"] == method]
            numbers = [float(word.strip("()| ")) for word in cell.split(",")]
            expected = [np.mean(found)] if method in intrinsic.ESTIMATORS else found
            assert len(numbers) == 1 or len(numbers) == len(expected)
            assert np.abs(np.array(numbers) - expected).max() < 0.06, (name, method)
