"""Every script with --gpu on a device that refuses the CPU's tensors (``pretend.py``): no GPU is needed for that."""

import copy
import itertools

import pretend
import pytest
import test_loop
import torch

import models
from data.base import Dataset
from experiments import ema
from experiments import fid_features as features
from utils import checkpoint, cuda_graph, devices, loop

DIGITS = ("--dataset", "digits")


def resident(dataset, place):
    moved = copy.copy(dataset)
    moved.store = dataset.store.to(place)
    return moved


@pytest.fixture
def gpu(call, monkeypatch):
    """Calls a script with --gpu, which is the pretended device; gives the number of values that the host waited for."""
    if not pretend.SUPPORTED:
        pytest.skip("this PyTorch has no backends written in Python")
    place = torch.device(pretend.NAME, 0)
    autocast, load = torch.autocast, torch.load
    monkeypatch.setattr(devices, "choose", lambda asked: place if asked else torch.device("cpu"))
    monkeypatch.setattr(
        Dataset,
        "to",
        lambda self, to: resident(self, to) if to == place else self,
    )
    # What cannot be pretended: autocast and the files of tensors know devices by their names, and the products with a
    # Jacobian need tensors with memory of their own.
    pretend.stand_in(monkeypatch)
    monkeypatch.setattr(torch, "autocast", lambda kind, **how: autocast("cpu" if kind == pretend.NAME else kind, **how))
    monkeypatch.setattr(torch, "load", lambda *args, **how: load(*args, **how | {"map_location": "cpu"}))
    monkeypatch.setattr(torch.func, "jvp", lambda function, z, v: (None, function(z[0] + v[0]) - function(z[0])))

    def run(script, *arguments) -> int:
        before = pretend.module.reads
        result = call(script, "--gpu", *arguments)
        assert result.status == 0, result.err
        return pretend.module.reads - before

    return run


@pytest.mark.skipif(not pretend.SUPPORTED, reason="this PyTorch has no backends written in Python")
def test_the_device_is_strict():
    x = torch.arange(6.0, device=pretend.NAME).view(2, 3)
    assert x.device.type == pretend.NAME and (x + 1).device == x.device
    assert torch.equal((x @ x.T).cpu(), torch.tensor([[5.0, 14.0], [14.0, 50.0]]))
    for wrong in (lambda: x + torch.ones(3), lambda: torch.cat([x, torch.ones(2, 3)]), lambda: x.cpu() @ x.T):
        with pytest.raises(RuntimeError, match="on the CPU"):
            wrong()
    for array in (x.numpy, lambda: x.detach().numpy()):
        with pytest.raises(TypeError, match="copied to the CPU"):
            array()
    for reads in (lambda: float(x.sum()), x.tolist, x.cpu, lambda: x[x > 2], lambda: torch.ones(2).to(x.device)):
        before = pretend.module.reads
        reads()
        assert pretend.module.reads == before + 1


@pytest.mark.parametrize("name", models.MODELS)
def test_training_gives_the_weights_of_the_cpu(name, gpu, call, tmp_path):
    size = () if models.MODELS[name].default_latent_dim(models.options(name)) else ("-n", 4)
    flags = (*DIGITS, "--model", name, "--arch", "mlp", *size, "--epochs", 1, "--batch-size", 600)
    gpu("train.py", *flags, "--checkpoint", tmp_path / "device")
    assert call("train.py", *flags, "--checkpoint", tmp_path / "cpu").status == 0
    there, here = (checkpoint.load(tmp_path / place / "digits" / name) for place in ("device", "cpu"))
    assert there["metrics"][0]["train_loss"] == pytest.approx(here["metrics"][0]["train_loss"], rel=1e-5)
    for key, value in here["weights"].items():
        torch.testing.assert_close(there["weights"][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", test_loop.CASES)
def test_a_replayed_step_is_the_eager_one(name, gpu):
    """To the last bit: nothing that changes from step to step is left to Python."""
    runs = []
    for eager in (True, False):
        run = test_loop.Training(name, eager, pretend.NAME)
        for number in (1, 2, 3):
            run.epoch(number)
        runs.append([tensor.cpu() for tensor in run.tensors()])
    assert run.step.replay is not None and not run.step.eager
    for eager, replayed in zip(*runs, strict=True):
        assert torch.equal(eager, replayed)


def test_a_replayed_step_takes_the_rate_of_its_epoch(gpu, call, tmp_path):
    flags = (*DIGITS, "--model", "wae-gan", "--arch", "mlp", "-n", 4, "--epochs", 3, "--batch-size", 300)
    flags = (*flags, "--lr", 1e-2, "--lr-schedule", "smooth")
    gpu("train.py", *flags, "--checkpoint", tmp_path / "device")
    assert call("train.py", *flags, "--checkpoint", tmp_path / "cpu").status == 0
    there, here = (checkpoint.load(tmp_path / place / "digits" / "wae-gan") for place in ("device", "cpu"))
    assert [row["lr"] for row in there["metrics"]] == [row["lr"] for row in here["metrics"]]
    for key, value in here["weights"].items():
        torch.testing.assert_close(there["weights"][key], value, rtol=1e-3, atol=2e-4)


def test_an_average_follows_replayed_steps_without_waiting(gpu):
    run = test_loop.Training("irmae", False, pretend.NAME)
    average = ema.Average(run.model, 0.75)
    expected = [p.detach().cpu().double() for p in run.model.parameters()]
    for number in (1, 2):
        for _ in loop.epoch(run.step, 8, 0, number):
            before = pretend.module.reads
            average.step()
            assert pretend.module.reads == before
            weights = (p.detach().cpu().double() for p in run.model.parameters())
            expected = [0.75 * mean + 0.25 * p for mean, p in zip(expected, weights, strict=True)]
    assert run.step.replay is not None
    for found, wanted in zip(average.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.cpu().double(), wanted, rtol=0, atol=1e-6)


def test_a_graph_does_not_count_in_python(gpu):
    """The pretended graph is as strict as a real one."""
    steps, x = itertools.count(), torch.zeros(2, device=pretend.NAME)
    replay = cuda_graph.cuda_graph(lambda: x.add_(next(steps)))
    before = x.tolist()
    captured = cuda_graph.WARM_UP + 1  # what the count stood at
    replay(), replay()
    assert x.tolist() == [value + 2 * captured for value in before]


def test_what_waits_for_the_host_is_not_captured(gpu, capsys):
    run = test_loop.Training("vae", False, pretend.NAME)
    run.model = test_loop.Waiting().to(pretend.NAME)
    run.optimizer = loop.make_optimizer(run.model, 1e-2)
    run.step = loop.Step(run.model, run.optimizer, run.dataset)
    run.epoch(1)
    assert run.step.eager and capsys.readouterr().err.count("not captured as a CUDA graph") == 1
    assert run.model.weight[0].item() < 1


def test_training_waits_for_the_device_as_often_for_many_steps_as_for_few(gpu, tmp_path):
    flags = (*DIGITS, "--arch", "mlp", "-l", 2, "-n", 4, "--epochs", 1, "--checkpoint", tmp_path)
    few = gpu("train.py", *flags, "--batch-size", 600, "--model-name", "few")
    many = gpu("train.py", *flags, "--batch-size", 60, "--model-name", "many")
    assert few == many


COMMANDS = [
    ("train.py", "--arch", "gdn", "-l", 1, "-n", 4, "--epochs", 1, "--train-size", 16, "--valid-size", 8),
    ("train.py", "--preset", "infocat-mnist-clusters", "--epochs", 1, "--train-size", 64),
    (
        "train.py",
        "--model",
        "radogaga",
        "--prior",
        "gmm",
        "--distortion",
        "ssim",
        "-n",
        4,
        "--arch",
        "mlp",
        "--epochs",
        1,
    ),
    ("classification.py", "--supervised", "--train-size", 50, "--epochs", 1),
]
OF_A_CHECKPOINT = [
    *(("generation.py", "--task", task, "-X", 3, "-Y", 3) for task in ("reconstruction", "interpolation", "mvg")),
    *(("generation.py", "--task", task, "-X", 3, "-Y", 3) for task in ("gmm", "pca", "traverse", "tsne")),
    ("singular.py",),
    ("classification.py", "--train-size", 50, "--epochs", 1),
    ("isometry.py", "--num-pairs", 20, "--metric-codes", 1),
    ("evaluate.py", "--features", "classifier", "--fid-samples", 50),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command[:3])))
def test_scripts(command, gpu, tmp_path):
    script, *flags = command
    where = ("--checkpoint", tmp_path) if script == "train.py" else ("--save-path", tmp_path)
    gpu(script, *DIGITS, *flags, *where)


@pytest.mark.parametrize("command", OF_A_CHECKPOINT, ids=lambda command: " ".join(map(str, command[:3])))
def test_scripts_on_a_checkpoint(command, gpu, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MIN_STEPS", 4)  # of the classifier behind FID_cls
    script, *flags = command
    gpu(script, *DIGITS, "--model-name", "irmae", *flags, "--checkpoint", trained, "--save-path", tmp_path)


def test_priors(gpu, trained, tmp_path):
    where = ("--checkpoint", trained, "--save-path", tmp_path)
    gpu("generation.py", *DIGITS, "--model-name", "vae", "--task", "prior", "-X", 3, "-Y", 3, *where)


def test_tables_and_toy_data(gpu, tmp_path):
    gpu("density.py", "--size", 300, "--runs", 1, "--epochs", 1, "--save-path", tmp_path)
    numbers = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    lines = [",".join([*(f"{value:.4f}" for value in row), str(int(k % 10 == 0))]) for k, row in enumerate(numbers)]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,d,e,label", *lines]) + "\n")
    budget = ("--runs", 1, "--epochs", 1, "--jobs", 1)
    gpu("anomaly.py", "--dataset", tmp_path / "own.csv", *budget, "--save-path", tmp_path)
