"""Messages between two ranks, of buffers; and what is found of them before they are received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np

from collx import Work
from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import ANY_SOURCE, ANY_TAG, ERR_RANK, ERR_REQUEST, ERR_TAG, ERR_TRUNCATE, PROC_NULL
from collx.compat.mpi4py.context import Part, number
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.handle import Handle, Kept
from collx.compat.mpi4py.info import Info
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.operation import Both, Nowhere, Operation, Persistent, Transfer
from collx.compat.mpi4py.pickling import loaded
from collx.compat.mpi4py.request import Prequest, Request
from collx.compat.mpi4py.room import NONE, Room, sent
from collx.compat.mpi4py.status import Status
from collx.errors import CollxError
from collx.types import Envelope

TAG_BOUND = 2**31 - 1


class Messages(Part):
    """Send, Recv and so on. All name ranks and tags as MPI does; PROC_NULL is nobody."""

    # -- sending ---------------------------------------------------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Return when `buf` may be changed again."""
        self._send(sent(buf, dest), dest, tag)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Return when it is being received."""
        self._send(sent(buf, dest), dest, tag, synchronous=True)

    def Bsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Return at once: a copy is sent. No buffer need be attached."""
        self._bsend(sent(buf, dest), dest, tag)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._isend(sent(buf, dest), dest, tag))

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._isend(sent(buf, dest), dest, tag, synchronous=True))

    def Ibsend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        return Request._of(self._bsend(sent(buf, dest), dest, tag))

    def Send_init(self, buf: Any, dest: int, tag: int = 0) -> Prequest:
        return self._persistent(lambda: self._isend(sent(buf, dest), dest, tag), sent(buf, dest))

    def Ssend_init(self, buf: Any, dest: int, tag: int = 0) -> Prequest:
        return self._persistent(lambda: self._isend(sent(buf, dest), dest, tag, synchronous=True), sent(buf, dest))

    def Bsend_init(self, buf: Any, dest: int, tag: int = 0) -> Prequest:
        return self._persistent(lambda: self._bsend(sent(buf, dest), dest, tag), sent(buf, dest))

    Rsend, Irsend, Rsend_init = Send, Isend, Send_init

    # -- receiving -------------------------------------------------------------------------------------

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        if source == PROC_NULL:
            return _nothing(status)
        room = Room(buf)
        envelope = self._recv(room.array, source, tag)
        room.landed(envelope.nbytes)
        if status is not None:
            self._tell(status, envelope)

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        return Request._of(self._irecv(Room(buf, source), source, tag))

    def Recv_init(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Prequest:
        return self._persistent(lambda: self._irecv(Room(buf, source), source, tag), Room(buf, source))

    # -- both ------------------------------------------------------------------------------------------

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        self.Isendrecv(sendbuf, dest, sendtag, recvbuf, source, recvtag).Wait(status)

    def Isendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
    ) -> Request:
        return self._both(sent(sendbuf, dest), Room(recvbuf, source), dest, sendtag, source, recvtag)

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        self.Isendrecv_replace(buf, dest, sendtag, source, recvtag).Wait(status)

    def Isendrecv_replace(
        self, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE, recvtag: int = ANY_TAG
    ) -> Request:
        return self._both(np.array(sent(buf, dest)), Room(buf, source), dest, sendtag, source, recvtag)

    # -- before receiving ------------------------------------------------------------------------------

    def Probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Literal[True]:
        """Wait for a message, which is still to be received."""
        self._probed(source, tag, status, wait=True)
        return True

    def Iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Whether there is one."""
        return self._probed(source, tag, status, wait=False)

    def Mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        """Wait for a message, which nothing else will receive than what is returned."""
        message = self._matched(source, tag, status, wait=True)
        assert message is not None
        return message

    def Improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message | None:
        return self._matched(source, tag, status, wait=False)

    def Psend_init(self, buf: Any, partitions: int, dest: int, tag: int = 0, info: Info | None = None) -> Prequest:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Comm.Psend_init")

    def Precv_init(
        self, buf: Any, partitions: int, source: int = ANY_SOURCE, tag: int = ANY_TAG, info: Info | None = None
    ) -> Prequest:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Comm.Precv_init")

    # -- by collx --------------------------------------------------------------------------------------

    def _send(self, data: Bytes, dest: int, tag: int, synchronous: bool = False) -> None:
        to = self._peer(dest, PROC_NULL)
        if to is not None:
            try:
                self._ranks.send(data, to, _tag(tag), synchronous=synchronous)
            except CollxError as error:
                self._fail(Failure(error), error)

    def _isend(self, data: Bytes, dest: int, tag: int, synchronous: bool = False) -> Operation:
        to = self._peer(dest, PROC_NULL)
        if to is None:
            return Nowhere()
        return Transfer(self._started(data, to, tag, synchronous), fail=self._lasting()._fail)

    def _bsend(self, data: Bytes, dest: int, tag: int) -> Operation:
        """Send a copy, whose memory is the communicator's to keep; done at once."""
        context, to = self._context, self._peer(dest, PROC_NULL)
        if to is None:
            return Nowhere()
        work = self._started(np.array(data), to, tag)
        context.buffered = [*(work for work in context.buffered if not work.done()), work]
        return Operation()

    def _started(self, data: Bytes, to: int, tag: int, synchronous: bool = False) -> Work:
        try:
            work = self._ranks.send(data, to, _tag(tag), async_op=True, synchronous=synchronous)
        except CollxError as error:
            self._fail(Failure(error), error)
        assert work is not None
        return work

    def _recv(self, out: Bytes, source: int, tag: int) -> Envelope:
        try:
            envelope: Envelope = self._ranks.recv_any(out, self._peer(source, ANY_SOURCE), _wanted(tag))
        except CollxError as error:
            self._fail(Failure(error), error)
        return envelope

    def _irecv(
        self,
        room: Room,
        source: int,
        tag: int,
        load: Callable[[Any], Any] | None = None,
    ) -> Operation:
        """Receive into `room`; `load` makes an object of the bytes that came."""
        if source == PROC_NULL:
            return Nowhere()
        try:
            work: Work = self._ranks.recv_any(room.array, self._peer(source, ANY_SOURCE), _wanted(tag), async_op=True)
        except CollxError as error:
            self._fail(Failure(error), error)
        lasting = self._lasting()

        def ended(envelope: Envelope, status: Status) -> Any:
            room.landed(envelope.nbytes)
            lasting._tell(status, envelope)
            return room.data[: envelope.nbytes] if load is not None else None

        return Transfer(work, ended, load, lasting._fail, room.scattered)

    def _both(self, data: Bytes, room: Room, dest: int, sendtag: int, source: int, recvtag: int) -> Request:
        self._peer(dest, PROC_NULL)  # what is wrong with the sending is told before a receive is posted
        _tag(sendtag)
        return Request._of(Both(self._irecv(room, source, recvtag), self._isend(data, dest, sendtag)))

    def _persistent(self, begin: Callable[[], Operation], checked: object) -> Prequest:
        """`checked` is what begin makes of the buffer, now, so that what is wrong with it is told here."""
        return Prequest._of(Persistent(begin))

    def _find(self, source: int, tag: int, wait: bool) -> Envelope | None:
        try:
            return self._ranks.probe(self._peer(source, ANY_SOURCE), _wanted(tag), wait=wait)
        except CollxError as error:
            self._fail(Failure(error), error)

    def _probed(self, source: int, tag: int, status: Status | None, wait: bool) -> bool:
        if source == PROC_NULL:
            _nothing(status)
            return True
        envelope = self._find(source, tag, wait)
        if envelope is not None and status is not None:
            self._tell(status, envelope)
        return envelope is not None

    def _matched(self, source: int, tag: int, status: Status | None, wait: bool) -> Message | None:
        found = self._taken(source, tag, status, wait)
        return None if found is None else Message._of(found)

    def _taken(self, source: int, tag: int, status: Status | None, wait: bool) -> Found | None:
        """The next message, received; None where there is none and nobody is to wait."""
        if source == PROC_NULL:
            _nothing(status)
            return NO_PROC
        while True:
            with self._context.taking:  # another thread that looks as well takes another one
                envelope = self._find(source, tag, wait=False)
                if envelope is not None:
                    found = Found(np.empty(envelope.nbytes, np.uint8), self._number(envelope.source), envelope.tag)
                    self._recv(found.data, found.source, found.tag)
                    break
            if not wait:
                return None
            self._find(source, tag, wait=True)
        if status is not None:
            self._tell(status, envelope)
        return found

    def _peer(self, rank: int, nobody: int) -> int | None:
        """The rank of collx's communicator that this one is, None for `nobody`."""
        context, rank = self._context, number(rank)
        if 0 <= rank < context.peers:
            return rank + context.away
        if rank == nobody:
            return None
        self._fail(errors.Exception(ERR_RANK, f"{rank} is no rank in a communicator of {context.peers}"))

    def _number(self, rank: int) -> int:
        """The other way round."""
        return rank - self._context.away

    def _tell(self, status: Status, envelope: Envelope) -> None:
        status._tell(self._number(envelope.source), envelope.tag, envelope.nbytes)


class Found(Kept):
    """A message that has been taken out of the order in which others are received."""

    def __init__(self, data: Bytes, source: int, tag: int) -> None:
        self.data, self.source, self.tag = data, source, tag


NO_PROC = Found(NONE, PROC_NULL, ANY_TAG)


class Message(Handle):
    """A message that was found, for this to receive."""

    null = "MESSAGE_NULL"
    invalid = ERR_REQUEST

    @classmethod
    def Probe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Self:
        return cls(comm.Mprobe(source, tag, status))

    @classmethod
    def Iprobe(
        cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Self | None:
        found = comm.Improbe(source, tag, status)
        return None if found is None else cls(found)

    probe, iprobe = Probe, Iprobe

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        self.Irecv(buf).Wait(status)

    def Irecv(self, buf: Any) -> Request:
        found = self._take()
        if found.source == PROC_NULL:
            return Request._of(Nowhere())
        room = Room(buf)
        if len(found.data) > len(room.data):
            told = f"{len(found.data)} bytes came from rank {found.source}, but there is room for {len(room.data)}"
            raise errors.Exception(ERR_TRUNCATE, told)
        room.data[: len(found.data)] = found.data
        room.landed(len(found.data))
        return Request._of(Received(found))

    def recv(self, status: Status | None = None) -> Any:
        return self.irecv().wait(status)

    def irecv(self) -> Request:
        found = self._take()
        return Request._of(Nowhere() if found.source == PROC_NULL else Received(found, unpickled))

    def _take(self) -> Found:
        found: Found = self._kept()
        if self._constant is None:
            self._it = None
        return found


class Received(Operation):
    """The receiving of what was found, which is done."""

    def __init__(self, found: Found, load: Callable[[Any], Any] | None = None) -> None:
        self._found, self._load = found, load

    def complete(self, status: Status) -> None:
        status._tell(self._found.source, self._found.tag, len(self._found.data))

    def result(self) -> Any:
        return None if self._load is None else self._load(self._found.data)


MESSAGE_NULL = Message._of(None, "MESSAGE_NULL")
MESSAGE_NO_PROC = Message._of(NO_PROC, "MESSAGE_NO_PROC")


def unpickled(data: Bytes) -> Any:
    """The object of a message, None for one without bytes."""
    return loaded(data) if len(data) else None


def _nothing(status: Status | None) -> None:
    """What a receive from nobody tells."""
    if status is not None:
        status._tell(source=PROC_NULL)


def _tag(tag: int) -> int:
    tag = number(tag)
    if not 0 <= tag <= TAG_BOUND:
        raise errors.Exception(ERR_TAG, f"{tag} is no tag: they are 0 to {TAG_BOUND}")
    return tag


def _wanted(tag: int) -> int | None:
    return None if tag == ANY_TAG else _tag(tag)
