"""train.py --config: flags from a file, and a training repeated by the file beside its checkpoint."""

import dataclasses

import pytest
import torch
from conftest import assert_refused

from experiments import run, train_flags
from utils.errors import UserError

SIZES = ("--train-size", 60, "--valid-size", 20, "--epochs", 2)


@pytest.mark.parametrize(
    "flags",
    [
        ("-l", 2, "-n", 6, "--lr", 1e-3, "--seed", 3, "--init-variance", 1e-5),
        ("--model", "radogaga", "--prior", "gmm", "--no-residual", "--arch", "mlp", "--lambda1", 7),
        ("--preset", "infocat-mnist-clusters", "--precision", "fp32", "--batch-size", 20),
    ],
)
def test_the_file_beside_a_checkpoint_repeats_its_training(tmp_path, call, flags):
    """Weights to the last bit, and the same configuration; the earlier run is kept."""
    path = tmp_path / "digits" / "first"
    flags = (*flags, "--dataset", "digits", *SIZES, "--model-name", "first")
    assert call("train.py", *flags, "--checkpoint", tmp_path).status == 0
    before = run.read(path)
    result = call("train.py", "--config", f"{path}.yaml", "--checkpoint", tmp_path)
    assert result.status == 0 and "the earlier" in result.out, result.err
    after = run.read(path)
    assert after.config == before.config
    assert before.weights.keys() == after.weights.keys()
    assert all(torch.equal(before.weights[key], after.weights[key]) for key in before.weights)
    (kept,) = (tmp_path / "digits" / "previous").glob("*.yaml")
    assert kept.read_text() == (tmp_path / "digits" / "first.yaml").read_text()
    assert call("train.py", "--config", kept, "--checkpoint", tmp_path, "--seed", 9, "--epochs", 1).status == 0
    assert run.read(path).config == dataclasses.replace(before.config, seed=9, epochs=1)


def test_of_a_file_of_ones_own(tmp_path, call):
    (tmp_path / "own.csv").write_text("a,b,c,d\n" + "".join(f"{i % 7},{i % 5},{i % 3},{i}\n" for i in range(80)))
    flags = ("--dataset", tmp_path / "own.csv", "-l", 1, "-n", 2, "--epochs", 1, "--ignore", "d", "b")
    result = call("train.py", *flags, "--scale", "max-min", "--checkpoint", tmp_path)
    assert result.status == 0, result.err
    before = run.read(tmp_path / "own-csv" / "irmae").config
    result = call("train.py", "--config", tmp_path / "own-csv" / "irmae.yaml", "--checkpoint", tmp_path)
    assert result.status == 0, result.err
    assert run.read(tmp_path / "own-csv" / "irmae").config == before and before.file["ignore"] == ["d", "b"]


def parsed(path, *words):
    return vars(train_flags.parse(["--config", str(path), *words]))


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "preset: rae-gp-mnist\nlr: 1e-3\nbatch_size: 7\nn: 5\neager: yes\ngpu: false\narch:\nresidual: no\n"
    )
    args = parsed(path, "--batch-size", "9")
    assert (args["lr"], args["batch_size"], args["latent_dim"], args["eager"], args["gpu"]) == (1e-3, 9, 5, True, False)
    assert args["penalty"] == "gp" and args["arch"] == "wae" and args["residual"] is False
    assert args["epochs"] == 100 and parsed(path)["batch_size"] == 7
    path.write_text("seed: 0\n")
    assert parsed(path) | {"config": None} == vars(train_flags.parse([]))
    for text, message in (
        ("# nothing\n", "expected a flag on each line, as lr: 0.001, found none"),
        ("resume: true\n", "unknown flag 'resume'; it is for the command line"),
        ("zzzz: 1\n", "unknown flag 'zzzz'; see train.py --help all"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            parsed(path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("epohcs: 3", ["'epohcs'", "epochs"]),
        ("batchsize: 3", ["'batchsize'", "batch-size"]),
        ("xyzzy: 3", ["'xyzzy'", "--help all"]),
        ("config: a.yaml", ["'config'"]),
        ("resume: true", ["'resume'"]),
        ("no-residual: true", ["'no-residual'", "residual"]),
        ("lr: -1", ["--lr", "above 0", "-1"]),
        ("lr: true", ["--lr", "above 0", "true"]),
        ("lr: [1, 2]", ["lr"]),
        ("epochs: 3.5", ["--epochs", "whole number"]),
        ("model: gan", ["--model", "invalid choice", "gan"]),
        ("vae: 1", ["vae", "true or false", "1"]),
        ("- lr", ["list"]),
        ("lr: {", ["YAML"]),
        ("lr: 0.1\nseed: 1\nlr: 0.2", ["lr stands there more than once"]),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_name(tmp_path, call, text, words):
    (tmp_path / "own.yaml").write_text(text)
    result = call("train.py", "--config", tmp_path / "own.yaml", "--checkpoint", tmp_path)
    assert_refused(result, f"--config {tmp_path / 'own.yaml'}: ", *words)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        parsed(tmp_path / "none.yaml")
