"""The mpi transport: bytes between processes by mpi4py's point-to-point calls.

A receive is not posted before its message is there: MPI_Improbe tells how long it is, and only what has the right
length is let into the view. (Posted beforehand, a message that is too long may be cut in silence by Open MPI.) Large
ones are not delayed by that, as MPI moves their bytes only when they are asked for.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from mpi4py import MPI

from collx.errors import ClosedError, CollxError, MismatchError, RankFailedError, TimeoutError, TransportError
from collx.transports.mpi_calls import calls, threads
from collx.transports.waiting import Pause

# Counts of MPI are ints. A longer message is pieces of this many bytes, and a last one of fewer, which may be none: so
# every piece shows by its length whether the message has the length that is wanted.
PIECE = 1 << 30
FAREWELL = struct.Struct("=qq")  # how many pieces its rank has sent before, and its last word


class UnderWay(Protocol):
    def settled(self) -> bool:
        """Whether MPI no longer uses the memory. Called by a thread that may call MPI."""
        ...


class MpiTransport:
    """One rank's end of `comm`, an mpi4py communicator whose errors return, and which is the transport's from now on:
    it is freed when all of its ranks have closed theirs.

    Several ranks may live in one process, as those of a test do: with `rank` and `size` given, rank r is in process
    r % comm.size, and `comm` stays the caller's. A send completes when MPI says so: a small one at once, a large one
    when it is received.
    """

    name = "mpi"

    def __init__(self, comm: MPI.Comm, rank: int | None = None, size: int | None = None) -> None:
        self.comm = comm
        self.rank: int = comm.rank if rank is None else rank
        self.size: int = comm.size if size is None else size
        self._processes = comm.size  # asked now: MPI may be finalized when it is needed
        self.threads = threads()
        self.closed = False
        self.parting: Callable[[], bool] | None = None  # to be done, and whether it is, before `comm` is freed
        self.word = 0  # which peers are told when this end is closed
        self.under_way: set[UnderWay] = set()  # what MPI has not ended, also of calls that have failed
        self.held: object = None  # memory that this may use, to be kept for as long as it does
        self._lanes: dict[int, _Lane] = {}
        self._farewells: list[tuple[MPI.Request, bytes]] | None = None
        self._owner = rank is None
        sweep()

    def __repr__(self) -> str:
        return f"MpiTransport(rank {self.rank} of {self.size})"

    def reaches(self, peer: int) -> bool:
        return 0 <= peer < self.size and peer != self.rank

    def send(self, peer: int, view: memoryview) -> _Send:
        return _Send(self, self._lane(peer), view)

    def recv(self, peer: int, view: memoryview) -> _Receive:
        return _Receive(self, self._lane(peer), view)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            _closed.append(self)
            sweep()

    def parted(self, peer: int) -> int | None:
        """The last word of a rank that has closed its end, when all that it sent before was asked for and told."""
        lane = self._lane(peer)
        with calls:
            return lane.word if lane.farewell() and lane.last == lane.told else None

    def leave(self) -> bool:
        """Say farewell to all peers; whether they all have done so, and nothing is left to come or to go."""
        lanes = [self._lane(peer) for peer in range(self.size) if self.reaches(peer)]
        self.under_way = {one for one in self.under_way if not one.settled()}
        if not self.under_way:
            self.held = None
        if self.parting is not None and self.parting():
            self.parting = None
        if self._farewells is None:
            self._farewells = [lane.say_farewell(self.word) for lane in lanes]
        self._farewells = [said for said in self._farewells if not said[0].Test()]
        left = [lane.left() for lane in lanes]
        over = all(left) and not (self.under_way or self.parting or self._farewells)
        if over and self._owner:
            self.comm.Free()
        return over

    def _lane(self, peer: int) -> _Lane:
        if peer not in self._lanes:
            if not self.reaches(peer):
                raise TransportError(f"rank {self.rank}: the mpi transport does not reach rank {peer}")
            self._lanes[peer] = _Lane(self.comm, self._processes, self.rank, peer, self.size)
        return self._lanes[peer]


_closed: list[MpiTransport] = []  # those whose peers have not all closed theirs, or that have something under way
_retired: list[MPI.Comm] = []
_abandoned: list[tuple[Sequence[MPI.Request], object]] = []
_for_ever = (_closed, _abandoned)
# MPI_Finalize may still write where requests are under way, and comes after the interpreter has freed what it had.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_for_ever))


def retire(comm: MPI.Comm) -> None:
    """Free a communicator in which nothing is under way, as soon as that can be done."""
    _retired.append(comm)


def abandon(requests: Sequence[MPI.Request], memory: object) -> None:
    """Keep requests that nobody waits for any more, and the memory they use, until they have ended."""
    _abandoned.append((requests, memory))


def sweep() -> None:
    """Let go of what is no longer needed; later, where this thread may not call MPI."""
    if MPI.Is_initialized() and not MPI.Is_finalized() and calls.allowed():
        with calls:
            _closed[:] = [transport for transport in _closed if not transport.leave()]
            _abandoned[:] = [entry for entry in _abandoned if not MPI.Request.Testall(entry[0])]
            while _retired:
                _retired.pop().Free()


class _Lane:
    """What goes between this rank and `peer`, and in which order that is received."""

    def __init__(self, comm: MPI.Comm, processes: int, rank: int, peer: int, size: int) -> None:
        seats = -(-size // processes)  # ranks per process
        mine, theirs = rank // processes, peer // processes
        self.comm, self.peer, self.process = comm, peer, peer % processes
        self._out, self._into = 2 * (mine * seats + theirs), 2 * (theirs * seats + mine)  # tags; odd ones: farewells
        self._sent = self._received = 0  # pieces
        self.told = 0  # pieces that were received and asked for
        self.last: int | None = None  # how many pieces the peer has sent, once it has said farewell
        self.word = 0  # and its last word
        self.waiting: deque[_Receive] = deque()

    def send(self, piece: memoryview) -> MPI.Request:
        self._sent += 1
        return self.comm.Isend([piece, MPI.BYTE], self.process, self._out)

    def next(self) -> tuple[MPI.Message, int] | None:
        """The next piece that has come, as MPI's message, and its length."""
        status = MPI.Status()
        message = self.comm.Improbe(self.process, self._into, status)
        if message is None:
            return None
        self._received += 1
        return message, status.Get_count(MPI.BYTE)

    def say_farewell(self, word: int) -> tuple[MPI.Request, bytes]:
        said = FAREWELL.pack(self._sent, word)
        return self.comm.Isend([said, MPI.BYTE], self.process, self._out + 1), said

    def farewell(self) -> bool:
        """Whether the peer has closed its end."""
        if self.last is None and self.comm.Iprobe(self.process, self._into + 1):
            said = bytearray(FAREWELL.size)
            self.comm.Recv([said, MPI.BYTE], self.process, self._into + 1)
            self.last, self.word = FAREWELL.unpack(said)
        return self.last is not None

    def left(self) -> bool:
        """Whether nothing more comes from the peer."""
        return self.farewell() and self._received == self.last


class _Transfer:
    """What sends and receives have in common; see `base.Request`."""

    def __init__(self, transport: MpiTransport, lane: _Lane, view: memoryview) -> None:
        if transport.closed:
            raise self._closed(transport)
        flat = view.cast("B") if view.nbytes else memoryview(bytearray())
        self.transport, self.lane = transport, lane
        self.pieces = [flat[start : start + PIECE] for start in range(0, flat.nbytes + 1, PIECE)]
        self.requests: list[MPI.Request] = []  # of MPI, for some of the pieces
        self.ended = False
        self.error: CollxError | None = None

    def done(self) -> bool:
        if not self.ended:
            if self.transport.closed:
                self.end(self._closed(self.transport))
            else:
                with calls:
                    self.advance()
        if self.error is not None:
            raise self.error
        return self.ended

    def wait(self, timeout: float) -> None:
        deadline, pause = time.monotonic() + timeout, Pause()
        while not self.done():
            if time.monotonic() >= deadline:
                rank, peer = self.transport.rank, self.lane.peer
                raise TimeoutError(f"rank {rank}: nothing from or to rank {peer} within {timeout:g} s")
            pause()

    def advance(self) -> None:
        """Go on as far as possible without waiting."""
        raise NotImplementedError

    def settled(self) -> bool:
        """Whether MPI no longer uses the memory."""
        self.requests = [request for request in self.requests if not request.Test()]
        return not self.requests

    def end(self, error: CollxError | None = None) -> None:
        self.error, self.ended = error, True

    def lost(self, what: str) -> RankFailedError:
        rank, peer = self.transport.rank, self.lane.peer
        return RankFailedError(f"rank {rank}: rank {peer} left before {what}", (peer,))

    @staticmethod
    def _closed(transport: MpiTransport) -> ClosedError:
        return ClosedError(f"rank {transport.rank}: the mpi transport was closed")


class _Send(_Transfer):
    def __init__(self, transport: MpiTransport, lane: _Lane, view: memoryview) -> None:
        super().__init__(transport, lane, view)
        with calls:
            self.requests = [lane.send(piece) for piece in self.pieces]
        transport.under_way.add(self)

    def advance(self) -> None:
        gone = self.lane.farewell()  # looked at first: before a peer leaves it says what it has received
        if self.settled():
            self.transport.under_way.discard(self)
            self.end()
        elif gone:
            self.end(self.lost("what was sent to it was received"))


class _Receive(_Transfer):
    def __init__(self, transport: MpiTransport, lane: _Lane, view: memoryview) -> None:
        super().__init__(transport, lane, view)
        self.untold = len(self.pieces)
        with calls:
            lane.waiting.append(self)
            self.advance()  # what has come is on its way from now on, whoever asks next

    def advance(self) -> None:
        waiting = self.lane.waiting
        while waiting and waiting[0].taken_in():
            waiting.popleft()

    def done(self) -> bool:
        ended = super().done()
        if ended:
            self.lane.told, self.untold = self.lane.told + self.untold, 0
        return ended

    def taken_in(self) -> bool:
        """Take in what has come of this message, the first that the lane waits for; whether that was its end."""
        while self.pieces:
            if not self.requests and not self._matched():
                return self.ended
            if not self.settled():
                return False
            self.pieces.pop(0)
        self.transport.under_way.discard(self)
        self.end()
        return True

    def _matched(self) -> bool:
        """Whether the next piece has come and is let in."""
        came = self.lane.next()
        if came is None:
            if self.lane.left():
                self.end(self.lost("sending what is received from it"))
            return False
        message, nbytes = came
        room = self.pieces[0]
        if nbytes != room.nbytes:
            self._refused(message, nbytes)
            return False
        self.requests = [message.Irecv([room, MPI.BYTE])]
        self.transport.under_way.add(self)
        return True

    def _refused(self, message: MPI.Message, nbytes: int) -> None:
        rank, peer, wanted = self.transport.rank, self.lane.peer, sum(piece.nbytes for piece in self.pieces)
        self.pieces = [memoryview(bytearray(nbytes))]
        self.requests = [message.Irecv([self.pieces[0], MPI.BYTE])]  # or its sender would wait for ever
        self.transport.under_way.add(self)
        self.end(MismatchError(f"rank {rank}: rank {peer} sent {nbytes} bytes, the receive is of {wanted}"))
