"""A prepared model, stored channels-last, computes what the model as built does."""

import copy
import platform
import resource

import pytest
import torch
from torch import nn

import data
import models
from data.base import VectorDataset
from utils import devices, loop

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ["mnist", "shape", "wae-32", "gdn-32"])
def test_a_prepared_model_is_the_same_model(architecture):
    """Same names and values, and the same loss and gradients in float64."""
    torch.manual_seed(0)
    model = models.build("ae", architecture=architecture, channels=1, latent_dim=16).double()
    prepared = models.build("ae", architecture=architecture, channels=1, latent_dim=16).double()
    prepared.load_state_dict(model.state_dict())
    devices.prepare(prepared, CPU)
    assert all(torch.equal(value, prepared.state_dict()[name]) for name, value in model.state_dict().items())
    x = torch.rand(4, 1, 32, 32, dtype=torch.float64)
    losses = [each.losses(x)["loss"] for each in (model, prepared)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    for loss in losses:
        loss.backward()
    for first, second in zip(model.parameters(), prepared.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad, rtol=1e-8, atol=1e-12)


def test_gradients_and_moments_have_the_format_of_the_parameters():
    """On a CPU the fused Adam pairs elements by their place in memory, and would mix them up silently."""
    torch.manual_seed(0)
    model = devices.prepare(models.build("ae", architecture="mnist", channels=1, latent_dim=4), CPU)
    optimizer = loop.make_optimizer(model, 1e-3)
    for precision in ("fp32", "bf16"):
        step = loop.Step(model, optimizer, VectorDataset(torch.rand(2, 1, 32, 32)), precision)
        step(torch.arange(2))
        for parameter in model.parameters():
            state = optimizer.state[parameter]
            assert parameter.stride() == parameter.grad.stride() == state["exp_avg"].stride()


def test_moments_saved_in_another_format_are_taken_over():
    """A run resumed from a checkpoint of an unprepared model takes the step that the run itself would have taken."""
    gradients = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def take_step(model, optimizer, gradient):
        model.weight.grad = torch.empty_like(model.weight).copy_(gradient)  # in the format of the weight
        optimizer.step()

    model, resumed = (nn.Conv2d(3, 4, 4, bias=False) for _ in range(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    take_step(model, optimizer, gradients[0])
    devices.prepare(resumed, CPU)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=1e-2, fused=True)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    devices.match_layout(resumed_optimizer)
    take_step(model, optimizer, gradients[1])
    take_step(resumed, resumed_optimizer, gradients[1])
    assert torch.allclose(model.weight, resumed.weight, atol=1e-6)  # mixed-up moments: about the step, 1e-2


def test_prepared_and_bf16_models_learn_what_the_plain_one_learns():
    """Real digits, 16 steps: the losses of the last four agree within 1 %."""
    digits = data.load("digits", "train", size=128)

    def loss_after_training(fast: bool, precision: str) -> float:
        torch.manual_seed(0)
        model = models.build("ae", architecture="mnist", channels=1, latent_dim=16)
        model = devices.prepare(model, CPU) if fast else model
        step = loop.Step(model, loop.make_optimizer(model, 3e-4), digits, precision)
        for epoch in range(4):
            *_, totals = loop.epoch(step, 32, 0, epoch)
        return totals.means()["loss"]

    plain = loss_after_training(fast=False, precision="fp32")
    fast = loss_after_training(fast=True, precision="fp32")
    bf16 = loss_after_training(fast=True, precision="bf16")
    assert fast == pytest.approx(plain, rel=0.01) and bf16 == pytest.approx(plain, rel=0.01)
    assert len({plain, fast, bf16}) == 3  # sums in another order: the formats really differ


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_in_bf16_and_its_codes_are_float32(name):
    torch.manual_seed(0)
    latent_dim = models.MODELS[name].default_latent_dim(models.options(name)) or 4
    model = models.build(name, architecture="mnist", channels=1, latent_dim=latent_dim)
    model.train_size = 8
    images = torch.rand(8, 1, 32, 32)
    step = loop.Step(model, loop.make_optimizer(model, 1e-3), VectorDataset(images), "bf16")
    assert torch.isfinite(step(torch.arange(8))).all()
    with devices.autocast(CPU, "bf16"), torch.no_grad():
        assert {codes(images).dtype for codes in (model.eval().encode, model.sample_codes)} == {torch.float32}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory allocator of glibc")
def test_freed_memory_is_kept():
    devices.keep_freed_memory()
    size = 16 << 20  # floats: 64 MiB, 16,384 pages, more than glibc otherwise ever keeps
    torch.zeros(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2000
