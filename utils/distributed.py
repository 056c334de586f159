"""Several processes that train one model, as torchrun starts them: NCCL between GPUs, gloo between CPUs.

Each batch is cut into one part per process; the gradients of the parts are summed and every process takes the same
step. Without torchrun there is one process, and nothing here does anything.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# A dead process closes its connections and is noticed at once. This is for the living: one that decodes a data set
# while the others wait.
TIMEOUT = timedelta(hours=6)


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def rank() -> int:
    """Which of all processes this is. 0 alone prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def together(device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Join the other processes, if there are any, and leave them at the end; only rank 0 prints inside.

    Where another process dies the rest cannot go on: this one ends with a line, ``advice()``, and exit status 1.
    """
    if not launched():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about devices of barriers: there is one for each process
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if rank() != 0:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not connection_lost(error):
                raise
            leave_at_once(f"{os.path.basename(sys.argv[0])}: error: another process of this run ended; {advice()}")
    dist.destroy_process_group()


def connection_lost(error: RuntimeError) -> bool:
    """Whether an exception of a collective operation says that another process has gone."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "connection refused", "socket timeout")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def leave_at_once(message: str) -> NoReturn:
    """End without the clean-up of the interpreter, in which NCCL would wait for the process that has gone."""
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Rank 0 goes through the block before the others: it decodes a data set, they find it decoded."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        dist.all_reduce(torch.zeros(()))  # on the CPU, hence by gloo: a barrier would choose NCCL


def bounds(total: int) -> tuple[int, int]:
    """The images ``start`` to ``stop`` of a batch of ``total`` are this process's; of few, it may have none."""
    return total * rank() // world(), total * (rank() + 1) // world()


def part(total: int) -> slice:
    """What this process computes of a batch of ``total`` images.

    One that has none computes the first image, with weight 0: it then draws the same random numbers as the others and
    takes part in every sum.
    """
    start, stop = bounds(total)
    return slice(start, stop) if stop > start else slice(0, 1)


def count(total: int) -> int:
    """How many images of a batch of ``total`` are this process's."""
    start, stop = bounds(total)
    return stop - start


class WholeBatchDraws(TorchFunctionMode):
    """Noise of a part of a batch as one process would draw it for all of it.

    Every process has the same random state. What has one row per image is drawn for the whole batch, and the rows of
    the part are taken: random numbers are the same for any number of processes, and the states stay equal. A draw of
    another length (samples of a prior that do not belong to an image) is the same everywhere already; one that has by
    chance the length of a part is drawn for the whole batch in all processes too.
    """

    def __init__(self, total: int):
        super().__init__()
        self.total, self.part = total, part(total)
        self.lengths = {max(1, total // world()), -(-total // world())}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in (torch.randn_like, torch.rand_like, F.dropout) or args[0].dim() == 0:
            return function(*args, **kwargs)
        rows, length = args[0], len(args[0])
        if length not in self.lengths:
            return function(*args, **kwargs)
        own = self.part if length == self.part.stop - self.part.start else slice(0, length)
        if function is F.dropout:
            return rows * F.dropout(self.widened(rows).fill_(1), *args[1:], **kwargs)[own]
        return function(self.widened(rows), *args[1:], **kwargs)[own]

    def widened(self, rows: Tensor) -> Tensor:
        """An empty tensor like ``rows`` for the whole batch, of the same memory format: draws follow the memory."""
        return torch.empty_strided((self.total, *rows.shape[1:]), rows.stride(), dtype=rows.dtype, device=rows.device)


def draws(total: int) -> contextlib.AbstractContextManager:
    """The context of a forward pass over this process's part of a batch of ``total`` images."""
    return WholeBatchDraws(total) if world() > 1 else contextlib.nullcontext()


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes, all in one message.

    By hand instead of by DistributedDataParallel, which wraps ``forward`` where the loop calls ``losses``, and averages
    where parts of different length need weights. It would also send early gradients while later ones are computed.
    """
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    dist.all_reduce(flat)
    pieces = flat.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad.copy_(piece.view_as(parameter))


def start_equal(model: nn.Module) -> None:
    """Every process takes rank 0's weights and buffers."""
    if world() > 1:
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)


@torch.no_grad()
def average_buffers(model: nn.Module) -> None:
    """Running statistics, which each process makes from its parts, averaged over the processes."""
    if world() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                total = buffer.double()  # a constant stays what it is
                dist.all_reduce(total)
                buffer.copy_(total / world())


def gather(value: object) -> list:
    """A plain value of every process, by rank."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


class Vote:
    """A number that the processes agree on at every step: the largest that any of them gave a step before.

    They stop, or save, between the same two steps although a signal reaches them at different times. It travels on the
    CPU beside the computation, so that no step waits for it. A single process hears its own number at once.
    """

    def __init__(self):
        self.pending: tuple[dist.Work, Tensor] | None = None

    def __call__(self, number: int) -> int:
        if world() == 1:
            return number
        agreed = 0
        if self.pending is not None:
            work, tensor = self.pending
            work.wait()
            agreed = int(tensor)
        tensor = torch.tensor(number)
        self.pending = dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True), tensor
        return agreed
