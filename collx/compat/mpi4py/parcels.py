"""Messages of Python objects, pickled."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from collx.compat.mpi4py.constants import ANY_SOURCE, ANY_TAG, PROC_NULL
from collx.compat.mpi4py.context import Part
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.messages import Message, unpickled
from collx.compat.mpi4py.pickling import dumped
from collx.compat.mpi4py.request import Request
from collx.compat.mpi4py.room import NONE, Room
from collx.compat.mpi4py.status import Status


class Parcels(Part):
    """send, recv and so on. What is sent is the object as it is at the call."""

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._send(_pickled(obj, dest), dest, tag)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._send(_pickled(obj, dest), dest, tag, synchronous=True)

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._bsend(_pickled(obj, dest), dest, tag)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._isend(_pickled(obj, dest), dest, tag))

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._isend(_pickled(obj, dest), dest, tag, synchronous=True))

    def ibsend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._bsend(_pickled(obj, dest), dest, tag))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """The object of the next message; None from PROC_NULL. `buf`, memory or a number of bytes, is not needed."""
        if buf is not None:
            warnings.warn("the 'buf' argument is deprecated", UserWarning, stacklevel=2)
            return self.irecv(buf, source, tag).wait(status)
        return unpickled(self._taken(source, tag, status, wait=True).data)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """buf: where its bytes go, or how many there may be, `mpi4py.rc.irecv_bufsz` by default. A longer message is an
        error."""
        return Request._of(self._irecv(_memory(buf), source, tag, unpickled))

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        sending = self.isend(sendobj, dest, sendtag)
        got = self.recv(recvbuf, source, recvtag, status)
        sending.wait()
        return got

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Literal[True]:
        return self.Probe(source, tag, status)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        return self.Iprobe(source, tag, status)

    def mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        return self.Mprobe(source, tag, status)

    def improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message | None:
        return self.Improbe(source, tag, status)


def _pickled(obj: Any, dest: int) -> Bytes:
    return NONE if dest == PROC_NULL else dumped(obj)


def _memory(buf: Any) -> Room:
    """Where an object's bytes are received."""
    if buf is None or isinstance(buf, int):
        from mpi4py import rc

        return Room(np.empty(buf or rc.irecv_bufsz, np.uint8))
    return Room(buf)
