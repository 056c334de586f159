"""The step on static input, which a CUDA graph replays, against the same step run eagerly; the ways images reach it.

On a real CUDA device: ``test_gpu.py``.
"""

import contextlib
import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from data.base import Dataset
from data.shapes import ShapeDataset, draw_factors
from utils import cuda_graph, devices, loop
from utils.pinned_memory import PinnedBuffers

SIZES = {"architecture": "mlp:4", "channels": 6, "latent_dim": 2}
CASES = {
    "irmae": {},
    "vae": {},
    "wae-mmd": {"kernel": "rbf"},
    "wae-gan": {"noise": "gaussian"},
    "rae": {"penalty": "sn"},
    "radogaga": {"prior": "gmm"},
    "dagmm": {},
}


def vectors() -> Dataset:
    """19 of them: batches of 8, 8 and 3."""
    return Dataset(torch.randint(256, (19, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))


class Training:
    """A model, its optimiser and its step, all from one seed."""

    def __init__(self, name: str, eager: bool, device: str = "cpu"):
        torch.manual_seed(0)
        self.dataset = vectors().to(torch.device(device))
        self.model = models.build(name, **SIZES, **CASES[name]).to(device)
        self.optimizer = loop.make_optimizer(self.model, 1e-2)
        self.step = loop.Step(self.model, self.optimizer, self.dataset, eager=eager)
        self.totals = loop.Totals()
        self.device = device

    def epoch(self, number: int, steps: slice = slice(None)) -> None:
        passed = loop.epoch(self.step, 8, 0, number, steps.start or 0, self.totals)
        for _ in itertools.islice(passed, None if steps.stop is None else steps.stop - (steps.start or 0)):
            pass

    def tensors(self) -> list[torch.Tensor]:
        """Everything that a training changes."""
        adam = [value for entry in self.optimizer.state.values() for value in entry.values()]
        return [*self.model.state_dict().values(), *adam, self.totals.sums, torch.get_rng_state()]


@pytest.mark.parametrize("name", CASES)
def test_a_step_on_static_input_is_the_eager_step(name):
    """To the last bit, through the smaller last batch, and resumed in the middle of an epoch."""
    runs = []
    for eager in (True, False):
        run = Training(name, eager)
        run.epoch(1)
        run.epoch(2)
        runs.append((run, run.tensors()))
    (eager, expected), (static, found) = runs
    assert static.step.replay is not None and eager.step.replay is None
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)

    first = Training(name, eager=False)
    first.epoch(1)
    first.epoch(2, slice(0, 1))
    random, state = (
        torch.get_rng_state(),
        (first.model.state_dict(), first.optimizer.state_dict(), first.totals.state()),
    )
    resumed = Training(name, eager=False)
    resumed.model.load_state_dict(state[0])
    resumed.optimizer.load_state_dict(state[1])
    resumed.totals = loop.Totals(**state[2])
    torch.set_rng_state(random)
    resumed.epoch(2, slice(1, None))
    for one, other in zip(expected, resumed.tensors(), strict=True):
        assert torch.equal(one, other)


def test_the_order_is_new_every_epoch_or_the_data_sets_own():
    seen: list[torch.Tensor] = []
    dataset: Dataset = ShapeDataset(draw_factors(20), "released")

    def step(index: torch.Tensor) -> torch.Tensor:
        seen.append(dataset.store[index].clone())
        return torch.zeros(1)

    step.dataset, step.names, step.model = dataset, ["loss"], torch.nn.Identity()

    def epoch(number: int, skip: int = 0, **options: bool) -> torch.Tensor:
        seen.clear()
        for _ in loop.epoch(step, 8, 0, number, skip, **options):
            pass
        return torch.cat(seen)

    first, second = epoch(1), epoch(2)
    assert not torch.equal(first, second)
    fixed = epoch(1, shuffle=False)
    assert torch.equal(fixed, epoch(2, shuffle=False))
    assert torch.equal(fixed[8:], epoch(3, 1, shuffle=False)) and not torch.equal(fixed, first)

    dataset = step.dataset = vectors()
    assert torch.equal(epoch(5, shuffle=False), dataset.store)
    shuffled = epoch(5)[:, 0]
    assert not torch.equal(shuffled, dataset.store[:, 0])
    assert torch.equal(shuffled.sort().values, dataset.store[:, 0].sort().values)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("epochs", [0, 1])
def test_warming_up_leaves_no_trace(name, epochs):
    """Before the first step, where Adam has no state yet, and after some."""
    plain, warmed = (Training(name, eager=True) for _ in range(2))
    for run in (plain, warmed):
        torch.manual_seed(1)
        for number in range(epochs):
            run.epoch(number)
        if run is warmed:
            before = [p.data_ptr() for p in run.model.parameters()]
            with cuda_graph.preserve_state(run.model, run.optimizer):
                for index in torch.arange(len(run.dataset)).split(8):
                    run.step(index)
            assert before == [p.data_ptr() for p in run.model.parameters()]
        run.epoch(5)
        run.state = run.tensors()
    for one, other in zip(plain.state, warmed.state, strict=True):
        assert torch.equal(one, other)


def test_what_is_kept_of_the_weights_sees_a_replay():
    """A replay runs no Python, and fused Adam raises no version counter: the step does."""
    run = Training("irmae", eager=False)
    versions = [p._version for p in run.model.parameters()]
    run.epoch(1)
    assert all(p._version > version for p, version in zip(run.model.parameters(), versions, strict=True))


class Waiting(nn.Module):
    """A model whose loss waits for the host: cannot be captured."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def parameter_groups(self, learning_rate):
        return [{"params": [self.weight], "lr": learning_rate}]

    def losses(self, x):
        loss = (self.weight * x).square().mean()
        return {"loss": loss * float(loss > 0)}


class AwayFromTheHost(TorchDispatchMode):
    """Refuses each operation, of the backward pass too, that has a CPU tensor in it, but for single numbers.

    A kernel takes a single number of the host as an argument; copying it to the device is what a capture forbids.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        cpu = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        copied = "copy" in str(function) and len(cpu) < len(tensors)
        assert not cpu or not (copied or any(tensor.dim() for tensor in cpu)), f"{function} needs a tensor of the host"
        return result


VARIANTS = {
    "wae-mmd": [{"kernel": "imq"}, {"kernel": "rbf"}],
    "wae-gan": [{"noise": "gaussian", "prior_offset": True}],
    "rae": [{"penalty": "l2"}, {"penalty": "gp"}, {"penalty": "sn"}],
    "catvae": [{"balance_weight": 1.0, "smooth_weight": 1.0}],
    "beta-vae": [{}, {"joint": True}],
    "radogaga": [{"distortion": "ssim"}, {"prior": "gmm", "h": "log"}],
}


@pytest.mark.parametrize(
    "architecture", ["shape", "mnist", "celeba", "conv-128", "wae-32", "wae-64", "image-mlp-32", "gdn-32"]
)
@pytest.mark.parametrize("name, case", [(name, case) for name in models.MODELS for case in VARIANTS.get(name, [{}])])
def test_no_model_asks_the_host_for_anything(name, case, architecture, monkeypatch):
    """What a CUDA graph needs, on tensors without memory: a number that is read, or depends on one, fails on them."""
    latent_dim = models.MODELS[name].default_latent_dim(models.options(name)) or 8
    model = models.build(name, architecture=architecture, channels=1, latent_dim=latent_dim, **case)
    model.train_size = 19
    devices.prepare(model, torch.device("meta"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    images = torch.empty(19, 1, *[models.image_size(architecture)] * 2, dtype=torch.uint8, device="meta")
    dataset = Dataset(images)
    with AwayFromTheHost():
        losses = model.losses(dataset[torch.zeros(8, dtype=torch.int64, device="meta")])
        losses["loss"].backward()
        assert loop.pack(losses).device.type == "meta"
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters() if p.requires_grad)


def test_rendering_asks_the_host_for_nothing():
    shapes = ShapeDataset(draw_factors(19), "released")
    factors = torch.empty_like(shapes.store[:8], device="meta")
    with AwayFromTheHost():
        assert shapes.to_images(factors).is_meta


@pytest.mark.parametrize(
    "asks",
    [lambda x: x * float(x.sum()), lambda x: x[x > 0], lambda x: x + torch.ones(6).to("meta"), lambda x: x.cpu()],
)
def test_asking_the_host_is_noticed(asks):
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)), AwayFromTheHost():
        asks(torch.empty(6, device="meta"))


def test_staged_pixels_are_the_gathered_ones():
    """Over more batches than there are buffers, the last of them smaller."""
    images = torch.randint(256, (19, 1, 4, 4), dtype=torch.uint8)
    rows = PinnedBuffers(images)
    for index in torch.randperm(19).split(4):
        assert torch.equal(rows(index), images[index])


def test_a_buffer_is_filled_again_only_when_the_device_has_read_it(monkeypatch):
    """The device reads as late as it may: when the host waits for an event that was recorded after it was asked to."""
    asked: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # reads not done yet: a buffer, and what should be in it

    class Event:
        def record(self):
            self.before = list(asked)

        def synchronize(self):
            for number in self.before:
                if number in asked:
                    assert torch.equal(*asked.pop(number))

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory, **kind: empty(*size, **kind))
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    rows, most = PinnedBuffers(images), 0
    for number, index in enumerate(torch.randperm(40).split(3)):
        asked[number] = rows(index), images[index]
        most = max(most, len(asked))
    assert most == 2  # batches on their way: while one is read the other is filled
    assert all(torch.equal(*read) for read in asked.values())
