"""Training with several processes, as torchrun starts them: NCCL between GPUs, gloo between CPUs.

Each process computes its part of every batch; DistributedDataParallel averages the gradients. Without torchrun there is
one process, and nothing here does anything.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

# A dead process closes its connections and is noticed at once. Long, because ranks wait while rank 0 decodes images.
TIMEOUT = timedelta(hours=6)


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def rank() -> int:
    """The number of this process among all of them. Only rank 0 prints and writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def process_group(device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Join the other processes, if there are any, for as long as the block lasts; only rank 0 prints in it.

    Where another process dies, this one ends at once with one line, ``advice()`` in it, and exit status 1.
    """
    if not launched():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about devices of barriers: each process has one
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if rank() != 0:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not connection_lost(error):
                raise
            script = os.path.basename(sys.argv[0])
            print(f"{script}: error: another process of this run ended; {advice()}", file=sys.stderr, flush=True)
            os._exit(1)  # without the clean-up of the interpreter, in which NCCL would wait for that process
    dist.destroy_process_group()


def connection_lost(error: RuntimeError) -> bool:
    """Whether an exception of a collective operation says that another process has gone."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "connection refused", "socket timeout")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Rank 0 goes through the block before the others: it decodes a data set, which they then find decoded."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def barrier() -> None:
    """Wait until all processes are here."""
    largest(0)


def largest(number: int) -> int:
    """The largest of the numbers that the processes pass."""
    tensor = torch.tensor(number)  # on the CPU, hence by gloo
    if world() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def gather(value: object) -> list:
    """A plain value of every process, by rank."""
    if world() == 1:
        return [value]
    values: list[object] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def part(total: int) -> slice:
    """The samples of a batch of ``total`` that this process computes.

    One without any computes the first, with weight 0 (see ``count``): all take part in every exchange of gradients.
    """
    start, stop = total * rank() // world(), total * (rank() + 1) // world()
    return slice(start, stop) if stop > start else slice(0, 1)


def count(total: int) -> int:
    """How many samples of a batch of ``total`` belong to this process."""
    return total * (rank() + 1) // world() - total * rank() // world()


def loss_scale(total: int) -> float:
    """The factor on this process's mean loss for which the average over the processes is the mean over the batch."""
    return count(total) * world() / total


def parallel(module: nn.Module) -> nn.Module:
    """The module with its gradients averaged over the processes, and rank 0's weights and buffers in all of them."""
    if world() == 1:
        return module
    device = next(module.parameters()).device
    return nn.parallel.DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


def broadcast_buffers(model: nn.Module) -> None:
    """Every process takes rank 0's running statistics, as it does before each training step."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def seed_noise(seed: int, epoch: int, step: int) -> None:
    """Let every process but rank 0 draw noise of its own; rank 0 goes on with its random state."""
    if rank() > 0:
        numbers = (seed, epoch, step, rank())
        torch.manual_seed(sum(number * 1_000_003**power for power, number in enumerate(numbers)) % 2**63)
