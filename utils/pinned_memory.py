"""Page-locked staging of rows that lie in main memory, for a CUDA device that copies them by itself."""

from typing import Any

import torch
from torch import Tensor


class PinnedBuffers:
    """Gathers rows of a tensor into one of two page-locked buffers, so that ``.to(device, non_blocking=True)`` is.

    While the device works on one batch the host gathers the next, from a memory map say. A buffer is filled again only
    when the device has done everything that was enqueued before the following batch was asked for, the copy included.
    Without a CUDA device the buffers are ordinary memory.

    Args:
        store: ``(N, ...)`` in main memory or memory-mapped.
    """

    def __init__(self, store: Tensor):
        self.store = store
        self.pinned = torch.cuda.is_available()
        self.calls = 0
        self.buffers = [store[:0], store[:0]]
        self.done: list[Any] = [None, None]  # events of CUDA

    def __call__(self, index: Tensor) -> Tensor:
        """Rows ``index`` ``(B,)`` of the store, ``(B, ...)``: valid until the second call after this one."""
        slot, other = self.calls % 2, (self.calls + 1) % 2
        if self.pinned and self.calls > 0:
            self.done[other] = torch.cuda.Event()
            self.done[other].record()
        if self.done[slot] is not None:
            self.done[slot].synchronize()
        self.calls += 1
        if len(self.buffers[slot]) < len(index):
            shape = (len(index), *self.store.shape[1:])
            self.buffers[slot] = torch.empty(shape, dtype=self.store.dtype, pin_memory=self.pinned)
        return torch.index_select(self.store, 0, index, out=self.buffers[slot][: len(index)])
