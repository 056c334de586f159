"""The one training loop: it never asks which model it is training."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from utils.device import autocast


class Totals:
    """Sums of a model's losses over the images seen, kept on the device so that no step waits for the host."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.sums: dict[str, Tensor | float] = dict(sums or {})
        self.count = count

    def add(self, losses: dict[str, Tensor], count: int) -> None:
        for name, value in losses.items():
            # float64: a sum of 60,000 float32 losses would lose the digits that are compared with the paper.
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double() * count
        self.count += count

    def state(self) -> dict:
        """Plain values for a checkpoint: ``Totals(**state)`` goes on from there."""
        return {"sums": {name: float(value) for name, value in self.sums.items()}, "count": self.count}

    def means(self) -> dict[str, float]:
        """Mean of each loss over the images. Waits for the device."""
        return {name: float(value) / max(self.count, 1) for name, value in self.sums.items()}


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam over the model's parameter groups; the fused form does the same in one kernel."""
    return torch.optim.Adam(model.parameter_groups(learning_rate), lr=learning_rate, fused=True)


def train_steps(
    model: torch.nn.Module,
    batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    totals: Totals,
    precision: str = "fp32",
) -> Iterator[Totals]:
    """One optimiser step per batch; yields after each, so that the caller can look, save or stop."""
    model.train()
    for x in batches:
        optimizer.zero_grad(set_to_none=True)
        with autocast(x.device, precision):
            losses = model.losses(x)
        losses["loss"].backward()
        optimizer.step()
        totals.add(losses, len(x))
        yield totals


def evaluate(
    model: torch.nn.Module,
    batches: Iterable[Tensor],
    precision: str = "fp32",
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Mean losses over the batches without training; None when ``stop`` said so before the end.

    What a model draws at random (a VAE's codes) is drawn from a fixed seed and leaves the training's own random
    state alone: the same weights always give the same number.
    """
    model.eval()
    totals = Totals()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for x in batches:
            if stop():
                return None
            with autocast(x.device, precision):
                totals.add(model.losses(x), len(x))
    return totals.means()
