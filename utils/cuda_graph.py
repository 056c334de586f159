"""A training step as a CUDA graph: captured once, then replayed with one launch instead of hundreds."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from utils.errors import UserError

WARM_UP = 3  # calls before a capture: libraries choose algorithms and take their memory in them


def cuda_graph(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``function``, which reads and writes tensors that keep their memory, as a CUDA graph to be replayed.

    Raises RuntimeError before the capture where something cannot be captured: it still runs eagerly. Raises UserError
    where the capture itself failed, after which CUDA cannot be relied on in this process.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
            with no_synchronisation():
                function()
    finally:  # what comes next on the default stream reads what these calls wrote
        torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            output = function()
    except RuntimeError as error:
        raise UserError(f"the capture of a CUDA graph failed ({first_line(error)}): use --eager") from error

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    """An operation for which the host waits for the device raises RuntimeError: a capture could not contain it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype")  # of the debug mode itself
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def preserve_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore weights, buffers, Adam's state and random numbers after the block, in the same memory."""
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
    """The CUDA devices of a model's parameters: those whose random state is kept beside the CPU's."""
    return [device for device in {p.device for p in model.parameters()} if device.type == "cuda"]


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
