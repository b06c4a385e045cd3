"""MPI's own collective in steps: what it waits for while other calls move on and peers are heard."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from collx.agreement import WORDS, Traits
from collx.errors import MismatchError, RankFailedError
from collx.mpi.collectives import Collective
from collx.mpi.guard import Guard
from collx.mpi.kept import Kept
from collx.reference.lanes import COLLECTIVE, Lanes, Stamp
from collx.reference.progress import Driven, Steps
from collx.transports.mpi import MpiTransport
from collx.transports.mpi_calls import calls

PATIENCE = 0.05  # seconds that a collective may take before this rank asks whether another one has given it up


class Agreed:
    """Waits for the guard of the call `stamp`; RankFailedError where a rank has left without making that call."""

    def __init__(self, guard: Guard, transport: MpiTransport, stamp: Stamp) -> None:
        self._guard, self._transport, self._stamp = guard, transport, stamp

    def done(self) -> bool:
        gone = tuple(peer for peer in range(self._transport.size) if self._left(peer))
        with calls:
            if self._guard.done():
                return True
        if gone:
            ranks = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
            raise RankFailedError(f"rank {self._transport.rank} in {self._stamp}: {ranks} left before this call", gone)
        return False

    def _left(self, peer: int) -> bool:
        word = self._transport.parted(peer) if peer != self._transport.rank else None
        return word is not None and word < self._stamp.number

    def __str__(self) -> str:
        return "the other ranks to make this call"


class Request(Driven):
    """Waits for a request of MPI's, which may move only while it is asked for. `memory` is what it uses beside the
    caller's."""

    def __init__(self, request: Any, *memory: object) -> None:
        self._request, self._memory = request, memory

    def done(self) -> bool:
        with calls:
            ended = self.settled()
        if not ended:
            os.sched_yield()
        return ended

    def settled(self) -> bool:
        return bool(self._request.Test())

    def __str__(self) -> str:
        return "MPI's own collective, which all ranks have begun"


class Soon(Driven):
    """Waits for `request` for as long as it usually takes."""

    def __init__(self, request: Request) -> None:
        self._request, self._late = request, time.monotonic() + PATIENCE

    def done(self) -> bool:
        return self._request.done() or time.monotonic() > self._late

    def __str__(self) -> str:
        return str(self._request)


def compared(guard: Guard, transport: MpiTransport, lanes: Lanes, stamp: Stamp) -> Steps:
    """Go on when all ranks make the call `stamp`, of which the guard has been told, or raise MismatchError on all.

    Whoever leaves or fails instead, or makes a call in which ranks send each other messages, is found out meanwhile.
    """
    agreed = Agreed(guard, transport, stamp)
    if not agreed.done():
        lanes.listen(True)
        yield agreed
        lanes.listen(False)
    same, _ = guard.outcome()
    if not same:
        yield from _differing(transport, lanes, stamp)


def _differing(transport: MpiTransport, lanes: Lanes, stamp: Stamp) -> Steps:
    """What the ranks call: the first call that is another than this rank's is told."""
    mine = np.concatenate([[stamp.number], np.array([stamp.chain], np.uint64).view(np.int64), stamp.traits.words()])
    table = np.empty((transport.size, 2 + WORDS), np.int64)
    with calls:
        started = transport.comm.Iallgather([mine, MPI.INT64_T], [table, MPI.INT64_T])
    yield from _ended(Request(started, mine, table), transport, lanes)
    for peer, row in enumerate(table):
        theirs = Stamp(COLLECTIVE, int(row[0]), int(row[1:2].view(np.uint64)[0]), Traits.of(row[2:]))
        if theirs.chain != stamp.chain:
            raise lanes.calls.mismatch(stamp, theirs, peer)
    raise MismatchError(f"{stamp}: the ranks' calls differ, but say the same")


def performed(
    collective: Collective, source: int, target: int, transport: MpiTransport, lanes: Lanes, kept: Kept | None
) -> Steps:
    """Run it, by a request that is kept if there is one, and go on when it has ended on this rank."""
    made = collective.room()
    place = target if made is None else made.ctypes.data
    with calls:
        started = kept.start(collective, source, place) if kept else collective.start(source, place)
    yield from _ended(Request(started, made), transport, lanes)
    collective.finish(made, target)


def _ended(request: Request, transport: MpiTransport, lanes: Lanes) -> Steps:
    """Go on when it has. Where the call fails before, it stays with the transport, as MPI goes on; where it fails on
    another rank, which then need not call MPI any more, that is found out."""
    transport.under_way.add(request)
    yield Soon(request)
    if not request.done():
        lanes.listen(True)
        yield request
        lanes.listen(False)
    transport.under_way.discard(request)
