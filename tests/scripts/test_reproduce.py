"""reproduce.py: real cells and, with quick stand-ins for the scripts, kills, failures, commands and the report."""

import json
import lzma
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, assert_refused, run_script
from PIL import Image

import data
import models
import reproduce
from experiments import fid_features as features
from experiments import plan, runner
from experiments.plan import make_plan
from experiments.results import read_cell
from experiments.table_types import Cell, Row, Table
from experiments.tables import TABLES
from experiments.trained import load

# Stand-ins that take seconds off, not behaviour: a training of several saved epochs that can be resumed, and an
# evaluation of it. Without --resume they refuse to train over what is there, like nothing in the repository may need.
STAND_IN_TRAIN = """
import json, os, pathlib, sys, time
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1]
here = pathlib.Path(__file__).parent
path = pathlib.Path(value("--checkpoint")) / value("--dataset") / value("--model-name")
path.parent.mkdir(parents=True, exist_ok=True)
layers = int(value("--linear-layers")) if "--linear-layers" in words else 0
failing = here / "failing"
if failing.exists() and failing.read_text() == str(layers):
    sys.exit("train.py: error: out of memory (tried to allocate 9 GiB): try a smaller --batch-size")
if path.exists() and "--resume" not in words:
    sys.exit("train.py: error: would train again")
state = json.loads(path.read_text()) if path.exists() else {"epoch": 0, "rank": 100.0}
while state["epoch"] < int(value("--epochs")):
    time.sleep(0.05)
    state = {"epoch": state["epoch"] + 1, "rank": state["rank"] * (0.9 - 0.05 * layers) + int(value("--seed"))}
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(state))
    with open(here / "epochs.log", "a") as log:
        log.write(f"{path.name} {state['epoch']}\\n")
    os.replace(temporary, path)
"""
STAND_IN_EVALUATE = """
import json, pathlib, sys, time
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1]
state = json.loads((pathlib.Path(value("--checkpoint")) / value("--dataset") / value("--model-name")).read_text())
time.sleep(0.05)
row = {"rank": state["rank"], "fid_cls_mvg": abs(state["rank"] - 40), "mse": 0.1, "epochs": state["epoch"],
       "features": ["classifier"], "classifier_accuracy": 0.99, "isometry": None}
path = pathlib.Path(value("--save-path")) / "digits" / "evaluate" / "x.json"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps([row]))
"""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder of stand-ins that reproduce.py calls instead of the scripts."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(STAND_IN_TRAIN)
    (folder / "evaluate.py").write_text(STAND_IN_EVALUATE)
    monkeypatch.setattr(runner, "ROOT", folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def flags_of(folder, *more):
    return ("depth", "--dataset", "digits", "--epochs", 4, "--checkpoint", folder / "checkpoint", "--save-path",
            folder / "results", *more)  # fmt: skip


def tables_of(folder):
    """The Markdown and the numbers, without the date and the places of files."""
    folder = folder / "results" / "reproduce"
    rows = json.loads((folder / "depth.json").read_text())["rows"]
    return (folder / "depth.md").read_text(), [(row["label"], row["values"], row["failures"]) for row in rows]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("classification", "--dataset", "celeba"), "celeba has no labels"),
        (("classification", "--dataset", "digits"), "1,437 labelled training images, 10,000 are used"),
        (("depth", "--fid-samples", 1), "--fid-samples: expected a whole number from 2"),
        (("depth", "--html", "."), "--html ."),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_trained(scripts, tmp_path, call, words, found):
    table, *flags = words
    result = call("reproduce.py", table, *flags_of(tmp_path)[1:], *flags)
    assert_refused(result, found)
    assert not (tmp_path / "checkpoint").exists()


def fill(path, num):
    path.mkdir(parents=True)
    for index in range(num):
        Image.new("L", (20, 20), 8 * index).save(path / f"{index}.png")


def test_a_folder_is_looked_at_before_anything_is_trained(scripts, tmp_path, call):
    """Too few test images, no labels."""
    pictures = tmp_path / "pictures"
    fill(pictures / "train", 12)
    fill(pictures / "test", 1)
    flags = ("--dataset", "folder", "--data-path", pictures, "--image-size", 32, "--features", "none")
    flags += flags_of(tmp_path)[3:]
    assert_refused(call("reproduce.py", "depth", *flags), "1 test image")
    assert_refused(call("reproduce.py", "depth", *flags, "--data-path", tmp_path / "no", "--commands"), "found nothing")
    (pictures / "test" / "more.png").write_bytes((pictures / "train" / "3.png").read_bytes())
    assert_refused(call("reproduce.py", "classification", *flags), "no labels to classify")
    assert not (tmp_path / "checkpoint").exists()


def groups_of(dataset):
    args = reproduce.make_parser().parse_args(["depth", "--dataset", dataset])
    return list(make_plan(args).groups.values())


def test_foreign_files_among_the_checkpoints_stop_nothing(tmp_path):
    folder = tmp_path / "checkpoint" / "digits"
    folder.mkdir(parents=True)
    torch.save({"format": 1, "training": {}}, folder / "odd")
    torch.save({"format": 1, "model": "x"}, folder / "odder")
    (folder / "notes").write_text("not one")
    assert runner.trained_before(tmp_path / "checkpoint", groups_of("digits")) == {}


def test_a_checkpoint_of_an_earlier_version_is_not_trained_again(tmp_path):
    """The hash is what commit 6257602 looked for."""
    (tmp_path / "digits").mkdir()
    packed = (ROOT / "tests" / "data_files" / "format_1" / "digits" / "irmae.xz").read_bytes()
    (tmp_path / "digits" / "irmae").write_bytes(lzma.decompress(packed))
    (tmp_path / "digits" / "irmae-0123456789").write_bytes(b"PK of a group of another plan: not even read")
    assert runner.trained_before(tmp_path, groups_of("digits")) == {("digits", "f8b30f06dd"): "irmae"}


def test_without_inception_weights_a_table_is_refused_or_made_without_fid(scripts, tmp_path, call, monkeypatch):
    def unreachable(*_):
        raise features.FeaturesUnavailable("the Inception weights cannot be downloaded (no network)")

    monkeypatch.setattr(features, "inception", unreachable)
    flags = flags_of(tmp_path)
    assert_refused(call("reproduce.py", *flags, "--features", "inception"), "no network", "--features none")
    assert call("reproduce.py", *flags, "--features", "inception", "--commands").status == 0  # they may run elsewhere
    result = call("reproduce.py", *flags, "--features", "none")
    assert result.status == 0, result.err
    text = (tmp_path / "results" / "reproduce" / "depth.md").read_text()
    assert "rank falls" in text and "FID" not in text.replace("FID is", "")


def test_a_damaged_result_is_made_again_and_does_not_stop_a_dry_run(scripts, tmp_path, call):
    assert call("reproduce.py", *flags_of(tmp_path)).status == 0
    cells = sorted((tmp_path / "results" / "reproduce" / "cells").iterdir())
    cells[0].write_text(cells[0].read_text()[:20])
    cells[1].write_text("[]")
    for cell, change in zip(cells[2:], ({"metrics": {}}, {"metrics": {"mse": "x"}}), strict=False):
        cell.write_text(json.dumps(json.loads(cell.read_text()) | change))
    result = call("reproduce.py", *flags_of(tmp_path), "--dry-run")
    assert result.status == 0 and "4 cells to do" in result.last_line, result
    assert call("reproduce.py", *flags_of(tmp_path)).status == 0
    assert all(read_cell(cell) for cell in cells)


def main_in_child(words):
    os.setpgrp()  # killed together with its scripts, or without them
    sys.argv = ["reproduce.py", *map(str, words)]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    reproduce.cli.run(reproduce.main)


def start(folder, *more):
    child = multiprocessing.get_context("fork").Process(target=main_in_child, args=(flags_of(folder, *more),))
    child.start()
    return child


def test_killed_ten_times_the_table_is_that_of_an_uninterrupted_run(scripts, tmp_path):
    whole = start(tmp_path / "whole")
    whole.join(60)
    assert whole.exitcode == 0
    (scripts / "epochs.log").unlink()

    rng = random.Random(0)
    kills = 0
    while kills < 10:
        child = start(tmp_path / "killed", "--jobs", 2)
        time.sleep(rng.uniform(0.05, 0.35))
        if not child.is_alive():
            break
        # Every other time only the runner dies, and its scripts live on: the next one must wait for them.
        (os.kill if kills % 2 else os.killpg)(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    last = start(tmp_path / "killed", "--jobs", 2)
    last.join(60)
    assert last.exitcode == 0 and kills >= 3
    assert tables_of(tmp_path / "killed") == tables_of(tmp_path / "whole")
    epochs = (scripts / "epochs.log").read_text().splitlines()
    names = {line.split()[0] for line in epochs}
    assert len(names) == 5 and {line for line in epochs if line.endswith(" 4")} == {f"{name} 4" for name in names}
    assert len(epochs) - len(set(epochs)) <= 10  # an epoch is repeated only where a kill came between log and save


def test_a_polite_signal_ends_the_scripts_too(scripts, tmp_path):
    child = start(tmp_path, "--epochs", 2000)
    log = scripts / "epochs.log"
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGTERM)
    child.join(20)
    assert child.exitcode == 128 + signal.SIGTERM
    size = log.stat().st_size
    time.sleep(0.3)
    assert log.stat().st_size == size


def test_a_failed_cell_is_shown_and_the_others_are_finished(scripts, tmp_path, call):
    (scripts / "failing").write_text("4")
    page = tmp_path / "report.html"
    result = call("reproduce.py", *flags_of(tmp_path, "--html", page))
    assert result.status == 1
    assert "FAILED" in result.last_line
    text, rows = tables_of(tmp_path)
    rows = {label: (values, failures) for label, values, failures in rows}
    assert "out of memory" in rows["l = 4"][1][0] and not rows["l = 4"][0]
    assert all(values["rank"] and not failures for label, (values, failures) in rows.items() if label != "l = 4")
    line = next(line for line in text.splitlines() if line.startswith("| l = 4"))
    assert "failed: train.py: error: out of memory" in line
    assert "cannot be checked" in text
    assert 'class="failed"' in page.read_text()
    # Once what was wrong is mended, the same command finishes the table and repeats nothing.
    (scripts / "failing").unlink()
    before = (scripts / "epochs.log").read_text().splitlines()
    result = call("reproduce.py", *flags_of(tmp_path))
    assert result.status == 0, result.err
    assert len((scripts / "epochs.log").read_text().splitlines()) == len(before) + 4


def test_seeds_give_mean_and_standard_deviation(scripts, tmp_path, call):
    result = call("reproduce.py", *flags_of(tmp_path, "--seeds", 3, "--jobs", 3))
    assert result.status == 0, result.err
    text, rows = tables_of(tmp_path)
    for label, values, _ in rows:
        ranks = values["rank"]
        assert len(ranks) == 3 and len(set(ranks)) == 3
        line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
        assert f"{statistics.fmean(ranks):.1f} ± {statistics.stdev(ranks):.1f}" in line
    assert "Epochs of training: 4" in text and "Seeds: 0, 1, 2" in text
    assert "FID_cls" in text and "test accuracy 0.9900" in text


def test_dry_run_starts_nothing(scripts, tmp_path, call):
    result = call("reproduce.py", *flags_of(tmp_path, "--dry-run"))
    assert result.status == 0, result.err
    assert "5 groups, 5 cells to do" in result.last_line and re.search(r"training \d", result.last_line)
    assert not (scripts / "epochs.log").exists() and not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", [*models.MODELS])
def test_an_epoch_of_every_model_can_be_timed(name):
    config = plan.run_of({"model": name, "dataset": "digits", "arch": "mlp", "batch_size": 4})
    assert 0 < reproduce.epoch_seconds(config, gpu=False) < 3600


def test_commands_need_none_of_the_others_and_the_same_call_without_them_collects(scripts, tmp_path, call):
    flags = flags_of(tmp_path, "--seeds", 2)
    lines = call("reproduce.py", *flags, "--commands").out.splitlines()
    assert len(lines) == 10 and not (scripts / "epochs.log").exists()
    words = [shlex.split(line)[2:] for line in lines]
    result = call("reproduce.py", *words[7])
    assert result.status == 0 and "1 of 1 cells done" in result.last_line, result
    first = (scripts / "epochs.log").read_text()
    assert {line.split()[0] for line in first.splitlines()} == {words[7][words[7].index("--group") + 1]}
    assert not (tmp_path / "results" / "reproduce" / "depth.md").exists()
    assert call("reproduce.py", *words[7]).status == 0  # again: nothing is left to do
    assert (scripts / "epochs.log").read_text() == first
    assert call("reproduce.py", *flags, "--commands").out.splitlines() == lines[:7] + lines[8:]

    (scripts / "failing").write_text("4")
    statuses = [call("reproduce.py", *each).status for each in words]
    assert statuses == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]  # l = 4 with both seeds; the order is rows, then seeds
    (scripts / "failing").unlink()
    before = (scripts / "epochs.log").read_text().splitlines()
    result = call("reproduce.py", *flags)
    assert result.status == 0, result.err
    assert len((scripts / "epochs.log").read_text().splitlines()) == len(before) + 2 * 4  # what failed, and no other
    assert_refused(call("reproduce.py", *flags, "--group", "ae-0"), "--group ae-0: not in this plan")


def test_a_report_from_cells_alone_runs_nothing(scripts, tmp_path, call):
    assert call("reproduce.py", *flags_of(tmp_path)).status == 0
    kept = tmp_path / "kept" / "depth"
    shutil.copytree(tmp_path / "results" / "reproduce" / "cells", kept)
    (scripts / "epochs.log").unlink()
    elsewhere = flags_of(tmp_path / "elsewhere", "--from", tmp_path / "kept", "--html", tmp_path / "page.html")
    result = call("reproduce.py", *elsewhere)
    assert result.status == 0, result.err
    assert tables_of(tmp_path / "elsewhere") == tables_of(tmp_path) and (tmp_path / "page.html").exists()
    assert not (scripts / "epochs.log").exists() and not (tmp_path / "elsewhere" / "checkpoint").exists()
    assert {file.suffix for file in (tmp_path / "elsewhere" / "results" / "reproduce").iterdir()} == {
        ".md", ".png", ".json"}  # fmt: skip
    next(kept.iterdir()).unlink()
    result = call("reproduce.py", *elsewhere)
    assert result.status == 1 and "| not run" in result.out and "1 cells missing: copy the others" in result.last_line
    assert (
        f"python reproduce.py depth --epochs 4 --seeds 1 --dataset digits --checkpoint {tmp_path}" in result.last_line
    )
    result = call("reproduce.py", *elsewhere, "--seeds", 2)
    assert "(1 of 2 seeds not run)" in result.out and "failed" not in result.out
    assert_refused(
        call("reproduce.py", *elsewhere, "--epochs", 5), f"--from {tmp_path / 'kept'}", "none of its 4 cells"
    )


def test_a_printed_command_runs_in_a_shell_and_its_cell_names_where_it_was_made(tmp_path, call):
    flags = ("density", "--epochs", 1, "--save-path", tmp_path, "--checkpoint", tmp_path / "checkpoint")
    *_, line = run_script("reproduce.py", *flags, "--commands").out.splitlines()
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "reproduce" / "cells").iterdir()
    made = read_cell(file)["provenance"]
    assert made["device"] == "cpu" and made["threads"] == 1 and made["seed"] == 0 and made["precision"] == "fp32"
    assert made["torch"] == torch.__version__ and re.fullmatch(r"20\d\d-\d\d-\d\d", made["date"])
    assert made["device_name"] and made["python"] and made["commit"]
    result = call("reproduce.py", *flags, "--from", file.parent)
    assert result.status == 1 and "4 cells missing" in result.last_line
    assert re.search(r"PCA and Gaussian mixture +\| 0\.\d{4} ", result.out)


def test_missing_features_are_a_failure_that_is_tried_again(scripts, tmp_path, call, monkeypatch):
    monkeypatch.setattr(features, "inception", lambda *_: None)  # there before, gone when they are wanted
    result = call("reproduce.py", *flags_of(tmp_path, "--features", "inception"))
    assert result.status == 1
    text, _ = tables_of(tmp_path)
    assert "no inception features; give --inception-weights FILE" in text
    assert not list((tmp_path / "results" / "reproduce" / "cells").glob("*.json"))


def test_a_real_cell_from_a_checkpoint_that_was_there(trained, tmp_path, call, monkeypatch):
    """The table's row asks for what ``train.py`` made before: it is evaluated, not trained again."""
    shutil.copytree(trained / "digits", tmp_path / "trained" / "digits")
    trained = tmp_path / "trained"
    flags = {"model": "ae", "lr": 1e-3, "latent_dim": 16, "train_size": 480}
    other = flags | {"latent_dim": 8, "arch": "mlp"}
    rows = (Row("AE", flags), Row("other n", other, (Cell("isometry.py", {"num_pairs": 50}),)))
    columns = ("mse", "rank", "fid_mvg", "isometry", "isometry_ssim_released", "metric_variation")
    table = Table("Two rows", "digits", rows, columns, ("mse",))
    monkeypatch.setitem(TABLES, "one", table)
    monkeypatch.setattr(features, "MIN_STEPS", 24)
    features.classifier(trained / "features", load(trained / "digits" / "ae"))
    names = {path.name for path in (trained / "digits").iterdir() if path.is_file()}
    flags = ("one", "--epochs", 2, "--checkpoint", trained, "--save-path", tmp_path, "--fid-samples", 200)
    result = call("reproduce.py", *flags)
    assert result.status == 0, result.err
    new = {path.name for path in (trained / "digits").iterdir() if path.is_file()} - names
    assert sorted(os.path.splitext(name)[1] for name in new) == ["", ".csv", ".yaml"]  # only the other n was trained
    rows = json.loads((tmp_path / "reproduce" / "one.json").read_text())["rows"]
    for name, row in (("ae", rows[0]), (*new - {each for each in new if "." in each}, rows[1])):
        assert row["cells"][0]["trained_by"] == load(trained / "digits" / name).trained_by != []
    assert "(trainings)" in result.out
    assert "--model-name ae --" in rows[0]["cells"][0]["command"] and rows[0]["values"]["fid_cls_mvg"][0] > 0
    assert rows[1]["cells"][0]["training"]["model"]["config"]["latent_dim"] == 8
    assert {"mse", "isometry", "isometry_ssim_released", "metric_variation"} <= set(rows[1]["values"])
    assert (tmp_path / "reproduce" / "one.png").stat().st_size > 5000


def test_factors_of_shapes_are_columns(tmp_path, call, monkeypatch):
    row = Row("AE", {"model": "ae", "init": "kaiming", "train_size": 64, "valid_size": 32},
              (Cell("singular.py", {"test_size": 300}),))  # fmt: skip
    monkeypatch.setitem(TABLES, "shape", replace(TABLES["shape"], rows=(row,)))
    assert {*data.load("shape", "test", tmp_path, 2).factors(), "circle or square, accuracy"} < {
        *TABLES["shape"].columns
    }
    result = call("reproduce.py", "shape", "--epochs", 1, "--checkpoint", tmp_path, "--save-path", tmp_path)
    assert result.status == 0, result.err
    (written,) = tmp_path.rglob("singular/*.json")
    factors = json.loads(written.read_text())[0]["factors"]
    header, _, cells = (tmp_path / "reproduce" / "shape.md").read_text().strip().splitlines()[-3:]
    shown = dict(zip(header.split(" | "), cells.split(" | "), strict=True))
    assert float(shown["R² of red - green"]) == pytest.approx(factors["red - green"], abs=0.006)
    assert float(shown["R² of x"]) == pytest.approx(factors["x"], abs=0.006)


def test_an_unknown_table_is_refused(call):
    result = call("reproduce.py", "nothing")
    assert result.status == 2 and "nothing" in result.err and "depth" in result.err
