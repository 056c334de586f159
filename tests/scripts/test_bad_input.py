"""What a user gets wrong is one clear line and exit status 2, and nothing is left behind."""

import shutil

import pytest
import torch
from conftest import ROOT, assert_refused
from PIL import Image


@pytest.fixture
def files(tmp_path):
    return ("--dataset", "digits", "--checkpoint", tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--dataset", "mnits"), ["mnits", "fashion-mnist", "digits"]),
        (("--model", "gan"), ["gan", "irmae", "vae"]),
        (("-n", 0), ["-n", "whole number from 1", "0"]),
        (("-n", "many"), ["-n", "many"]),
        (("-l", -1), ["-l"]),
        (("--epochs", 0), ["--epochs"]),
        (("--lr", 0), ["--lr", "above 0"]),
        (("--lr", "nan"), ["--lr"]),
        (("--batch-size", 0), ["--batch-size"]),
        (("--train-size", 5000), ["--train-size 5000", "1437"]),
        (("--valid-size", 5000), ["--valid-size 5000", "360"]),
        (("--epoch", 3), ["--epoch", "did you mean --epochs?"]),
        (("--model_name", "ae", "vae"), ["arguments: vae; --model-name takes no more values"]),
        (("--pz_scale=0",), ["--pz-scale", "above 0"]),  # underscores are dashes
        (("--train_size", 5000), ["--train-size 5000", "1437"]),
        (("--vae", "-l", 8), ["--vae", "-l 8"]),
        (("--model", "ae", "-l", 8), ["-l 8", "ae"]),
        (("--model", "irmae", "-l", 0), ["-l", "0"]),
        (("--beta", 1, "-l", 2), ["--beta", "vae"]),
        (("--init-variance", 2), ["--init-variance", "irmae"]),
        (("--precision", "fp16"), ["fp16", "bf16"]),
        (("--model-name", "../x"), ["--model-name"]),
        (("--model-name", "tensorboard"), ["--model-name", "tensorboard", "folder"]),
        (("--model-name", ".hidden"), ["--model-name", "begins with no dot"]),
        (("--seed", 2**32), ["--seed", "below 4294967296"]),
        (("--model", "radogaga", "--prior", "gmm", "--estimation-dropout", 1), ["--estimation-dropout", "below 1"]),
        (("--image-size", 64), ["--image-size 64", "32"]),
        (("--channels", 3), ["--channels 3"]),
        (("--preset", "wae-mmd-celeba", "--crop", 140), ["--crop 140", "digits"]),
        (("--crop", 178), ["--crop 178", "only for --dataset celeba", "digits"]),
        (("--crop", 150), ["--crop", "150", "148"]),
        (("--squares", "centred"), ["--squares centred", "only for --dataset shape"]),
        (("--model", "rrae", "--target-loss", 0.1), ["--target-loss 0.1 has no effect", "adaptive_rank is False"]),
        (("--model", "radogaga", "--components", 5), ["--components 5 has no effect", "prior is factorized", "gmm"]),
        (("--model", "radogaga", "--estimation-width", 5), ["--estimation-width 5 has no effect", "gmm"]),
        (("--model", "beta-vae", "--joint", "--lambda2", 5), ["--lambda2 5.0 has no effect", "joint is True"]),
        (("--model", "rae", "--penalty", "sn", "--penalty-weight", 1), ["--penalty-weight 1.0", "expected l2 or gp"]),
        (
            ("--model", "rae", "--penalty", "gp", "--l2-layers", "all"),
            ["--l2-layers all", "penalty is gp"],
        ),
    ],
)
def test_train(call, files, tmp_path, flags, words):
    assert_refused(call("train.py", *files, *flags), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--task", "dream"), ["dream", "interpolation", "tsne"]),
        (("--task", "pca", "-d", 17), ["-d 17", "n = 16"]),
        (("--task", "pca", "-d", 1), ["-d 1"]),
        (("--task", "gmm", "-d", 30, "-N", 20), ["-d 30", "20"]),
        (("--task", "mvg", "-N", 1), ["-N 1"]),
        (("--task", "mvg", "-N", 5000), ["-N 5000", "360"]),
        (("--task", "mvg", "-N", 5000, "--fit-to", "train"), ["-N 5000", "1437"]),
        (("--task", "reconstruction", "-X", 30, "-Y", 30), ["900", "360", "-X"]),
        (("--task", "interpolation", "-X", 20, "-N", 30), ["40", "30"]),
        (("--task", "interpolation", "-Y", 1), ["-Y 1"]),
        (("-n", 128), ["-n 128", "n = 16"]),
        (("-l", 8), ["-l 8", "l = 2"]),
        (("--vae",), ["--vae", "irmae"]),
        (("--model-name", "irma"), ["irma", "irmae"]),
        (("--image-size", 64), ["--image-size 64", "32"]),
    ],
)
def test_generation(call, trained, tmp_path, flags, words):
    base = ("--dataset", "digits", "--checkpoint", trained, "--save-path", tmp_path, "--model-name", "irmae")
    assert_refused(call("generation.py", *base, *flags), *words)
    assert not list(tmp_path.iterdir())


def test_no_checkpoint_at_all(call, files, tmp_path):
    for script in ("generation.py", "singular.py", "classification.py"):
        assert_refused(call(script, *files), "no checkpoint", "train.py")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_none(call, files, tmp_path):
    folder = tmp_path / "checkpoint" / "digits"
    folder.mkdir(parents=True)
    (folder / "ae").write_text("hello")
    for script in ("generation.py", "singular.py", "classification.py"):
        assert_refused(call(script, *files), "no checkpoint there")  # a note that lies there is passed over
        assert_refused(call(script, *files, "--model-name", "ae"), "ae", "not a checkpoint")
    assert_refused(call("train.py", *files, "--resume"), "ae", "not a checkpoint")
    assert (folder / "ae").read_text() == "hello"


def test_weights_that_do_not_fit_their_model(call, trained, tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    record = torch.load(trained / "digits" / "ae", weights_only=True)
    record["config"]["latent_dim"] = 99
    torch.save(record, folder / "ae")
    assert_refused(
        call("singular.py", "--dataset", "digits", "--checkpoint", tmp_path),
        "is not that of the ae it names",
        "weights",
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda record: record.clear() or record.update(format=1), ["a checkpoint without weights"]),
        (lambda record: record["config"].update(architecture="resnet"), ["unknown architecture 'resnet'"]),
        (lambda record: record["config"].update(model="gan"), ["unknown model 'gan'"]),
        (
            lambda record: record["weights"]["enc.fc.bias"].fill_(torch.nan),
            ["enc.fc.bias: not finite numbers"],
        ),
        (lambda record: record.update(format=3), ["format 3", "expected 1 or 2"]),
        (lambda record: record.update(config="ae"), ["its config is a str, not a dict"]),
        (lambda record: record["config"].update(latent_dim="16"), ["its latent_dim is a str, not of type int"]),
        (lambda record: record["config"].update(depth=16), ["an unknown depth"]),
        (lambda record: record["config"].pop("dataset"), ["its configuration has no dataset"]),
        (lambda record: record.update(weights=[1]), ["its weights is a list, not a dict"]),
        (lambda record: record.update(format=1), ["a checkpoint without model"]),
        (lambda record: record.update(format=1, model="ae", data={}, training={}), ["its model is a str, not a dict"]),
    ],
)
def test_checkpoints_of_something_else(call, trained, tmp_path, damage, words):
    (tmp_path / "digits").mkdir()
    record = torch.load(trained / "digits" / "ae", weights_only=True)
    damage(record)
    torch.save(record, tmp_path / "digits" / "ae")
    flags = ("--dataset", "digits", "--checkpoint", tmp_path)
    for script in (("singular.py",), ("evaluate.py", "--features", "none"), ("generation.py", "--task", "mvg")):
        assert_refused(call(*script, *flags), *words)


def test_a_checkpoint_without_optimiser_is_evaluated_but_not_resumed(call, trained, tmp_path):
    (tmp_path / "digits").mkdir()
    record = torch.load(trained / "digits" / "ae", weights_only=True)
    del record["optimizer"]
    torch.save(record, tmp_path / "digits" / "ae")
    flags = ("--dataset", "digits", "--checkpoint", tmp_path)
    assert call("singular.py", *flags, "--save-path", tmp_path / "results").status == 0
    result = call("train.py", *flags, "-l", 0, "-n", 16, "--epochs", 3, "--resume")
    assert_refused(result, "a checkpoint without optimizer", "train again")


def test_a_checkpoint_of_nan_is_not_resumed(call, trained, tmp_path):
    (tmp_path / "digits").mkdir()
    record = torch.load(trained / "digits" / "ae", weights_only=True)
    record["weights"]["enc.fc.bias"].fill_(torch.nan)
    torch.save(record, tmp_path / "digits" / "ae")
    result = call("train.py", "--dataset", "digits", "--checkpoint", tmp_path, "--epochs", 3, "--resume")
    assert_refused(result, "weights, enc.fc.bias: not finite numbers")


@pytest.mark.parametrize("dataset", ["cifar10", "celeba", "own-csv"])
def test_a_checkpoint_of_other_data(call, trained, tmp_path, dataset):
    """Named as such, not by the number of channels or pixels, which nobody gave."""
    shutil.copytree(trained / "digits", tmp_path / dataset)
    name = dataset.replace("-csv", ".csv")
    flags = ("--dataset", name, "--checkpoint", tmp_path, "--model-name", "ae", "--save-path", tmp_path / "results")
    assert_refused(call("singular.py", *flags), f"ae was trained on digits, not {dataset}", "--model-name")
    assert_refused(call("train.py", *flags[:-2], "--resume"), f"ae is of digits, not {dataset}", "--model-name")


def test_a_test_set_of_one_image(call, tmp_path):
    """It is not --test-size, or -N, that made it small."""
    for index in range(12):
        path = tmp_path / "pictures" / ("train" if index else "test") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), index * 20).save(path)
    flags = ("--dataset", "folder", "--checkpoint", tmp_path / "checkpoint")
    size = ("--data-path", tmp_path / "pictures", "--image-size", 32, "--channels", 1)
    assert call("train.py", *flags, *size, "-l", 0, "-n", 4, "--arch", "mlp", "--epochs", 1).status == 0
    for script in (("singular.py",), ("evaluate.py", "--features", "none"), ("isometry.py",)):
        result = call(*script, *flags, "--save-path", tmp_path / "results")
        assert_refused(result, "1 test image:", f"{tmp_path / 'pictures'} has no more")
    for task, words in (("reconstruction", "sample has 1: lower -X or -Y"), ("mvg", "the test set has 1")):
        assert_refused(call("generation.py", *flags, "--task", task, "--save-path", tmp_path / "results"), words)
    assert not (tmp_path / "results").exists()


def test_resume_with_other_flags(call, trained, tmp_path):
    shutil.copytree(trained / "digits", tmp_path / "digits")
    base = ("--dataset", "digits", "--checkpoint", tmp_path, "--resume", "--lr", 1e-3, "--epochs", 5)
    for flags, words in (
        (("-n", 16, "-l", 2, "--seed", 1), ["seed is 0", "1"]),
        (("-n", 32, "-l", 2), ["latent_dim is 16", "32"]),
        (("-n", 16, "-l", 4), ["linear_layers is 2", "4"]),
        (("-n", 16, "-l", 2, "--batch-size", 64), ["batch_size is 32", "64"]),
        (("-n", 16, "-l", 0, "--model-name", "vae"), ["model is vae", "ae"]),
        (("--model-name", "irmea"), ["irmea: no such checkpoint", "irmae", "say which model"]),
        (("--preset", "wae-mmd-mnist", "--model-name", "irmae"), ["model is irmae", "wae-mmd"]),
    ):
        assert_refused(call("train.py", *base, *flags), *words)


def test_classification(call, trained, tmp_path):
    base = ("--dataset", "digits", "--checkpoint", trained, "--save-path", tmp_path, "--model-name", "ae")
    assert_refused(call("classification.py", *base, "--train-size", 1438), "--train-size 1438", "1437")
    assert_refused(call("classification.py", *base, "--train-size", 0), "--train-size")
    assert_refused(call("classification.py", *base, "-l", 2), "-l 2", "l = 0")
    assert not list(tmp_path.iterdir())


def test_export_and_isometry(call, tmp_path):
    base = ("--dataset", "digits", "--model-name", "irmae", "--checkpoint", ROOT / "pretrained")
    base += ("--save-path", tmp_path)
    assert_refused(call("export.py", *base, "--posterior", "sample"), "--posterior sample", "gives means")
    words = ("--delta 1e-05", "codes of irmae", "rounding of float32", "or more")
    assert_refused(call("isometry.py", *base, "--delta", 1e-5, "--num-pairs", 20), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags", [("--methods", "irmae", "twonn", "--weight-decay", 0.1), ("--methods", "twonn", "--latent-dim", 3)]
)
def test_dimension(call, tmp_path, flags):
    result = call("dimension.py", "--dataset", "manifold:sphere-5-in-50", "--save-path", tmp_path, *flags)
    assert_refused(result, f"{flags[-2]} {flags[-1]}: has no effect on --methods", "twonn")
    assert not list(tmp_path.iterdir())


def test_data_without_labels(call, tmp_path):
    for index in range(12):
        Image.new("L", (20, 20), index * 20).save(tmp_path / f"{index}.png")
    flags = ("--dataset", "folder", "--image-size", 32, "--data-path", tmp_path, "--supervised")
    assert_refused(call("classification.py", *flags, "--save-path", tmp_path / "results"), "no labels", "sub-folder")


@pytest.mark.parametrize("dataset", ["folder", "celeba"])
def test_a_data_path_that_is_a_file(call, tmp_path, dataset):
    (tmp_path / "file").write_text("x")
    flags = ("--dataset", dataset, "--data-path", tmp_path / "file", "--checkpoint", tmp_path / "checkpoint")
    assert_refused(call("train.py", *flags), "--data-path", "expected a directory", "found a file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written(call, trained, tmp_path):
    (tmp_path / "results").write_text("in the way")
    flags = ("--dataset", "digits", "--checkpoint", trained, "--save-path", tmp_path / "results")
    assert_refused(call("singular.py", *flags), "results")


def test_gpu_without_a_gpu_is_a_warning(call, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags = ("--gpu", "--dataset", "digits", "--checkpoint", trained, "--save-path", tmp_path)
    result = call("singular.py", *flags)
    assert result.status == 0 and "warning: --gpu" in result.err
