"""The fast forms of the convolutions compute what torch.nn computes, and a prepared model is the same model."""

import copy
import platform
import resource

import pytest
import torch
from torch import nn

import data
import models
from models.layers import convolutions
from utils import devices, loop

CPU = torch.device("cpu")

# (kernel, stride, padding, output padding, input size): the layers of every architecture, and an uneven one.
TRANSPOSED = [
    (4, 2, 1, 0, (8, 8)),
    (4, 2, 1, 0, (2, 6)),
    (5, 2, 2, 1, (4, 4)),
    (2, 1, 0, 0, (1, 1)),
    (1, 1, 0, 0, (6, 4)),
]
FORWARD = [(4, 2, 1, (8, 8)), (5, 2, 2, (8, 6)), (4, 2, 1, (4, 4)), (2, 1, 0, (2, 2)), (3, (1, 2), (2, 0), (2, 5))]


def compare(ours: nn.Module, plain: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Output and gradients by input and parameters in float64, ours prepared; returns our output."""
    plain.load_state_dict(ours.state_dict())
    devices.prepare(ours.double(), CPU)
    plain.double()
    x = x.double().contiguous(memory_format=torch.channels_last).requires_grad_()
    y, expected = ours(x), plain(x)
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    for got, wanted in zip(
        torch.autograd.grad(y, (x, *ours.parameters()), weights),
        torch.autograd.grad(expected, (x, *plain.parameters()), weights),
        strict=True,
    ):
        assert got.shape == wanted.shape and torch.allclose(got, wanted, rtol=1e-11, atol=1e-11)
    return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding", "output_padding", "size"), TRANSPOSED)
def test_transposed_convolution(kernel, stride, padding, output_padding, size, bias):
    torch.manual_seed(0)
    settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "bias": bias}
    ours, plain = (cls(6, 5, kernel, **settings) for cls in (convolutions.ConvTranspose2d, nn.ConvTranspose2d))
    compare(ours, plain, torch.randn(3, 6, *size))


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), FORWARD)
def test_convolution_as_a_product_over_patches(kernel, stride, padding, size, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(convolutions, "UNFOLDED_CHANNELS", 6)
    ours, plain = (cls(6, 5, kernel, stride=stride, padding=padding) for cls in (convolutions.Conv2d, nn.Conv2d))
    y = compare(ours, plain, torch.randn(3, 6, *size))
    assert "Convolution" not in graph(y)  # the form that was to be tested


def graph(y: torch.Tensor) -> str:
    """The names of the operations behind a tensor."""
    names, nodes = [], [y.grad_fn]
    while nodes:
        node = nodes.pop()
        names.append(node.name())
        nodes += [following for following, _ in node.next_functions if following is not None]
    return " ".join(names)


def test_the_default_format_keeps_the_modules_of_torch():
    """Without ``prepare`` nothing differs from torch.nn: what ``--eager`` and the benchmark's reference rely on."""
    torch.manual_seed(0)
    ours = convolutions.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
    plain = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ours(x), plain(x)) and graph(ours(x)) == graph(plain(x))


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
    """On a CPU the fused Adam pairs elements by their place in memory, and would mix them up without a word."""
    torch.manual_seed(0)
    model = devices.prepare(models.build("ae", architecture="mnist", channels=1, latent_dim=4), CPU)
    optimizer = loop.make_optimizer(model, 1e-3)
    for precision in ("fp32", "bf16"):
        for _ in loop.train_steps(model, [torch.rand(2, 1, 32, 32)], optimizer, loop.Totals(), precision):
            pass
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


def test_the_fast_paths_learn_what_the_plain_one_learns():
    """Real digits, 16 steps: the losses of the last four agree within 1 %."""
    digits = data.load("digits", "train", size=128)

    def loss_after_training(fast: bool, precision: str) -> float:
        torch.manual_seed(0)
        model = models.build("ae", architecture="mnist", channels=1, latent_dim=16)
        model = devices.prepare(model, CPU) if fast else model
        optimizer = loop.make_optimizer(model, 3e-4)
        for epoch in range(4):
            totals, order = loop.Totals(), digits.order(torch.Generator().manual_seed(epoch))
            batches = (digits[index] for index in order.split(32))
            for _ in loop.train_steps(model, batches, optimizer, totals, precision):
                pass
        return totals.means()["loss"]

    plain = loss_after_training(fast=False, precision="fp32")
    fast = loss_after_training(fast=True, precision="fp32")
    bf16 = loss_after_training(fast=True, precision="bf16")
    assert fast == pytest.approx(plain, rel=0.01) and bf16 == pytest.approx(plain, rel=0.01)
    assert len({plain, fast, bf16}) == 3  # other sums in another order: the paths were really taken


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory allocator of glibc")
def test_freed_memory_is_kept():
    devices.keep_freed_memory()
    size = 16 << 20  # floats: 64 MiB, 16,384 pages, more than glibc otherwise ever keeps
    torch.zeros(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2000
