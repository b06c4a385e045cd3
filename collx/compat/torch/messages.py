"""torch's messages between two ranks, as collx's."""

from __future__ import annotations

from functools import partial
from typing import Any

from collx.compat.torch.calls import UNDER_WAY, Call, Calls
from collx.compat.torch.tensors import landing, only
from collx.compat.torch.work import CollxWork


class Messages(Calls):
    """send and recv, always under way. Both sides agree on the number of bytes."""

    def send(self, tensors: Any, to: int, tag: int = 0) -> CollxWork | None:
        method = partial(self.comm.send, only(tensors, "tensors"), to, tag)
        return self._run(UNDER_WAY, Call(method, tensors), self._glancing)

    def recv(self, tensors: Any, source: int, tag: int = 0) -> CollxWork | None:
        here, finish = landing(only(tensors, "tensors"), filled=False)
        return self._run(UNDER_WAY, Call(partial(self.comm.recv, here, source, tag), tensors, finish), self._glancing)

    def recv_anysource(self, tensors: Any, tag: int = 0) -> CollxWork | None:
        here, finish = landing(only(tensors, "tensors"), filled=False)
        return self._run(UNDER_WAY, Call(partial(self.comm.recv_any, here, None, tag), tensors, finish), self._glancing)
