"""What happens around a capture that fails, with streams that only record who waits for whom: no GPU is needed."""

import contextlib
import warnings

import pytest
import torch

from utils import cuda_graph
from utils.errors import UserError


class Stream:
    waited: list = []  # noqa: RUF012  of all streams together: reset by the fixture

    def wait_stream(self, other):
        Stream.waited.append((self, other))


@pytest.fixture
def device(monkeypatch):
    default, modes = Stream(), []
    monkeypatch.setattr(Stream, "waited", [])

    def set_mode(mode):
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        modes.append(mode)

    @contextlib.contextmanager
    def graph(graph, stream):
        modes.append("capture")
        yield

    for name, value in {
        "Stream": Stream, "current_stream": lambda: default, "stream": lambda stream: contextlib.nullcontext(),
        "set_sync_debug_mode": set_mode, "CUDAGraph": object, "graph": graph,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return default, modes


def test_the_default_stream_waits_also_after_a_failure(device):
    default, modes = device
    with pytest.raises(RuntimeError, match="reads a value"):
        cuda_graph.cuda_graph(lambda: (_ for _ in ()).throw(RuntimeError("reads a value")))
    (side, first), (second, waited_for) = Stream.waited
    assert first is second is default and waited_for is side
    assert modes == []


def test_a_failure_inside_the_capture_says_what_to_do(device):
    _, modes = device

    def function():
        if modes[-1:] == ["capture"]:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")

    with warnings.catch_warnings(), pytest.raises(UserError, match=r"stream is capturing\): use --eager"):
        warnings.simplefilter("error")  # the debug mode's own warning is not shown
        cuda_graph.cuda_graph(function)
    assert modes == ["error", "default", "capture"]
