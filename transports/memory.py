"""Ranks as threads of one process: the reference transport, and the double that tests run other code on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from threading import Condition
from typing import Any

from collx.errors import ClosedError, CollxError, MismatchError, RankFailedError, TimeoutError, TransportError
from collx.transports.base import Threads


class MemoryHub:
    """What the `size` ranks of one process share. With `rendezvous` a send completes when it is received,
    without it as soon as its bytes are copied, so that tests can hold code to rely on neither."""

    def __init__(self, size: int, *, rendezvous: bool = False) -> None:
        if size < 1:
            raise ValueError(f"a hub of {size} ranks; it takes at least 1")
        self.size = size
        self.rendezvous = rendezvous
        self.changed = Condition()
        self.gone: dict[int, str] = {}  # rank -> how it went
        self._sent: dict[tuple[int, int], deque[_Request]] = {}
        self._wanted: dict[tuple[int, int], deque[_Request]] = {}
        self.answers: dict[Hashable, Any] = {}

    def fail(self, rank: int) -> None:
        """Play the death of `rank`: what it has sent and nobody has received is lost, peers that need it are told."""
        self._leave(rank, "died", lambda request: rank in request.lane)

    def close(self, rank: int) -> None:
        """Take `rank` out; what it has completely sent still arrives."""
        self._leave(rank, "left", lambda request: rank in request.lane and not request.ended)

    def start(self, request: _Request) -> None:
        """Match `request` with the other side, or queue it, or fail it where the other side is gone."""
        with self.changed:
            if request.rank in self.gone:
                raise ClosedError(f"rank {request.rank}: the memory transport is closed")
            lane = request.lane
            sent, wanted = self._sent.setdefault(lane, deque()), self._wanted.setdefault(lane, deque())
            queue = sent if request.sends else wanted
            queue.append(request)
            while sent and wanted:
                _transfer(sent.popleft(), wanted.popleft())
            if not request.ended and request.peer in self.gone:
                queue.pop()
                request.end(self._lost(request))
            elif request.sends and not request.ended and not self.rendezvous:
                request.view = memoryview(bytes(request.view))
                request.end()
            self.changed.notify_all()

    def _leave(self, rank: int, how: str, drops: Callable[[_Request], bool]) -> None:
        with self.changed:
            if rank in self.gone:
                return
            self.gone[rank] = how
            for queues in (self._sent, self._wanted):
                for lane, queue in queues.items():
                    dropped = [request for request in queue if drops(request)]
                    queues[lane] = deque(request for request in queue if request not in dropped)
                    for request in dropped:
                        request.end(self._lost(request))
            self.changed.notify_all()

    def _lost(self, request: _Request) -> CollxError:
        if request.rank in self.gone:
            return ClosedError(f"rank {request.rank}: the memory transport was closed")
        what = "what was sent to it was received" if request.sends else "sending what is received from it"
        text = f"rank {request.rank}: rank {request.peer} {self.gone[request.peer]} before {what}"
        return RankFailedError(text, (request.peer,))


class _Request:
    def __init__(self, hub: MemoryHub, rank: int, peer: int, view: memoryview, *, sends: bool) -> None:
        self.hub, self.rank, self.peer, self.sends = hub, rank, peer, sends
        self.lane = (rank, peer) if sends else (peer, rank)
        self.view = view.cast("B") if view.nbytes else memoryview(bytearray())
        self.ended = False
        self.error: CollxError | None = None

    def end(self, error: CollxError | None = None) -> None:
        self.error, self.ended = error, True

    def done(self) -> bool:
        if self.ended and self.error:
            raise self.error
        return self.ended

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self.hub.changed:
            while not self.done():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"rank {self.rank}: nothing from or to rank {self.peer} within {timeout:g} s")
                self.hub.changed.wait(left)


def _transfer(send: _Request, recv: _Request) -> None:
    got, room = send.view.nbytes, recv.view.nbytes
    if got == room:
        recv.view[:] = send.view
        recv.end()
    else:
        recv.end(MismatchError(f"rank {recv.rank}: rank {send.rank} sent {got} bytes, the receive is of {room}"))
    if not send.ended:
        send.end()


class MemoryTransport:
    """Rank `rank`'s end of a hub."""

    name = "memory"
    threads = Threads.ANY

    def __init__(self, hub: MemoryHub, rank: int) -> None:
        if not 0 <= rank < hub.size:
            raise ValueError(f"rank {rank} is not in a hub of {hub.size}")
        self.hub = hub
        self.rank = rank
        self.size = hub.size

    def __repr__(self) -> str:
        return f"MemoryTransport(rank {self.rank} of {self.size})"

    def reaches(self, peer: int) -> bool:
        return 0 <= peer < self.size and peer != self.rank

    def send(self, peer: int, view: memoryview) -> _Request:
        return self._started(_Request(self.hub, self.rank, peer, view, sends=True))

    def recv(self, peer: int, view: memoryview) -> _Request:
        return self._started(_Request(self.hub, self.rank, peer, view, sends=False))

    def close(self) -> None:
        self.hub.close(self.rank)

    def decide(self, question: Hashable, answer: Any) -> Any:
        with self.hub.changed:
            return self.hub.answers.setdefault(question, answer)

    def decided(self, question: Hashable) -> Any:
        return self.hub.answers.get(question)

    def gone(self) -> tuple[list[int], list[int]]:
        with self.hub.changed:
            died, left = ([rank for rank, how in self.hub.gone.items() if how == fate] for fate in ("died", "left"))
        return died, left

    def _started(self, request: _Request) -> _Request:
        if not self.reaches(request.peer):
            raise TransportError(f"rank {self.rank}: the memory transport does not reach rank {request.peer}")
        self.hub.start(request)
        return request
