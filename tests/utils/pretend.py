"""A device that is no device: its tensors lie in main memory, and mixing them with the CPU's is an error as on a GPU.

What a script does with ``--gpu`` can so be tested without one: a tensor that was left on the CPU, a NumPy array made of
one on the device, how often the host waits for a value, and what a CUDA graph would leave out (``Graph``). Not streams,
page-locked memory or TF32. PyTorch lets such a device be written in Python, by an interface that is not public yet.
"""

import contextlib

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
COPIES = ("aten::_to_copy", "aten::copy_", "aten::copy")
INDEXED = ("aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put")  # by a CPU tensor: allowed
# Whose result has a size, or a value, that the host must know.
READING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal")
READING = (*READING, "aten::_linalg_svd", "aten::_linalg_eigh")  # whether they have converged


class Module:
    """What stands where ``torch.cuda`` stands for CUDA; random numbers are the CPU's."""

    reads = 0  # times that the host has waited
    reading_allowed = True
    tape: list | None = None  # of the graph that is being captured

    def read(self) -> None:
        """The host waits for the device. Raises RuntimeError where it must not."""
        if not self.reading_allowed:
            raise RuntimeError("the host waits for the device")
        self.reads += 1

    def set_sync_debug_mode(self, mode: str) -> None:
        self.reading_allowed = mode != "error"

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.set_rng_state(state)


class PretendTensor(torch.Tensor):
    """Says that it is on the device; ``held`` is the CPU tensor with its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "PretendTensor":
        place = {"storage_offset": held.storage_offset(), "dtype": held.dtype, "device": torch.device(NAME, 0)}
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), strides=held.stride(), **place)
        made.held = held
        return made

    def __init__(self, held: torch.Tensor):
        pass

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor on the device is no NumPy array: it must be copied to the CPU first")

    __array__ = numpy

    def tolist(self):
        module.read()
        return self.held.tolist()

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)


@torch.no_grad()
def compute(function, args: tuple, kwargs: dict):
    """An operation of PyTorch with the values on the CPU, its result where it belongs.

    Raises:
        RuntimeError: it has tensors here and there, other than single numbers of the CPU.
    """
    name = function._schema.name
    if name == "aten::convolution_overrideable":
        function = torch.ops.aten.convolution.default
    elif name == "aten::convolution_backward_overrideable":
        gradient, x, weight, *how, mask = args
        channels = weight.shape[1] * how[-1] if how[3] else weight.shape[0]  # how: stride ... transposed ... groups
        args = (gradient, x, weight, [channels] if mask[2] else None, *how, mask)
        function = torch.ops.aten.convolution_backward.default

    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, PretendTensor)}
    target = kwargs.get("device")
    stays = target.type == NAME if target is not None else bool(here)
    crosses = len(here) < len({id(tensor) for tensor in tensors}) or stays != bool(here)
    masked = name in INDEXED and any(tensor.dtype == torch.bool for tensor in tensors[1:])
    if name in READING or masked or (name in COPIES and crosses):
        module.read()
    if here and name not in COPIES:
        for tensor in tensors:
            index = name in INDEXED and tensor.dtype in (torch.int64, torch.bool)
            if not isinstance(tensor, PretendTensor) and tensor.dim() > 0 and not index:
                raise RuntimeError(f"{name}: tensors on {NAME} and on the CPU ({tuple(tensor.shape)})")

    def plain(value):
        if isinstance(value, PretendTensor):
            return value.held
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        return here[id(value)] if id(value) in here else PretendTensor(value)

    call = tree_map(plain, args), tree_map(plain, kwargs)
    result = function(*call[0], **call[1])
    if module.tape is not None and "empty" not in name:  # memory without values, that may be given another size
        module.tape.append((function, *call, result))
    if name.endswith("_"):  # in place
        return args[0] if isinstance(args[0], torch.Tensor) else None
    return tree_map(placed, result) if stays else result


class Graph:
    """Stands for ``torch.cuda.CUDAGraph``: the operations that were captured, done again on the same memory.

    Without the Python between them, as in a real one: a number that Python counts up stays what it was.
    """

    def __init__(self):
        self.tape: list = []

    @contextlib.contextmanager
    def capture(self):
        """Stands for ``torch.cuda.graph``."""
        module.tape = self.tape
        try:
            yield
        finally:
            module.tape = None

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self.tape:
            again = tree_leaves(function(*args, **kwargs))
            for old, new in zip(tree_leaves(result), again, strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # neither in place nor a view
                    old.copy_(new)


class Stream:
    """Stands for ``torch.cuda.Stream``: everything is done when it is asked for."""

    def wait_stream(self, other: "Stream") -> None:
        pass


def stand_in(monkeypatch) -> None:
    """What ``torch.cuda`` has for capturing a graph."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", module.set_sync_debug_mode)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: graph.capture())


module = Module()
library = torch.library.Library("_", "IMPL")  # kept, or its registration would go


def register() -> bool:
    """Make the device known to PyTorch; false where this version does not take it, or where there is a real device."""
    if torch.cuda.is_available():
        return False
    try:
        backend_registration._setup_privateuseone_for_python_backend(NAME, module)
        library.fallback(lambda function, *args, **kwargs: compute(function, args, kwargs), "PrivateUse1")
        return torch.zeros(2, device=NAME).add(1).tolist() == [1, 1]
    except (AttributeError, TypeError, RuntimeError, NotImplementedError):
        return False


SUPPORTED = register()
