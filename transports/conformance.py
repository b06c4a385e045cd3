"""What every transport must do: a suite for ours and for a third party's.

`make(size)` is a context manager that yields one connected transport per rank, all in this process; each is
driven from a thread of its own. Run every check of CHECKS:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(make)

A check asserts; it raises whatever the transport raised where that was not asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from collx.errors import ClosedError, MismatchError, RankFailedError, TimeoutError
from collx.transports.base import Request, Transport

Make = Callable[[int], AbstractContextManager[Sequence[Transport]]]
Check = Callable[[Make], None]
T = TypeVar("T")

DEADLINE = 30.0  # seconds that a transfer may take before it counts as lost
LARGE = (8 << 20) + 13

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def run_threads(size: int, body: Callable[[int], T], deadline: float = 120.0) -> list[T]:
    """`body(rank)` for every rank, each in a thread; their results by rank, or the first failure in time.

    Raises AssertionError naming the ranks that have not returned after `deadline` seconds.
    """
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = body(rank)
        except BaseException as failure:  # raised again by the caller's thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    if failures:
        raise failures[0]
    hanging = [thread.name for thread in threads if thread.is_alive()]
    assert not hanging, f"{', '.join(hanging)} did not return within {deadline:g} s"
    return [results[rank] for rank in range(size)]


def _pattern(nbytes: int, seed: int) -> bytes:
    """Bytes that differ by seed and place, with a period that no power of two divides."""
    unit = bytes((seed * 31 + place * 7) % 256 for place in range(251))
    return (unit * (nbytes // 251 + 1))[:nbytes]


def _send(transport: Transport, peer: int, data: bytes) -> Request:
    return transport.send(peer, memoryview(data))


def _take(transport: Transport, peer: int, nbytes: int) -> bytes:
    room = bytearray(nbytes)
    transport.recv(peer, memoryview(room)).wait(DEADLINE)
    return bytes(room)


def _raised(expected: type[BaseException], call: Callable[[], object]) -> BaseException:
    try:
        call()
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was not raised")


@check
def states_its_place(make: Make) -> None:
    """name, rank and size are what they should be, and reaches() is symmetric."""
    with make(3) as ranks:
        assert [t.rank for t in ranks] == [0, 1, 2]
        assert all(t.size == 3 and t.name and isinstance(t, Transport) for t in ranks)
        for one in ranks:
            for other in ranks:
                if one is not other:
                    assert one.reaches(other.rank) is other.reaches(one.rank) is True


@check
def keeps_order(make: Make) -> None:
    """Messages between two ranks arrive in the order they were sent, whatever their lengths."""
    lengths = [(7 * i * i) % 3000 for i in range(60)]
    with make(2) as ranks:

        def body(rank: int) -> None:
            if rank == 0:
                messages = [_pattern(n, i) for i, n in enumerate(lengths)]
                for request in [_send(ranks[0], 1, m) for m in messages]:
                    request.wait(DEADLINE)
            else:
                for i, n in enumerate(lengths):
                    assert _take(ranks[1], 0, n) == _pattern(n, i)

        run_threads(2, body)


@check
def receives_may_come_first(make: Make) -> None:
    """Receives posted before the sends, several at once, fill in order; done() turns true and stays so."""
    with make(2) as ranks:

        def body(rank: int) -> None:
            mine, peer = ranks[rank], 1 - rank
            rooms = [bytearray(100 + i) for i in range(10)]
            receives = [mine.recv(peer, memoryview(room)) for room in rooms]
            messages = [_pattern(100 + i, i + peer) for i in range(10)]
            sends = [_send(mine, peer, _pattern(100 + i, i + rank)) for i in range(10)]
            for request in receives + sends:
                request.wait(DEADLINE)
                assert request.done()
            assert [bytes(room) for room in rooms] == messages

        run_threads(2, body)


@check
def carries_nothing(make: Make) -> None:
    """Zero-length messages are messages: they keep their place between others."""
    with make(2) as ranks:

        def body(rank: int) -> None:
            if rank == 0:
                for request in [_send(ranks[0], 1, m) for m in (b"", b"a", b"", b"", b"bc")]:
                    request.wait(DEADLINE)
            else:
                assert [_take(ranks[1], 0, n) for n in (0, 1, 0, 0, 2)] == [b"", b"a", b"", b"", b"bc"]

        run_threads(2, body)


@check
def carries_much_both_ways(make: Make) -> None:
    """Large messages in both directions at once: neither side waits for the other to receive first."""
    with make(2) as ranks:

        def body(rank: int) -> None:
            peer, data = 1 - rank, _pattern(LARGE, rank)
            send = _send(ranks[rank], peer, data)
            assert _take(ranks[rank], peer, LARGE) == _pattern(LARGE, peer)
            send.wait(DEADLINE)

        run_threads(2, body)


@check
def serves_many_peers(make: Make) -> None:
    """Everybody sends to everybody at once; each message reaches the one it was meant for."""
    size = 6
    with make(size) as ranks:

        def body(rank: int) -> None:
            mine = ranks[rank]
            peers = [peer for peer in range(size) if peer != rank]
            messages = {peer: _pattern(1000 + 10 * rank + peer, 10 * rank + peer) for peer in peers}
            sends = [_send(mine, peer, messages[peer]) for peer in peers]
            for peer in reversed(peers):
                assert _take(mine, peer, 1000 + 10 * peer + rank) == _pattern(1000 + 10 * peer + rank, 10 * peer + rank)
            for request in sends:
                request.wait(DEADLINE)

        run_threads(size, body)


@check
def works_on_parts_of_buffers(make: Make) -> None:
    """A view of the middle of a buffer, of items wider than a byte: its bytes are taken, its surroundings are not."""
    with make(2) as ranks:

        def body(rank: int) -> None:
            if rank == 0:
                doubles: memoryview[Any] = memoryview(_pattern(80, 3)).cast("d")
                ranks[0].send(1, doubles[2:5]).wait(DEADLINE)
            else:
                room = bytearray(b"." * 40)
                ranks[1].recv(0, memoryview(room)[8:32]).wait(DEADLINE)
                assert bytes(room) == b"." * 8 + _pattern(80, 3)[16:40] + b"." * 8

        run_threads(2, body)


@check
def keeps_deadlines(make: Make) -> None:
    """wait() raises TimeoutError when nothing comes; the transfer goes on and may be waited for again."""
    with make(2) as ranks:
        late = threading.Event()

        def body(rank: int) -> None:
            if rank == 0:
                assert late.wait(DEADLINE)
                _send(ranks[0], 1, b"late").wait(DEADLINE)
            else:
                room = bytearray(4)
                request = ranks[1].recv(0, memoryview(room))
                assert not request.done()
                _raised(TimeoutError, lambda: request.wait(0.02))
                late.set()
                request.wait(DEADLINE)
                assert room == b"late"

        run_threads(2, body)


@check
def insists_on_lengths(make: Make) -> None:
    """A message that is longer or shorter than its receive raises MismatchError there, and writes nothing beyond it."""
    _mismatched(make, 5)
    _mismatched(make, 3)


def _mismatched(make: Make, sent: int) -> None:
    seen = threading.Event()
    with make(2) as ranks:

        def body(rank: int) -> None:
            if rank == 0:
                _send(ranks[0], 1, b"x" * sent)
                assert seen.wait(DEADLINE)
            else:
                room = bytearray(b"." * 8)
                request = ranks[1].recv(0, memoryview(room)[:4])
                _raised(MismatchError, lambda: request.wait(DEADLINE))
                _raised(MismatchError, request.done)
                seen.set()
                assert room[4:] == b"...."

        run_threads(2, body)


@check
def closes_for_good(make: Make) -> None:
    """close() may be called twice, fails transfers under way with ClosedError, and so do later calls."""
    with make(2) as ranks:
        request = ranks[0].recv(1, memoryview(bytearray(4)))
        ranks[0].close()
        ranks[0].close()
        _raised(ClosedError, lambda: request.wait(DEADLINE))
        _raised(ClosedError, lambda: ranks[0].send(1, memoryview(b"x")).wait(DEADLINE))
        _raised(ClosedError, lambda: ranks[0].recv(1, memoryview(bytearray(1))).wait(DEADLINE))


@check
def tells_who_left(make: Make) -> None:
    """A receive from a rank that closed raises RankFailedError naming it, also where it was waiting already."""
    with make(3) as ranks:
        room = bytearray(4)
        request = ranks[0].recv(1, memoryview(room))
        ranks[1].close()
        for call in (lambda: request.wait(DEADLINE), lambda: ranks[2].recv(1, memoryview(room)).wait(DEADLINE)):
            error = _raised(RankFailedError, call)
            assert isinstance(error, RankFailedError)
            assert error.ranks == (1,)
        run_threads(2, lambda i: _send(ranks[0], 2, b"on").wait(DEADLINE) if i == 0 else _take(ranks[2], 0, 2))


@check
def delivers_what_was_sent(make: Make) -> None:
    """A send that completed arrives, even where its rank closed before it was received."""
    with make(2) as ranks:
        send = _send(ranks[0], 1, b"farewell")
        room = bytearray(8)
        try:
            send.wait(0.1)
        except TimeoutError:  # a rendezvous: it cannot complete before
            request = ranks[1].recv(0, memoryview(room))
            send.wait(DEADLINE)
            ranks[0].close()
            request.wait(DEADLINE)
        else:
            ranks[0].close()
            ranks[1].recv(0, memoryview(room)).wait(DEADLINE)
        assert room == b"farewell"
