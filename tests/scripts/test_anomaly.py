"""anomaly.py: its protocol and measures, and the script itself, run, killed and run again."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, precision_recall_fscore_support, roc_auc_score

import anomaly
from data import tabular
from data.table import Table, halves
from experiments import detectors
from experiments.anomaly_presets import PRESETS
from utils import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own_file(tmp_path):
    """300 rows of two correlated numbers, a third and a word; the 30 anomalies break the correlation."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=300)
    strange = np.arange(300) % 10 == 0
    second = np.where(strange, -first + 2 * np.sign(first), first) + 0.1 * rng.normal(size=300)
    rows = zip(first, second, rng.normal(size=300), rng.choice(["a", "b"], 300), strange.astype(int), strict=True)
    path = tmp_path / "own.csv"
    path.write_text("one,two,three,word,label\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the script in this process: its exit status and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["anomaly.py", *map(str, arguments)])
        try:
            cli.run(anomaly.main)
            status = 0
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


def test_measures_are_scikit_learns():
    rng = np.random.default_rng(0)
    strange = rng.random(500) < 0.2
    scores = rng.random(500) + 0.5 * strange
    measured = anomaly.measure(scores, strange, 0.15, seed=0)
    flagged = scores >= np.sort(scores)[-75]  # 15 % of 500
    precision, recall, f1, _ = precision_recall_fscore_support(strange, flagged, average="binary")
    assert measured["precision"] == pytest.approx(precision)
    assert measured["recall"] == pytest.approx(recall)
    assert measured["f1"] == pytest.approx(f1)


def test_perfect_inverted_and_tied_scores():
    strange = np.arange(100) < 10
    assert set(anomaly.measure(strange.astype(float), strange, 0.1, 0).values()) == {1.0}
    assert anomaly.measure(-strange.astype(float), strange, 0.1, 0)["f1"] == 0
    # All scores equal: ten rows drawn at random are flagged, not all of them and not the first ten.
    tied = [anomaly.measure(np.zeros(100), strange, 0.1, seed)["f1"] for seed in range(40)]
    assert np.mean(tied) == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("model", list(anomaly.TITLES))
@pytest.mark.parametrize("dataset", list(PRESETS))
def test_every_preset_trains_and_scores(dataset, model):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(400, 6))
    strange = np.arange(400) % 5 == 0
    numbers[strange] += 6 * rng.normal(size=(80, 6))
    table = Table(pd.DataFrame(numbers), strange)
    settings = dict(PRESETS[dataset][model])
    settings |= {key: value for key, value in {"epochs": 3, "batch_size": 50}.items() if key in settings}
    row = anomaly.run_once(table, model, settings, 0, False)
    assert row["roc_auc"] > 0.5 or "lambda1" in settings  # three epochs are few for a network
    assert 0 <= row["f1"] <= 1


def test_training_sees_normal_rows_of_the_training_half_only(monkeypatch):
    """The test half, and the anomalies of the other, change nothing but the scaling of the training data."""
    seen = {}

    class Spy(torch.nn.Identity):
        def score_samples(self, x):
            seen["test"] = x
            return np.arange(float(len(x)))

    monkeypatch.setattr(detectors, "estimator", lambda rows, *_: seen.update(train=rows) or Spy())
    monkeypatch.setattr(detectors.seeded_runs, "train", lambda run, rows, *_: seen.update(train=rows) or Spy())
    table = Table(pd.DataFrame({"1": np.arange(40.0)}), np.arange(40) % 4 == 0)
    for settings in ({"epochs": 1}, {}):
        anomaly.run_once(table, "model", settings, 7, False)
        train, test = halves(table, 7)
        span = np.ptp(train)
        expected = (train[train % 4 != 0] - train.min()) / span
        np.testing.assert_allclose(seen["train"][:, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(seen["test"][:, 0], (test - train.min()) / span, rtol=1e-6)


def test_a_trained_radogaga_is_far_above_chance(own_file):
    table = tabular.load(str(own_file))
    settings = dict(PRESETS["default"]["radogaga-d"]) | {"epochs": 100, "residual": False}
    assert anomaly.run_once(table, "radogaga-d", settings, 0, False)["roc_auc"] > 0.75


def test_both_mixtures_score_the_same_codes(own_file):
    table = tabular.load(str(own_file))
    for model in ("radogaga-d", "dagmm"):
        settings = PRESETS["default"][model] | {"epochs": 20, "components": 4}
        rows = [anomaly.run_once(table, model, settings | {"mixture": how}, 0, False) for how in ("network", "em")]
        assert rows[0]["roc_auc"] != rows[1]["roc_auc"]


def test_same_seed_same_result(own_file):
    table = tabular.load(str(own_file))
    for model in ("radogaga-log", "dagmm", "isolation-forest"):
        settings = dict(PRESETS["default"][model])
        settings |= {"epochs": 2} if "epochs" in settings else {}
        one, other = (anomaly.run_once(table, model, settings, 5, False) for _ in range(2))
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def read_rows(folder):
    return [json.loads(line) for line in (folder / "own-csv" / "anomaly" / "runs.jsonl").read_text().splitlines()]


def comparable(rows):
    return sorted(
        str({key: value for key, value in row.items() if key not in ("seconds", "provenance")}) for row in rows
    )


def test_the_script_from_file_to_table_and_again(own_file, tmp_path, run):
    models = ["--models", "radogaga-log", "isolation-forest"]
    arguments = ["--dataset", own_file, "--runs", 2, "--epochs", 2, "--jobs", 1, "--save-path", tmp_path, *models]
    status, printed, _ = run(*arguments)
    assert status == 0
    assert "label: label; 4 features: one, two, three, word\n" in printed
    rows = read_rows(tmp_path)
    assert {(row["model"], row["seed"]) for row in rows} == {(model, seed) for model in models[1:] for seed in (0, 1)}
    folder = tmp_path / "own-csv" / "anomaly"
    summary = json.loads((folder / "anomaly.json").read_text())["summary"]
    forest = [row["f1"] for row in rows if row["model"] == "isolation-forest"]
    entry = next(entry for entry in summary if entry["model"] == "isolation-forest")
    assert entry["f1"] == pytest.approx(np.mean(forest))
    assert entry["f1_std"] == pytest.approx(np.std(forest, ddof=1))
    assert f"{np.mean(forest):.4f} ± {np.std(forest, ddof=1):.4f}" in (folder / "anomaly.md").read_text()
    assert "best F1" in printed.splitlines()[-1]

    # As if killed while it wrote its last row: only what was lost is done again, to the same digits.
    lines = (folder / "runs.jsonl").read_text().splitlines(keepends=True)
    (folder / "runs.jsonl").write_text("".join(lines[:-1]) + lines[-1][:40])
    status, printed, _ = run(*arguments)
    assert status == 0
    assert "4 runs, 1 to do" in printed
    assert comparable(read_rows(tmp_path)) == comparable(rows)

    # Of a single run there is no deviation. A line that another version wrote is no run of these.
    with open(folder / "runs.jsonl", "a") as stream:
        stream.write(json.dumps({"model": models[1], "seed": 0, "f1": 1.0}) + "\n")
    status, printed, _ = run(*arguments, "--runs", 1)
    assert status == 0 and "2 runs, 0 to do" in printed
    assert "±" not in printed and "1 run;" in printed.splitlines()[-1]
    for damage in (b"[1,2]\n", b"null\n", b"\xff\xfe\n"):
        (folder / "runs.jsonl").write_bytes(damage)
        status, _, error = run(*arguments)
        assert status == 2 and "runs.jsonl: damaged" in error and "move it away" in error
    (folder / "runs.jsonl").write_text("".join(lines))

    # Other settings are other runs; the old ones stay in the file.
    _, printed, _ = run(*arguments, "--components", 1)
    assert "4 runs, 2 to do" in printed
    assert len(read_rows(tmp_path)) == 6


def test_with_and_without_the_residual_are_two_experiments(own_file, tmp_path, call):
    """As published by default. What earlier versions finished, without the setting, counts for neither."""
    models = ["radogaga-d", "dagmm", "isolation-forest"]
    budget = ["--runs", "1", "--epochs", "2", "--jobs", "1", "--save-path", str(tmp_path)]
    command = ["anomaly.py", "--dataset", str(own_file), "--models", *models, *budget]
    printed = []
    for flags in ([], ["--no-residual"], ["--residual"]):
        done = call(*command, *flags)
        assert done.status == 0, done.err
        printed.append(done.out)
    assert ["3 to do" in printed[0], "2 to do" in printed[1], "0 to do" in printed[2]] == [True] * 3  # one forest
    rows = read_rows(tmp_path)
    for model in models[:2]:
        with_residual, without = (row for row in rows if row["model"] == model)
        assert (with_residual["settings"].pop("residual"), without["settings"].pop("residual")) == (True, False)
        assert with_residual["settings"] == without["settings"]
        assert with_residual["average_precision"] != without["average_precision"]
    path = tmp_path / "own-csv" / "anomaly" / "runs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # of the option they know nothing now
    assert "2 to do" in call(*command).out


def test_killed_in_the_middle_it_keeps_what_is_finished_and_leaves_no_process(own_file, tmp_path, run):
    arguments = ["--dataset", str(own_file), "--models", "one-class-svm", "--save-path", str(tmp_path)]
    command = [sys.executable, str(ROOT / "anomaly.py"), *arguments, "--runs", "2000", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    path = tmp_path / "own-csv" / "anomaly" / "runs.jsonl"
    try:
        wait_for(lambda: process.poll() is not None or (path.exists() and path.read_text().count("\n") >= 4))
        assert process.poll() is None
    finally:
        process.kill()  # SIGKILL: it cannot clean up
        process.wait()
    wait_for(lambda: not processes_of_session(process.pid))
    rows = [row for row in map(json.loads, path.read_text().split("\n")[:-1]) if row["seed"] < 3]
    _, printed, _ = run(*arguments, "--runs", 3, "--jobs", 1)
    assert f"3 runs, {3 - len(rows)} to do" in printed

    # A process of two computes what a process alone does.
    run("--dataset", own_file, "--models", "one-class-svm", "--save-path", tmp_path / "alone", "--runs", 3, "--jobs", 1)
    assert comparable(row for row in read_rows(tmp_path) if row["seed"] < 3) == comparable(
        read_rows(tmp_path / "alone")
    )


def wait_for(condition, seconds=300):
    """A generous limit: on a machine shared with trainings, starting three processes takes a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_of_session(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def test_a_file_as_the_path_of_the_data_is_the_data(own_file, tmp_path, run):
    arguments = ["--models", "isolation-forest", "--runs", 1, "--jobs", 1, "--save-path", tmp_path]
    status, printed, _ = run("--data-path", own_file, "--ignore", "word", *arguments)
    assert status == 0 and "own-csv: 300 rows" in printed and "left out: word (--ignore)" in printed
    run("--dataset", own_file, "--ignore", "word", *arguments, "--save-path", tmp_path / "again")
    assert comparable(read_rows(tmp_path)) == comparable(read_rows(tmp_path / "again"))


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("1,2,0\n3,nan,1\n", [], "line 2, column 2 is nan"),
        ("1,2,0\n3,4\n", [], "line 2 has 2 values"),
        ("1,2,0\n3,4,0\n", [], "anomaly ratio 0"),
        ("a,label\n1,2\n3,5\n", [], "no labels"),
        ("1,2,0\n3,4,1\n", ["--score", "new.csv"], "--model FILE and --score FILE need each other"),
        ("1,7,0\n3,7,1\n", [], "column 2 is constant (7 in every row)"),
        ("\n".join(f"{i * i % 7},{i * i % 11},{i % 2}" for i in range(12)), ["--components", "7"], "--components 7"),
        ("1,2,0\n3,4,1\n", ["--label", "4"], "--label 4"),
        ("1,2,0\n3,4,1\n", ["--models", "one-class-svm", "--lambda1", "3"], "--lambda1 3.0: none of the models"),
        ("1,2,0\n3,4,1\n", ["--models", "one-class-svm", "--residual"], "--residual True: none of the models"),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(tmp_path, run, text, flags, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    status, _, error = run("--dataset", path, "--save-path", tmp_path, "--runs", 1, "--jobs", 1, *flags)
    assert status == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_areas_below_the_curves_are_the_published_measures():
    rng = np.random.default_rng(0)
    strange = np.arange(40) % 8 == 3
    scores = pd.DataFrame({"score": rng.normal(size=40).round(1) + strange})  # rounded: some are equal
    roc, steps = detectors.curves(scores, strange, {"dagmm": "DAGMM"}).axes
    assert auc(*roc.lines[0].get_data()) == pytest.approx(roc_auc_score(strange, scores))
    recall, precision = steps.lines[0].get_data()
    assert steps.lines[0].get_drawstyle() == "steps-post" and recall[0] == 1 and recall[-1] == 0
    area = -(np.diff(recall) * precision[:-1]).sum()  # a precision holds down to the next recall
    assert area == pytest.approx(average_precision_score(strange, scores))


def test_scores_of_all_rows_are_those_of_the_first_run(own_file, tmp_path, run):
    models = ["radogaga-d", "isolation-forest"]
    flags = ["--runs", 2, "--epochs", 2, "--jobs", 1, "--save-path", tmp_path, "--models", *models]
    assert run("--dataset", own_file, *flags)[0] == 0
    folder = tmp_path / "own-csv" / "anomaly"
    table = pd.read_csv(folder / "scores.csv")
    assert len(table) == 300 and (table["row"] == np.arange(1, 301)).all() and (folder / "curves.png").exists()
    test = table[table["half"] == "test"]
    assert len(test) == 150
    for model in models:
        (row,) = (row for row in read_rows(tmp_path) if (row["model"], row["seed"]) == (model, 0))
        assert roc_auc_score(test["anomaly"], test[f"{model} score"]) == pytest.approx(row["roc_auc"])
        ordered = table.sort_values(f"{model} rank")
        assert (ordered[f"{model} score"].diff().dropna() <= 0).all() and ordered[f"{model} rank"].iloc[0] == 1
        assert ordered[f"{model} columns"].notna().sum() == detectors.EXPLAINED == ordered[f"{model} columns"].count()

    # Without its model a run is made again, and counted once.
    (folder / "radogaga-d.pt").write_bytes(b"damaged")
    status, printed, _ = run("--dataset", own_file, *flags)
    assert status == 0 and "4 runs, 0 to do" in printed and len(read_rows(tmp_path)) == 4
    assert pd.read_csv(folder / "scores.csv").equals(table)


def test_a_table_without_labels_is_scored_and_its_model_scores_new_rows(tmp_path, run):
    """An id, a blank column, words, and a column of gaps that is left out; row 42 breaks the correlation."""
    rng = np.random.default_rng(0)
    first = rng.normal(50, 10, 200)
    second = 2 * first + rng.normal(size=200)
    first[41], second[41] = 90, 20
    words, gaps = rng.choice(["red", "blue"], 200), np.where(np.arange(200) % 50 == 7, "", "3.5")
    rows = [f"P{i},{first[i]},{second[i]},,{words[i]},{gaps[i]}" for i in range(200)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["patient_id,height,weight,notes,colour,gaps", *rows]) + "\n")
    flags = ["--models", "dagmm", "one-class-svm", "--epochs", 5, "--save-path", tmp_path]
    status, _, error = run("--dataset", path, *flags)
    assert status == 2 and "line 9, column gaps: the value is missing" in error
    status, printed, _ = run("--dataset", path, *flags, "--ignore", "gaps", "--jobs", 1)
    assert (
        status == 0 and "column notes left out: it has no values" in printed and "no labels, so no metrics" in printed
    )
    folder = tmp_path / "mine-csv" / "anomaly"
    scores = pd.read_csv(folder / "scores.csv")
    assert scores["patient_id"].tolist() == [f"P{i}" for i in range(200)] and "anomaly" not in scores
    strange = scores.loc[41]
    assert strange["one-class-svm rank"] == 1 and strange["one-class-svm columns"].startswith(("height", "weight"))
    assert json.loads((folder / "anomaly.json").read_text())["summary"] == [] and not (folder / "curves.png").exists()

    # The saved models give the same scores to the same rows, with their columns in another order.
    new = tmp_path / "new.csv"
    lines = [f"{words[i]},{second[i]},{first[i]}" for i in (41, 0, 1)]
    new.write_text("\n".join(["colour,weight,height", *lines]) + "\n")
    for model in ("dagmm", "one-class-svm"):
        status, printed, _ = run("--score", new, "--model", folder / f"{model}.pt", "--save-path", tmp_path)
        assert status == 0 and "strangest rows: 1: " in printed
        found = pd.read_csv(tmp_path / "new-csv" / "score" / f"{model}.csv")
        np.testing.assert_allclose(found["score"], scores[f"{model} score"][[41, 0, 1]], rtol=1e-4, atol=1e-4)
    for header, message in (
        ("colour,weight,size", "missing: height; unknown: size"),
        ("weight,colour,height", "words"),
    ):
        new.write_text("\n".join([header, *lines]) + "\n")
        status, _, error = run("--score", new, "--model", folder / "dagmm.pt", "--save-path", tmp_path)
        assert status == 2 and message in error and len(error.splitlines()) == 1
    damaged = bytearray((folder / "dagmm.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1  # a bit of a weight, say
    (tmp_path / "damaged.pt").write_bytes(damaged)
    for file, reason in ((tmp_path / "damaged.pt", "damaged"), (tmp_path / "none.pt", "No such file")):
        status, _, error = run("--score", new, "--model", file, "--save-path", tmp_path)
        assert status == 2 and "--model" in error and reason in error and "results/<dataset>" in error
    status, _, error = run("--score", new, "--model", new, "--save-path", tmp_path)
    assert status == 2 and "expected a model that anomaly.py saved" in error


def test_help_names_the_data_sets_and_models(run):
    status, printed, _ = run("--help")
    assert status == 0
    assert all(name in printed for name in (*tabular.DATASETS, *anomaly.TITLES))
