"""The one training loop: it never asks which model it is training."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from utils import distributed
from utils.cuda_graph import cuda_devices, cuda_graph, first_line, preserve_state
from utils.devices import autocast
from utils.pinned_memory import PinnedBuffers

Model = Any  # a ``models.base.Autoencoder``: utils imports no models


class Totals:
    """Sums of a model's losses over the images seen, kept on the device so that no step waits for the host."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.names = list(sums or {})
        self.sums: Tensor | None = torch.tensor(list(sums.values()), dtype=torch.float64) if sums else None
        self.count = count

    def add(self, names: list[str], values: Tensor, count: int) -> None:
        """Losses as ``pack`` gives them, in the order of ``names``, each a mean over ``count`` images."""
        sums = 0.0 if self.sums is None else self.sums.to(values.device)
        self.names, self.sums = names, sums + values * count
        self.count += count

    def state(self) -> dict:
        """Plain values for a checkpoint: ``Totals(**state)`` goes on from there. Waits for the device."""
        sums = [] if self.sums is None else self.sums.tolist()
        return {"sums": dict(zip(self.names, sums, strict=True)), "count": self.count}

    def means(self) -> dict[str, float]:
        """Mean of each loss over the images. Waits for the device."""
        return {name: value / max(self.count, 1) for name, value in self.state()["sums"].items()}

    def of_all_processes(self) -> "Totals":
        """The totals over the parts of all processes, on each of them."""
        states = distributed.gather(self.state())
        names = states[0]["sums"]
        sums = {name: sum(state["sums"].get(name, 0.0) for state in states) for name in names}
        return Totals(sums, sum(state["count"] for state in states))


def pack(losses: dict[str, Tensor]) -> Tensor:
    """The values as one float64 vector: a sum of 60,000 float32 losses would lose digits that papers print."""
    return torch.stack([value.detach().double() for value in losses.values()])


def make_optimizer(
    model: Model, learning_rate: float, weight_decay: float = 0.0, scheduled: bool = False
) -> torch.optim.Optimizer:
    """AdamW over the model's parameter groups: without weight decay it is Adam, to the bit; fused, in one kernel.

    Args:
        weight_decay: decoupled, of all parameters (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).
        scheduled: the rates are tensors where steps are replayed, which keep a number. A ``LambdaLR`` changes them.
    """
    groups = model.parameter_groups(learning_rate)
    # Capturable: its count of steps lives on the device, where a CUDA graph can raise it.
    capturable = all(parameter.is_cuda for group in groups for parameter in group["params"])
    for group in groups:
        group["initial_lr"] = group["lr"]
        if scheduled and (device := group["params"][0].device).type != "cpu":
            group["lr"] = torch.tensor(group["lr"]).to(device)
    return torch.optim.AdamW(groups, learning_rate, weight_decay=weight_decay, fused=True, capturable=capturable)


class Losses(torch.nn.Module):
    """A model's ``losses`` as a forward pass, for DistributedDataParallel to wrap."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.model.losses(x)


class Step:
    """One optimiser step: images, losses, gradients, Adam.

    On a CUDA device the whole step is captured as a CUDA graph at the first batch and replayed for each batch of the
    same size. A smaller last batch runs operation by operation, as everything does if ``eager``. On a CPU a "replay"
    runs the same code on the same static input. Several processes each compute their part of a batch, eagerly. The
    ``data.base.Dataset`` is on the device of the model or in main memory.
    """

    def __init__(self, model: Model, optimizer: torch.optim.Optimizer, dataset, precision="fp32", eager: bool = False):
        self.model, self.optimizer = model, optimizer
        self.losses = distributed.parallel(Losses(model))
        self.dataset, self.precision = dataset, precision
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.fetch = None if dataset.store.device.type == self.device.type else PinnedBuffers(dataset.store)
        self.eager = eager or distributed.world() > 1  # an exchange of gradients inside a graph is untested
        self.replay: Callable[[], Tensor] | None = None
        self.static: Tensor | None = None  # the replay's input
        self.names: list[str] = []  # of the losses, in the order of the vector

    def __call__(self, index: Tensor) -> Tensor:
        """A step on the images ``index`` ``(B,)``, on the device of the store.

        Returns this process's losses, a float64 vector in the order of ``names``, which the next step overwrites.
        """
        rows = index[distributed.part(len(index))]
        if self.fetch is not None:
            rows = self.fetch(rows)
        if not self.eager and (self.static is None or len(rows) > len(self.static)):
            self.capture(rows, len(index))  # again, where the first batch was a last, smaller one
        if self.replay is None or self.static is None or len(rows) != len(self.static):
            return self.run(rows.to(self.device, non_blocking=True), len(index))
        self.static.copy_(rows, non_blocking=True)
        losses = self.replay()
        # A replay runs no Python: whoever keeps something that depends on the weights must see that they changed.
        torch.autograd.graph.increment_version(self.parameters)
        return losses

    def run(self, rows: Tensor, total: int) -> Tensor:
        """The step itself, on ``rows`` of a batch of ``total``: indices of a store on the device, else its content."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            losses = self.losses(self.dataset[rows] if self.fetch is None else self.dataset.to_images(rows))
        loss = losses["loss"]
        if distributed.world() > 1:
            loss = loss * distributed.loss_scale(total)
        loss.backward()
        self.optimizer.step()
        self.names = list(losses)
        return pack(losses)

    def capture(self, rows: Tensor, total: int) -> None:
        """Prepare the replay for batches like this one; where that is impossible, say so and stay eager."""
        self.static = static = rows.to(self.device, copy=True)
        self.replay = lambda: self.run(static, total)
        if self.device.type == "cpu":
            return
        try:
            with preserve_state(self.model, self.optimizer):
                self.replay = cuda_graph(self.replay)
        except RuntimeError as error:
            self.eager, self.replay = True, None
            self.optimizer.zero_grad(set_to_none=True)
            print(
                f"warning: the steps of {type(self.model).__name__} are not captured as a CUDA graph "
                f"({first_line(error)}); they run one by one, slower and with the same results",
                file=sys.stderr,
            )


def epoch(
    step: Step,
    batch_size: int,
    seed: int,
    epoch: int,
    skip: int = 0,
    totals: Totals | None = None,
    shuffle: bool = True,
) -> Iterator[Totals]:
    """One pass over the training samples, a step per batch; yields after each, so that the caller can look or stop.

    The order of the samples depends on ``seed`` and ``epoch`` (from 1) alone: an interrupted pass that took ``skip``
    steps, with losses ``totals``, goes on with the rest. Without ``shuffle`` every pass is the same, in the data set's
    own order.
    """
    totals = Totals() if totals is None else totals
    order = step.dataset.order(torch.Generator().manual_seed(seed * 1_000_003 + (epoch if shuffle else 0)))
    if not shuffle:
        order = order.sort().values
    step.model.train()
    for index in order.to(step.dataset.store.device).split(batch_size)[skip:]:
        losses = step(index)
        totals.add(step.names, losses, distributed.count(len(index)))
        yield totals


def evaluate(
    model: Model, batches: Iterable[Tensor], precision: str = "fp32", stop: Callable[[], bool] = lambda: False
) -> dict[str, float] | None:
    """Mean losses over batches of images without training; None where ``stop`` returned true before the end.

    Random codes are drawn from a fixed seed, and the random state of the training stays: the same weights always give
    the same number. Each of several processes computes its part of every batch.
    """
    model.eval()
    totals = Totals()
    with torch.random.fork_rng(devices=cuda_devices(model)), torch.no_grad():
        torch.manual_seed(distributed.rank())
        for x in batches:
            if stop():
                return None
            with autocast(x.device, precision):
                losses = model.losses(x[distributed.part(len(x))])
            totals.add(list(losses), pack(losses), distributed.count(len(x)))
    return totals.of_all_processes().means()
