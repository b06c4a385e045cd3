"""What the ranks of a communicator find out of each other before their first call on GPUs: whether they can share
memory, which of them share a GPU, and how they wait for each other. All of them find the same."""

from __future__ import annotations

import ctypes
import json
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from collx.cuda.barriers import EVENTS, MODES, Barrier, EventBarrier, HostBarrier
from collx.cuda.choosing import SHARED_GPU
from collx.cuda.control import Control, Deadline
from collx.cuda.kernels import Kernels
from collx.cuda.slots import WORD, Memops, Signals, SlotBarrier, Spins, Words
from collx.cuda.vigil import Vigil
from collx.errors import TransportError
from collx.transports.cuda import cards as identity
from collx.transports.cuda.cards import Card
from collx.transports.cuda.driver import Driver, driver
from collx.transports.cuda.handles import Shared
from collx.transports.cuda.slab import Layout, Slabs
from collx.transports.cuda_ipc import CudaIpc
from collx.transports.waiting import Pause
from collx.types import Where

CALLED = "the first call on GPUs"
DEFAULT = "host"  # of MODES: what works wherever ranks share memory, until others are measured
PROBE = 20.0  # seconds in which all ranks come through a barrier that nothing keeps up
LEAVE = 2.0  # seconds that a rank which leaves waits for the others, whose GPUs may still read its memory

T = TypeVar("T")


_EVENT = struct.Struct("<Q 64s")  # its number for its owner, and its handle for others


class Refused(TransportError):
    """What all ranks have found out together that they cannot do: none is out of step, and other calls go on."""


@dataclass(slots=True)
class Shares:
    """Of ranks that share memory: it, what is told by words in it, and how they wait for each other."""

    ipc: CudaIpc
    words: Words
    kernels: Kernels
    barrier: Barrier
    mine: ExitStack  # gives back what this rank made for the barrier
    theirs: ExitStack  # and lets go of what is peers'
    workers: tuple[int, ...]  # by rank, the rank whose GPU does its part
    no_nccl: str | None  # why NCCL cannot join them

    @property
    def slab(self) -> Slabs:
        return self.ipc.slabs


@dataclass(slots=True)
class Joined:
    """`apart` says why there are no `shares`."""

    driver: Driver
    ordinal: int
    cards: tuple[Card, ...]
    vigil: Vigil
    shares: Shares | None
    apart: str = ""

    def story(self) -> str:
        """How calls are made, and why so, for people."""
        gpus: dict[tuple[str, str], list[int]] = {}
        for rank, card in enumerate(self.cards):
            gpus.setdefault((card.boot, card.gpu), []).append(rank)
        where = "; ".join(f"{self.cards[ranks[0]].gpu_name}: {_named(ranks)}" for ranks in gpus.values())
        if self.shares is None:
            return f"through pinned memory of the host, by its transports, because {self.apart} ({where})"
        doing = sorted(set(self.shares.workers))
        work = f"{_named(doing)} work{'s' * (len(doing) == 1)} for all"
        if len(doing) == len(self.cards):
            work = "each rank's GPU does its part"
        mps = ", under MPS" * any(card.mps for card in self.cards)
        return f"by CUDA IPC ({where}{mps}); {work}; ranks wait for each other by {self.shares.barrier.mode}"

    def close(self, control: Control | None) -> None:
        """Unmap what peers have, and give back what they had mapped; `control`: by which to part from them first."""
        if self.shares is not None:
            shares, self.shares = self.shares, None
            with self.driver.on(self.ordinal), shares.mine:
                shares.theirs.close()
                shares.ipc.close(None if control is None else lambda: control.part(Deadline(LEAVE)))


def refuse_capture(where: Where) -> None:
    """Raise TransportError where what comes first would become part of a CUDA graph. Local, and harms nothing."""
    try:
        driver()
    except TransportError:  # which all ranks are to hear of
        return
    with driver().on(where.ordinal):
        if driver().capturing(where.stream):
            raise TransportError(f"{CALLED} cannot be captured in a CUDA graph: make it once before, on all ranks")


def join(control: Control, where: Where, deadline: Deadline) -> Joined:
    """What all ranks agree on. Collective. Raises Refused, on all ranks alike, where one has no usable GPU, where the
    driver would take one process for another, or where they cannot wait as COLLX_CUDA_SYNC of rank 0 says."""
    found = _Finding(control, deadline)
    used, mine = found.each(lambda: _own(where.ordinal))
    cards = tuple(Card.unpack(record) for record in control.gather(mine.pack(), deadline, CALLED))
    try:
        identity.check(cards)
    except TransportError as error:  # by what all have told
        raise Refused(str(error)) from None
    joined = Joined(used, where.ordinal, cards, Vigil(control.engine, control.rank, control.size), None)
    joined.apart = identity.apart(cards)
    wishes = found.texts(json.dumps([os.environ.get("COLLX_CUDA_SYNC", ""), os.environ.get("COLLX_CUDA_WORKERS", "")]))
    sync, workers = json.loads(wishes[0])
    if sync not in ("", *MODES):
        raise Refused(f"COLLX_CUDA_SYNC={sync} of rank 0, but there are {', '.join(MODES)}")
    if workers not in ("", "each"):
        raise Refused(f"COLLX_CUDA_WORKERS={workers} of rank 0, but it is each, or not set")
    if not joined.apart:
        with used.on(where.ordinal):
            _share(joined, found, sync or DEFAULT, each=bool(workers))
    return joined


def _own(ordinal: int) -> tuple[Driver, Card]:
    found = driver()
    return found, identity.card(found, ordinal)


def _share(joined: Joined, found: _Finding, mode: str, each: bool) -> None:
    """Have the ranks share memory; `apart` says why, if they cannot."""
    control, used, cards = found.control, joined.driver, joined.cards
    ipc = CudaIpc(used, control.rank, cards, Layout(Words.room(control.size)))
    described = [Shared.unpack(record) for record in control.gather(ipc.slab().pack(), found.deadline, CALLED)]
    unshared = found.texts(next((one.why for one in described if one.why), "") or ipc.map_slabs(described))
    joined.apart = next((f"rank {rank}: {why}" for rank, why in enumerate(unshared) if why), "")
    if joined.apart:
        ipc.close(lambda: control.meet(found.deadline, CALLED))
        return
    words, kernels = Words(ipc.slabs.begins), Kernels(used, joined.ordinal)
    workers = tuple(range(control.size)) if each else identity.workers(cards)
    alone = all(len(identity.sharers(cards, rank)) == 1 for rank in range(control.size))
    try:
        events = _events(joined, found) if mode == "event" else []
        barrier = found.each(lambda: _barrier(joined, mode, words, kernels, events, found))
        _probe(joined, found, barrier)
    except Refused:
        with found.mine:
            found.theirs.close()
            ipc.close(lambda: control.meet(found.deadline, CALLED))
        raise
    joined.shares = Shares(
        ipc, words, kernels, barrier, found.mine, found.theirs, workers, None if alone else SHARED_GPU
    )


def _barrier(
    joined: Joined, mode: str, words: Words, kernels: Kernels, events: Sequence[Sequence[int]], found: _Finding
) -> Barrier:
    used, rank, size = joined.driver, found.control.rank, found.control.size
    if mode == "host":
        return HostBarrier(used, f"rank {rank}", found.event(used))
    if mode == "event":
        return EventBarrier(used, rank, events)
    if mode == "spin":
        together = [ranks for r in range(size) if len(ranks := identity.sharers(joined.cards, r)) > 1]
        shared = [ranks for ranks in together if not all(joined.cards[r].mps for r in ranks)]
        processes = {joined.cards[r].process for ranks in shared for r in ranks}
        if len(processes) > 1:
            raise TransportError(
                f"COLLX_CUDA_SYNC=spin, but {_named(shared[0])} share a GPU without MPS, where kernels of two processes"
                " never run at once, so that one that spins keeps out the one that it waits for; use memop or event, or"
                " start nvidia-cuda-mps-control -d"
            )
        abort = used.allocate_host(WORD)
        found.mine.callback(used.free_host, abort)
        ctypes.memset(abort, 0, WORD)
        signals: Signals = Spins(kernels, words.status(rank), abort)
    else:
        signals = Memops(used)
    rescue = used.stream(urgent=True)
    found.mine.callback(used.destroy_stream, rescue)
    return SlotBarrier(used, signals, rank, size, words, rescue)


def _events(joined: Joined, found: _Finding) -> list[list[int]]:
    """EVENTS of every rank, by rank, as they are known here."""
    used, mine = joined.driver, joined.cards[found.control.rank]

    def made() -> bytes:
        own = [found.event(used, interprocess=True) for _ in range(EVENTS)]
        return b"".join(_EVENT.pack(event, used.export_event(event)) for event in own)

    def opened(peer: int, number: int, handle: bytes) -> int:
        if joined.cards[peer].process == mine.process:  # a thread of this one: the driver opens no handle of its own
            return number
        event = used.open_event(handle)
        found.theirs.callback(used.destroy_event, event)
        return event

    told = found.control.gather(found.each(made), found.deadline, CALLED)
    return found.each(lambda: [[opened(r, *event) for event in _EVENT.iter_unpack(one)] for r, one in enumerate(told)])


def _probe(joined: Joined, found: _Finding, barrier: Barrier) -> None:
    """Go through a barrier of all ranks, on a stream of its own: what the driver says it can do is not always so."""
    used, control = joined.driver, found.control
    stream, event, everyone = used.stream(), used.event(), range(control.size)

    def crossed() -> None:
        limit, pause = Deadline(min(PROBE, found.deadline.left)), Pause()
        barrier.arrive(1, stream, everyone, limit)
        if barrier.meets:
            control.meet(found.deadline, CALLED)
        barrier.wait(1, stream, everyone, limit)
        used.record(event, stream)
        while not used.done(event):
            if limit.over:
                barrier.release()
                raise TransportError(
                    f"ranks do not come through a barrier by {barrier.mode} within {limit.seconds:g} s on this machine;"
                    " set COLLX_CUDA_SYNC=host"
                )
            pause()

    found.each(crossed)
    used.destroy_event(event)
    used.destroy_stream(stream)


class _Finding:
    """What ranks find out together."""

    def __init__(self, control: Control, deadline: Deadline) -> None:
        self.control, self.deadline = control, deadline
        self.mine, self.theirs = ExitStack(), ExitStack()  # as Shares has them

    def event(self, used: Driver, *, interprocess: bool = False) -> int:
        event = used.event(interprocess=interprocess)
        self.mine.callback(used.destroy_event, event)
        return event

    def texts(self, text: str) -> list[str]:
        """Every rank's."""
        encoded = text.encode()
        lengths = self.control.gather(len(encoded).to_bytes(8, "little"), self.deadline, CALLED)
        room = max(int.from_bytes(length, "little") for length in lengths)
        if not room:
            return [""] * self.control.size
        told = self.control.gather(encoded.ljust(room, b"\0"), self.deadline, CALLED)
        return [record.rstrip(b"\0").decode(errors="replace") for record in told]

    def each(self, does: Callable[[], T]) -> T:
        """What every rank does by itself; where one of them cannot, all raise Refused with what it said."""
        outcome: list[T] = []
        failure = ""
        try:
            outcome.append(does())
        except TransportError as error:
            failure = " ".join(str(error).split())
        failures = self.texts(failure)
        failed = [rank for rank, said in enumerate(failures) if said]
        if failed:
            raise Refused(f"{_named(failed)} cannot make calls on GPUs: {failures[failed[0]]}")
        return outcome[0]


def _named(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
