"""The one training loop: it never asks which model it is training."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from utils import distributed
from utils.devices import autocast
from utils.pinned_memory import PinnedBuffers

WARM_UP = 3  # steps before a capture: libraries choose algorithms and take their memory in them


class Totals:
    """Sums of a model's losses over the images seen, kept on the device so that no step waits for the host."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.names = list(sums or {})
        self.sums: Tensor | None = torch.tensor(list(sums.values()), dtype=torch.float64) if sums else None
        self.count = count

    def add(self, losses: dict[str, Tensor], count: int) -> None:
        """Losses by name, each a mean over ``count`` images."""
        self.add_packed(list(losses), pack(losses), count)

    def add_packed(self, names: list[str], values: Tensor, count: int) -> None:
        """The same as one vector, in the order of ``names``."""
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


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam over the model's parameter groups; the fused form does the same in one kernel."""
    groups = model.parameter_groups(learning_rate)
    # Capturable: its count of steps lives on the device, where a CUDA graph can raise it.
    capturable = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.Adam(groups, lr=learning_rate, fused=True, capturable=capturable)


class Step:
    """One optimiser step: images, losses, gradients, Adam.

    On a CUDA device the whole step is captured as a CUDA graph at the first batch and replayed for each batch of the
    same size: one launch instead of hundreds. A smaller last batch runs operation by operation, as everything does if
    ``eager``. On a CPU a "replay" runs the same code on the same static input.

    Args:
        dataset: a ``data.base.Dataset``, on the device or in main memory; None where a step is given the images.
        eager: capture nothing.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        dataset,
        precision: str = "fp32",
        eager: bool = False,
    ):
        self.model, self.optimizer = model, optimizer
        self.dataset, self.precision = dataset, precision
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.resident = dataset is None or dataset.store.device.type == self.device.type
        self.fetch = None if self.resident else PinnedBuffers(dataset.store)
        self.eager = eager
        self.replay: Callable[[], Tensor] | None = None
        self.static: Tensor | None = None  # the replay's input
        self.total = 0  # images of the whole batch that it is for
        self.names: list[str] = []  # of the losses, in the order of the vector that a step returns

    def __call__(self, index: Tensor, total: int) -> Tensor:
        """A step on this process's images ``index`` of a batch of ``total``; the losses, a float64 vector.

        The vector is overwritten by the next step.
        """
        rows = index if self.resident else self.fetch(index)
        if not self.eager and total > self.total:  # or again, where the first batch was a last, smaller one
            self.capture(rows, total)
        if self.replay is None or total != self.total or rows.shape != self.static.shape:
            return self.run(rows.to(self.device, non_blocking=True), total)
        self.static.copy_(rows, non_blocking=True)
        losses = self.replay()
        # A replay runs no Python: whoever keeps something that depends on the weights must see that they changed.
        torch.autograd.graph.increment_version(self.parameters)
        return losses

    def images(self, rows: Tensor) -> Tensor:
        """The images of indices where the store is on the device, otherwise of its rows."""
        if self.dataset is None:
            return rows
        return self.dataset[rows] if self.resident else self.dataset.to_images(rows)

    def run(self, rows: Tensor, total: int) -> Tensor:
        """The step itself."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision), distributed.draws(total):
            losses = self.model.losses(self.images(rows))
        loss = losses["loss"]
        if distributed.world() > 1:
            loss = loss * (distributed.count(total) / total)
        loss.backward()
        distributed.sum_gradients(self.parameters)
        self.optimizer.step()
        self.names = list(losses)
        return pack(losses)

    def capture(self, rows: Tensor, total: int) -> None:
        """Make the replay for batches like this one; where that fails, say so and stay eager."""
        self.static, self.total = rows.to(self.device, copy=True), total
        if self.device.type == "cpu":
            self.replay = lambda: self.run(self.static, total)
            return
        try:
            if distributed.world() > 1:
                raise RuntimeError("several processes exchange gradients in them")  # NCCL in a graph: untested
            with undone(self.model, self.optimizer):
                self.replay = cuda_graph(lambda: self.run(self.static, total))
        except RuntimeError as error:
            self.eager = True
            self.optimizer.zero_grad(set_to_none=True)
            if distributed.rank() == 0:
                reason = str(error).strip().splitlines()[0]
                print(
                    f"warning: the steps of {type(self.model).__name__} are not captured as a CUDA graph ({reason}); "
                    "they run one by one, slower and with the same results",
                    file=sys.stderr,
                )


def cuda_graph(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``function``, which reads and writes tensors that stay where they are, as a CUDA graph to be replayed.

    Raises:
        RuntimeError: something in it cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
        # Waiting for the host is what cannot be captured. Found here it fails cleanly, inside a capture it would not.
        torch.cuda.set_sync_debug_mode("error")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        output = function()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


@contextlib.contextmanager
def undone(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Weights, buffers, Adam's state and random numbers are afterwards what they were, in the same memory."""
    tensors = [*model.parameters(), *model.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    state = {p: {key: value.clone() for key, value in entry.items()} for p, entry in optimizer.state.items()}
    with torch.random.fork_rng(devices=cuda_devices(model)):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, kept, strict=True):
                    tensor.copy_(value)
                for parameter, entry in optimizer.state.items():
                    for key, value in entry.items():
                        # Before its first step Adam has no state, which is the same as one of zeros.
                        value.copy_(state[parameter][key]) if parameter in state else value.zero_()


def cuda_devices(model: torch.nn.Module) -> list[torch.device]:
    """The CUDA device that the model is on, if it is on one: whose random state must be kept beside the CPU's."""
    return [device for device in {p.device for p in model.parameters()} if device.type == "cuda"]


def train_steps(
    model: torch.nn.Module,
    batches: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    totals: Totals,
    precision: str = "fp32",
) -> Iterator[Totals]:
    """One optimiser step per batch of images, nothing captured; yields after each: see ``take_steps``."""
    step = Step(model, optimizer, None, precision, eager=True)
    yield from take_steps(step, ((x, len(x)) for x in batches), totals)


def take_steps(step: Step, batches: Iterable[tuple[Tensor, int]], totals: Totals) -> Iterator[Totals]:
    """A step per index and size of a batch; yields after each, so that the caller can look, save or stop."""
    step.model.train()
    for index, total in batches:
        losses = step(index, total)
        totals.add_packed(step.names, losses, distributed.count(total))
        yield totals


def evaluate(
    model: torch.nn.Module,
    batches: Iterable[tuple[Tensor, int]],
    precision: str = "fp32",
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Mean losses over batches without training; None when ``stop`` said so before the end.

    What a model draws at random (a VAE's codes) is drawn from a fixed seed and leaves the training's own random
    state alone: the same weights always give the same number.

    Args:
        batches: this process's images of each batch, and how many the whole batch has.
    """
    model.eval()
    totals = Totals()
    with torch.random.fork_rng(devices=cuda_devices(model)), torch.no_grad():
        torch.manual_seed(0)
        for x, total in batches:
            if stop():
                return None
            with autocast(x.device, precision), distributed.draws(total):
                losses = model.losses(x)
            totals.add(losses, distributed.count(total))
    return totals.of_all_processes().means()
