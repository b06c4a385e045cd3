"""torch's messages between two ranks, as collx's."""

from __future__ import annotations

from typing import Any

from collx.compat.torch.calls import Calls
from collx.compat.torch.tensors import landing, only
from collx.compat.torch.work import CollxWork


class Messages(Calls):
    """send and recv, always under way. Both sides agree on the number of bytes."""

    def send(self, tensors: Any, to: int, tag: int = 0) -> CollxWork:
        x = only(tensors, "tensors")
        return self._under_way(tensors, lambda: self.comm.send(x, to, tag, async_op=True))

    def recv(self, tensors: Any, source: int, tag: int = 0) -> CollxWork:
        here, finish = landing(only(tensors, "tensors"), filled=False)
        return self._under_way(tensors, lambda: self.comm.recv(here, source, tag, async_op=True), finish)

    def recv_anysource(self, tensors: Any, tag: int = 0) -> CollxWork:
        here, finish = landing(only(tensors, "tensors"), filled=False)
        comm: Any = self.comm
        return self._under_way(tensors, lambda: comm.recv_any(here, None, tag, async_op=True), finish)
