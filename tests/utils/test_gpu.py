"""A real CUDA device: captured steps against eager ones, and both against the CPU. ``pytest -m gpu`` runs these alone.

They take little memory and time of the device, and share it with other processes (``-n 6``). Kernels that add in no
fixed order make sums differ in the last bits: what is compared is stated with its tolerance.
"""

import copy
import json
import math

import pytest
import test_loop
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

import models
from data.base import Dataset
from experiments.trained import load
from utils import checkpoint, cuda_graph, devices, loop

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
NOT_CAPTURED = {"lorae", "rrae"}  # a singular value decomposition waits for the host
LR = 1e-4


class Training:
    """A model on 22 images of noise, batches of 8, 8 and 6; the model and the noise from one seed."""

    def __init__(
        self, name: str, options: dict, architecture="mnist", eager=False, precision="fp32", resident=True, **optimizer
    ):
        torch.manual_seed(0)
        vectors = ":" in architecture
        size = (6,) if vectors else (1, *[models.image_size(architecture)] * 2)
        images = torch.randint(256, (22, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        self.dataset = Dataset(images).to(DEVICE) if resident else Dataset(images)
        smallest = 2 if name == "dagmm" or "prior" in options else 4  # the covariance of 6 codes has an inverse
        latent_dim = models.MODELS[name].default_latent_dim(models.options(name) | options) or smallest
        sizes = {"architecture": architecture, "channels": 6 if vectors else 1, "latent_dim": latent_dim}
        self.model = devices.prepare(models.build(name, **sizes, **options), DEVICE)
        self.model.train_size = len(self.dataset)
        self.start = self.weights()
        self.optimizer = loop.make_optimizer(self.model, **{"learning_rate": LR} | optimizer)
        self.step = loop.Step(self.model, self.optimizer, self.dataset, precision, eager)
        self.totals = loop.Totals()

    def epoch(self, number: int, start: int = 0, stop: int = 3) -> None:
        for done, _ in enumerate(loop.epoch(self.step, 8, 0, number, start, self.totals), start + 1):
            if done == stop:
                break

    def train(self) -> "Training":
        self.epoch(1)
        self.epoch(2)
        self.random = random_state()
        return self

    def weights(self) -> dict[str, Tensor]:
        return {key: value.detach().double().cpu() for key, value in self.model.named_parameters()}

    def tensors(self) -> list[Tensor]:
        """Everything that a training changes."""
        adam = [value for entry in self.optimizer.state.values() for value in entry.values()]
        return [*self.model.state_dict().values(), *adam, self.totals.sums, *random_state()]


def random_state() -> list[Tensor]:
    return [torch.get_rng_state(), torch.cuda.get_rng_state()]


def assert_same_bits(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    wrong = [number for number, pair in enumerate(zip(found, expected, strict=True)) if not torch.equal(*pair)]
    assert not wrong, f"{len(wrong)} of {len(found)} tensors differ, the first is number {wrong[0]}"


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Euclidean, over all weights together."""
    return math.sqrt(sum((first[key] - second[key]).square().sum().item() for key in first))


def assert_same_training(run: Training, expected: Training, loss: float = 1e-3, weights: float = 0.2) -> None:
    """Mean losses within a fraction ``loss``, weights within a fraction of the way that they have gone; buffers.

    Adam's first steps have the same length whatever the gradient: where that is nothing but rounding, as of a bias
    before batch normalisation, the direction is chance. Without such weights the distance is far smaller.
    """
    names = expected.totals.means()
    scale = max(abs(value) for value in names.values())
    for name, value in names.items():
        assert run.totals.means()[name] == pytest.approx(value, rel=loss, abs=loss * 1e-2 * scale), name
    way = distance(expected.weights(), expected.start)
    assert distance(run.start, expected.start) == 0 < way
    assert distance(run.weights(), expected.weights()) < weights * way
    buffers = dict(run.model.named_buffers())
    for name, value in expected.model.named_buffers():
        largest = value.double().abs().max().item()
        torch.testing.assert_close(buffers[name], value, rtol=0.1, atol=0.1 * largest, msg=name)


VARIANTS = [
    *((name, {}, "mnist") for name in models.MODELS),
    ("irmae", {"linear_layers": 2}, "mnist"),
    ("rrae", {"rank": 2}, "mnist"),
    ("rrae", {"adaptive_rank": True}, "mnist"),
    ("rae", {"penalty": "gp"}, "mnist"),
    ("rae", {"penalty": "sn"}, "mnist"),
    ("rae", {"penalty": "sn", "sn_layers": "decoder"}, "mnist"),
    ("wae-mmd", {"kernel": "rbf"}, "mnist"),
    ("wae-mmd", {"noise": "add_noise"}, "mnist"),
    ("wae-gan", {"noise": "gaussian"}, "mnist"),
    ("wae-gan", {"prior_offset": True, "pz_scale": 2.0}, "mnist"),
    ("catvae", {"balance_weight": 1.0, "smooth_weight": 1.0}, "mnist"),
    ("beta-vae", {"joint": True}, "mnist"),
    ("beta-vae", {"distortion2": "ssim"}, "mnist"),
    ("radogaga", {"distortion": "ssim"}, "mnist"),
    ("radogaga", {"distortion2": "ssim", "h": "log"}, "mnist"),
    ("radogaga", {"prior": "gmm", "h": "log"}, "mnist"),
    ("radogaga", {"prior": "gmm", "residual": True}, "mnist"),
    ("dagmm", {"residual": False}, "mnist"),
    ("dagmm", {"components": 1}, "mnist"),
    # The other networks.
    *(("irmae", {"linear_layers": 2}, each) for each in ("shape", "wae-32", "gdn-32", "image-mlp-32", "mlp:8-4")),
    ("ae", {}, "wae-pytorch-64"),
    ("wae-mmd", {}, "wae-32"),
    ("wae-gan", {}, "wae-32"),
    ("rae", {"penalty": "gp"}, "wae-32"),
    ("rae", {"penalty": "sn"}, "gdn-32"),
    ("radogaga", {}, "gdn-32"),
    ("infocat-vae", {}, "image-mlp-32"),
    ("dagmm", {}, "mlp:8-4"),
    ("radogaga", {"prior": "gmm"}, "mlp:8-4"),
]


def named(case: tuple) -> str:
    name, options, architecture = case
    return " ".join([name, *(f"{key}={value}" for key, value in options.items()), architecture])


@pytest.mark.parametrize("case", VARIANTS, ids=named)
def test_captured_steps_are_the_eager_ones(case, capsys):
    """The random numbers exactly: a graph draws what the operations would have drawn."""
    name, options, architecture = case
    eager = Training(name, options, architecture, eager=True).train()
    assert eager.step.replay is None and not capsys.readouterr().err
    run = Training(name, options, architecture).train()
    warned = capsys.readouterr().err.count("not captured as a CUDA graph")
    if name in NOT_CAPTURED:
        assert run.step.eager and run.step.replay is None and warned == 1
    else:
        assert run.step.replay is not None and not run.step.eager and not warned
    assert_same_training(run, eager)
    assert_same_bits(run.random, eager.random)


def test_weight_decay_is_part_of_a_replayed_step():
    """Decoupled: it shows in the weights as what each step takes away."""
    eager, run, without = (
        Training("irmae", {}, eager=eager, weight_decay=decay).train()
        for eager, decay in ((True, 100.0), (False, 100.0), (False, 0.0))
    )
    assert run.step.replay is not None
    assert_same_training(run, eager)
    assert distance(run.weights(), eager.weights()) < 0.1 * distance(run.weights(), without.weights())


@pytest.mark.parametrize("name, options", [("irmae", {}), ("wae-gan", {"noise": "gaussian"})])
def test_images_of_main_memory_give_the_same_steps(name, options):
    """Gathered into page-locked buffers and copied to the input of the graph."""
    resident, staged = (Training(name, options, resident=each).train() for each in (True, False))
    assert resident.step.fetch is None and staged.step.fetch is not None and staged.step.fetch.pinned
    assert staged.step.replay is not None
    assert_same_training(staged, resident)
    assert_same_bits(staged.random, resident.random)


OF_PRECISION = [
    ("irmae", {}, "mnist"),
    ("vae", {}, "mnist"),
    ("rae", {"penalty": "gp"}, "mnist"),
    ("rae", {"penalty": "sn"}, "mnist"),
    ("wae-mmd", {}, "wae-32"),
    ("wae-gan", {"prior_offset": True}, "mnist"),
    ("radogaga", {"distortion2": "ssim"}, "mnist"),
    ("beta-tcvae", {}, "mnist"),
    ("infocat-vae", {}, "image-mlp-32"),
    ("ae", {}, "gdn-32"),
    ("rrae", {"rank": 2}, "mnist"),
]


@pytest.mark.parametrize("case", OF_PRECISION, ids=named)
def test_bf16(case):
    """Captured within 0.5 % of eager; within 5 % of float32, and not equal to it."""
    name, options, architecture = case
    eager, captured = (Training(name, options, architecture, each, "bf16").train() for each in (True, False))
    full = Training(name, options, architecture).train()
    assert (captured.step.replay is None) == (name in NOT_CAPTURED)
    losses = [run.totals.means()["loss"] for run in (captured, eager, full)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert losses[0] == pytest.approx(losses[2], rel=0.05) and losses[0] != losses[2]
    assert_same_bits(captured.random, eager.random)


def test_what_cannot_be_captured_runs_eagerly_and_says_so(capsys):
    run = Training("ae", {}, "mlp:4")
    run.model = test_loop.Waiting().to(DEVICE)
    run.optimizer = loop.make_optimizer(run.model, 1e-2)
    run.step = loop.Step(run.model, run.optimizer, run.dataset)
    run.epoch(1)
    assert run.step.eager and capsys.readouterr().err.count("not captured as a CUDA graph") == 1
    assert run.model.weight[0].item() < 1


@pytest.mark.parametrize("name", ["irmae", "wae-gan", "rae", "dagmm"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_warming_up_leaves_no_trace(name, epochs):
    run = Training(name, {})
    for number in range(epochs):
        run.epoch(number)
    before = copy.deepcopy([*run.model.state_dict().values(), *random_state()])
    moments = [value.clone() for entry in run.optimizer.state.values() for value in entry.values()]
    with cuda_graph.preserve_state(run.model, run.optimizer):
        run.epoch(9)
    assert_same_bits([*run.model.state_dict().values(), *random_state()], before)
    found = [value for entry in run.optimizer.state.values() for value in entry.values()]
    if epochs:
        assert_same_bits(found, moments)
    else:
        assert found and not moments and not any(value.any() for value in found)


@pytest.fixture
def same_bits(monkeypatch):
    """Only algorithms of cuDNN that always add in the same order."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("name, options", [("irmae", {}), ("vae", {}), ("wae-gan", {"noise": "gaussian"})])
def test_steps_resumed_in_the_middle_of_an_epoch_are_the_same_bits(name, options, same_bits):
    whole = Training(name, options)
    whole.epoch(1)
    whole.epoch(2, stop=1)
    saved = copy.deepcopy((whole.model.state_dict(), whole.optimizer.state_dict(), whole.totals.state()))
    random = random_state()
    whole.epoch(2, start=1)
    expected = [value.clone() for value in whole.tensors()]
    resumed = Training(name, options)
    resumed.model.load_state_dict(saved[0])
    resumed.optimizer.load_state_dict(saved[1])
    resumed.totals = loop.Totals(**saved[2])
    torch.set_rng_state(random[0])
    torch.cuda.set_rng_state(random[1])
    resumed.epoch(2, start=1)
    assert resumed.step.replay is not None
    assert_same_bits(resumed.tensors(), expected)


def test_a_replayed_step_takes_the_rate_of_its_epoch():
    """A rate of 0 leaves the weights as they are; the next one moves them again."""
    run = Training("wae-gan", {}, scheduled=True)
    scheduler = LambdaLR(run.optimizer, lambda epoch: (1.0, 0.0, 0.5)[min(epoch, 2)])
    moved, graph = [], None
    for number in (1, 2, 3):
        before = run.weights()
        run.epoch(number)
        assert run.step.replay is not None and graph in (None, run.step.replay)  # captured once
        graph = run.step.replay
        moved.append(distance(run.weights(), before))
        scheduler.step()
    assert moved[0] > 0 == moved[1] and 0 < moved[2] < moved[0]


def test_images_that_fit_are_on_the_device_and_others_arrive_the_same(monkeypatch):
    dataset = Dataset(torch.randint(256, (100, 3, 8, 8), dtype=torch.uint8))
    resident = dataset.to(DEVICE)
    assert resident.store.is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * dataset.store.nbytes - 1, 0))
    assert not dataset.to(DEVICE).store.is_cuda
    batches = [list(some.batches(7, DEVICE)) for some in (resident, dataset)]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True))


# Through the scripts.

PLACES = {"cpu": (), "graph": ("--gpu",), "eager": ("--gpu", "--eager")}
DIGITS = ("--dataset", "digits")
BUDGET = ("--train-size", 88, "--valid-size", 32, "--epochs", 2, "--lr", 5e-4, "--batch-size", 24)
# The rest draws noise, of which a CPU and a GPU have different numbers.
WITHOUT_NOISE = {"ae", "irmae", "lorae", "rrae", "rae"}
NOISE = 0.3
RUNS = [
    *(("--model", name) for name in models.MODELS),
    ("--model", "irmae", "--weight-decay", 0.1),
    ("--model", "ae", "--arch", "gdn"),
    ("--model", "ae", "--arch", "wae", "--train-size", 40),
    ("--model", "ae", "--arch", "mlp"),
]


@pytest.mark.parametrize("flags", RUNS, ids=lambda flags: " ".join(map(str, flags)))
def test_training_by_the_script_as_on_the_cpu(flags, call, tmp_path):
    """Graph and eager within 1e-3; the CPU within 1 %, where noise is drawn within 30 %; ranks of the codes ± 1."""
    name = flags[1]
    size = () if models.MODELS[name].default_latent_dim(models.options(name)) else ("-n", 8)
    losses = {}
    for place, where in PLACES.items():
        done = call(
            "train.py", *DIGITS, *BUDGET, *flags, *size, *where, "--model-name", place, "--checkpoint", tmp_path
        )
        assert done.status == 0, done.err
        assert ("not captured" in done.err) == (place == "graph" and name in NOT_CAPTURED), done.err
        losses[place] = checkpoint.load(tmp_path / "digits" / place)["metrics"][-1]["train_loss"]
    assert losses["graph"] == pytest.approx(losses["eager"], rel=1e-3)
    assert losses["graph"] == pytest.approx(losses["cpu"], rel=0.01 if name in WITHOUT_NOISE else NOISE)

    where = ("--checkpoint", tmp_path, "--save-path", tmp_path / "figures", "--test-size", 100)
    done = call("singular.py", "--gpu", *DIGITS, "--model-name", *PLACES, *where)
    assert done.status == 0, done.err
    (path,) = (tmp_path / "figures").rglob("*.json")
    found = {row["model_name"]: row["rank"] for row in json.loads(path.read_text())}
    assert set(found) == set(PLACES)
    assert max(found.values()) - min(found.values()) <= 1, found


@pytest.mark.parametrize("name", ["irmae", "vae", "wae-gan"])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(name, call, tmp_path, same_bits):
    """Weights, Adam's state and random numbers; the steps are captured again. The CPU reads the same codes in it."""
    flags = (*DIGITS, "--model", name, "-n", 8, *BUDGET, "--gpu", "--checkpoint", tmp_path)
    for more in (
        ("--model-name", "whole"),
        ("--model-name", "parts", "--epochs", 1),
        ("--model-name", "parts", "--resume"),
    ):
        done = call("train.py", *flags, *more)
        assert done.status == 0 and "not captured" not in done.err, done.err
    assert "resuming" in done.out
    whole, parts = (checkpoint.load(tmp_path / "digits" / each) for each in ("whole", "parts"))
    assert whole["random"]["cuda"] is not None
    for part in ("weights", "random", "optimizer"):
        expected, found = (torch.utils._pytree.tree_leaves(each[part]) for each in (whole, parts))
        assert len(expected) == len(found) > 1
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other) if torch.is_tensor(one) else one == other, part

    there, here = (load(tmp_path / "digits" / "whole", device) for device in (DEVICE, "cpu"))
    codes, expected = (run.encode(run.dataset("test", 100)) for run in (there, here))
    assert (codes - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_average_of_replayed_steps_by_the_script(call, tmp_path):
    """The averaged weights, which are validated and evaluated, follow the replays as they follow single steps."""
    found = {}
    for place, where in PLACES.items():
        flags = (*DIGITS, "-l", 2, "-n", 8, *BUDGET, "--ema", 0.8, *where)
        done = call("train.py", *flags, "--model-name", place, "--checkpoint", tmp_path)
        assert done.status == 0 and "not captured" not in done.err, done.err
        found[place] = checkpoint.load(tmp_path / "digits" / place)
    losses = {place: saved["metrics"][-1]["valid_loss"] for place, saved in found.items()}
    assert losses["graph"] == pytest.approx(losses["eager"], rel=1e-3)
    assert losses["graph"] == pytest.approx(losses["cpu"], rel=0.01)
    average, trained = found["graph"]["weights"], found["graph"]["raw_weights"]
    assert distance(average, found["eager"]["weights"]) < 0.2 * distance(average, trained)


def test_a_schedule_by_the_script(call, tmp_path):
    """The last rate is a hundredth of the first: replays that kept their number would go on far too fast."""
    flags = (*DIGITS, "--model", "wae-gan", "-n", 8, *BUDGET, "--epochs", 3, "--lr-schedule", "smooth")
    metrics = {}
    for place, where in PLACES.items():
        done = call("train.py", *flags, *where, "--model-name", place, "--checkpoint", tmp_path)
        assert done.status == 0, done.err
        metrics[place] = checkpoint.load(tmp_path / "digits" / place)["metrics"]
    rates = [[row["lr"] for row in metrics[place]] for place in PLACES]
    assert rates[0] == rates[1] == rates[2] and rates[0][2] == pytest.approx(5e-6)
    for key in ("train_loss", "valid_loss"):
        found = [[row[key] for row in metrics[place]] for place in ("graph", "eager")]
        assert found[0] == pytest.approx(found[1], rel=1e-3)
