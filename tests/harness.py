"""What tests of engines share: engines of a kind, a thread per rank, plans for calls, and running one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from collx.engine import Engine, ReferenceEngine
from collx.native import NativeEngine
from collx.plan import Plan, lower, segments_needed
from collx.schedule import REGISTER, Schedule, Send
from collx.transports.conformance import run_threads
from collx.transports.lanes import Region, region_bytes
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.shm import memory_file
from collx.types import DTYPE_CODES, Array
from tests.cables import ends
from tests.calls import Call

T = TypeVar("T")
TIMEOUT = 60.0
GUARD = 64  # bytes around every output that nobody may touch


@contextmanager
def reference_engines(size: int, rendezvous: bool) -> Iterator[list[Engine]]:
    hub = MemoryHub(size, rendezvous=rendezvous)
    engines: list[Engine] = [ReferenceEngine(MemoryTransport(hub, rank)) for rank in range(size)]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


@contextmanager
def native_engines(size: int) -> Iterator[list[Engine]]:
    with regions(size) as (owned, descriptors):
        engines: list[Engine] = [NativeEngine(owned[rank], descriptors, rank=rank) for rank in range(size)]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


@contextmanager
def tcp_engines(size: int, host: Callable[[int], int]) -> Iterator[list[Engine]]:
    """Ranks of one `host` by shared memory, the others by TCP."""
    with ends(size, host) as found:
        engines: list[Engine] = [
            NativeEngine(end.region, end.fds, rank=rank, wires=end.wires) for rank, end in enumerate(found)
        ]
        try:
            yield engines
        finally:
            run_threads(size, lambda rank: engines[rank].close())  # each waits until the others have got what it sent


@contextmanager
def regions(size: int) -> Iterator[tuple[list[Region], list[int]]]:
    """Every rank's region, and the descriptors of their memory, which are closed in the end."""
    with ExitStack() as stack:
        descriptors = [memory_file(region_bytes(size), 1 << 30) for _ in range(size)]
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        yield [Region(rank, size, descriptor) for rank, descriptor in enumerate(descriptors)], descriptors


# Every engine has its line here: `make(size)` is a context manager that yields one engine per rank of this process.
ENGINES: dict[str, Callable[[int], AbstractContextManager[list[Engine]]]] = {
    "reference": partial(reference_engines, rendezvous=False),
    "reference-rendezvous": partial(reference_engines, rendezvous=True),
    "native": native_engines,
    "native-tcp": partial(tcp_engines, host=lambda rank: rank % 2),  # on two hosts
}


def engines(kind: str, size: int) -> AbstractContextManager[list[Engine]]:
    return ENGINES[kind](size)


def on_every(ranks: Sequence[Engine], body: Callable[[int, Engine], T]) -> list[T]:
    """`body(rank, engine)` in a thread per rank; a rank that fails closes its engine, so that nobody waits for it."""

    def run(rank: int) -> T:
        try:
            return body(rank, ranks[rank])
        except BaseException:
            ranks[rank].close()
            raise

    return run_threads(len(ranks), run)


def make_plan(call: Call, rank: int, capacity: int, window: int) -> Plan:
    """The plan of `rank` for an engine of this capacity and window; with more segments where the call asks for them."""
    schedules = _built(call.collective, call.algorithm, call.size, call.root)
    schedule, itemsize = schedules[rank], call.dtype.itemsize
    sizes = [n * itemsize for n in call.blocks(rank, schedule.blocks)]
    everybody = [n * itemsize for r in range(call.size) for n in call.blocks(r, schedule.blocks)]
    segments = max(call.segments, segments_needed(_most_blocks(schedules), max(everybody, default=0), capacity))
    moves, workspace = lower(
        schedule,
        call.collective,
        rank,
        call.size,
        call.root,
        sizes,
        given_sizes=[n * itemsize for n in call.matrix[rank]] if call.matrix else (),
        inplace=call.placed(rank),
        whole=call.op.function is not None,
        scale=call.op.name == "avg",
    )
    return Plan(
        collective=call.collective,
        algorithm=call.algorithm,
        rank=rank,
        size=call.size,
        root=call.root,
        dtype=DTYPE_CODES[call.dtype],
        op=call.op.code,
        itemsize=itemsize,
        moves=tuple(moves),
        segments=segments,
        window=segments if call.op.function else min(segments, window),
        workspace=workspace,
        input_bytes=call.given(rank) * itemsize,
        output_bytes=call.wanted(rank) * itemsize,
    )


@lru_cache(maxsize=256)
def _built(collective: str, algorithm: str, size: int, root: int) -> list[Schedule]:
    """All ranks' schedules, which every rank's plan needs."""
    registered = REGISTER[collective, algorithm]
    return [registered.build(rank, size, root) for rank in range(size)]


def _most_blocks(schedules: Sequence[Schedule]) -> int:
    sends = (op for schedule in schedules for ops in schedule.rounds for op in ops if isinstance(op, Send))
    return max((len(op.blocks) for op in sends), default=0) or 1


def perform(call: Call, rank: int, engine: Engine, given: Array, sequence: int, *, background: bool = False) -> Array:
    """Run `call` on this rank and return its output. Asserts that nothing but the output was written."""
    plan = make_plan(call, rank, engine.capacity, engine.window)
    room = np.full(plan.output_bytes + 2 * GUARD, 0xA5, np.uint8)
    output = room[GUARD : GUARD + plan.output_bytes].view(call.dtype)
    source = given.copy()
    if call.placed(rank):
        before = call.blocks(rank, call.size)[:rank] if given.size < output.size else []
        source = output[sum(before) : sum(before) + given.size]
        source[:] = given
    base = output if call.placed(rank) else source
    prepared = engine.prepare(plan, call.op)
    if background:
        engine.start(prepared, base.ctypes.data, output.ctypes.data, sequence, TIMEOUT).wait(TIMEOUT)
    else:
        engine.run(prepared, base.ctypes.data, output.ctypes.data, sequence, TIMEOUT)
    assert (room[:GUARD] == 0xA5).all()
    assert (room[GUARD + plan.output_bytes :] == 0xA5).all()
    if not call.placed(rank):
        assert source.tobytes() == given.tobytes()
    return output
