"""Calls through memory smaller than their buffers: what is cut how, and that copies keep out of each other's way."""

from __future__ import annotations

import ctypes
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.buffers import address_of
from collx.collectives import COLLECTIVES
from collx.cuda.segments import Segment, cut
from collx.cuda.staging import Stage, Staging
from collx.request import Request
from collx.types import Array, ReduceOp, reduce_op
from tests.calls import Call
from tests.oracle import expected, inputs

DTYPES = [np.dtype(t) for t in (np.int8, np.int32, np.float64, np.complex128)]
MOVING = sorted(set(COLLECTIVES) - {"barrier"})


@st.composite
def calls(draw: st.DrawFn) -> Call:
    size, collective = draw(st.integers(1, 5)), draw(st.sampled_from(MOVING))
    lengths = st.integers(0, 400) | st.just(0)
    spec = COLLECTIVES[collective]
    traits: dict[str, Any] = {"dtype": draw(st.sampled_from(DTYPES)), "root": draw(st.integers(0, size - 1))}
    if collective == "all_to_all":
        count = draw(lengths)
        return Call(collective, "", size, matrix=((count,) * size,) * size, **traits)
    blocks = size if spec.per_rank else 1
    counts = tuple(draw(st.lists(lengths, min_size=blocks, max_size=blocks)))
    return Call(collective, "", size, counts=counts, **traits)


def request(call: Call, **traits: Any) -> Request:
    given = call.matrix[0] if call.matrix else ()
    root = call.root if COLLECTIVES[call.collective].rooted else 0
    elements = call.counts or given
    op = call.op if COLLECTIVES[call.collective].reduces else None
    return Request(call.collective, elements, call.dtype, op=op, root=root, given=given, **traits)


def part(call: Call, segment: Segment) -> Call:
    """The call that a segment is."""
    asked = segment.request
    matrix = (asked.given,) * call.size if call.matrix else ()
    counts = () if matrix else asked.elements
    return Call(call.collective, "", call.size, counts, matrix, call.dtype, call.op, call.root)


@given(calls(), st.integers(400, 3000))
def test_the_segments_of_a_call_are_the_call(call: Call, room: int) -> None:
    everybody = [cut(request(call), rank, call.size, room) for rank in range(call.size)]
    given_, wanted = inputs(call), expected(call, inputs(call))
    results = [np.zeros(call.wanted(rank), call.dtype).view(np.uint8) for rank in range(call.size)]
    for number, segments in enumerate(zip(*everybody, strict=True)):
        assert len({segment.request for segment in segments}) == 1, number
        assert all(segment.room <= room for segment in segments)
        staged = [
            _gathered(array.view(np.uint8), [(span.at, span.nbytes) for span in segment.inward]).view(call.dtype)
            for array, segment in zip(given_, segments, strict=True)
        ]
        for result, segment, output in zip(results, segments, expected(part(call, segments[0]), staged), strict=True):
            for at, staged_at, nbytes in segment.outward:
                result[at : at + nbytes] = output.view(np.uint8)[staged_at : staged_at + nbytes]
    for rank, (result, right) in enumerate(zip(results, wanted, strict=True)):
        if call.wanted(rank):
            np.testing.assert_array_equal(result.view(call.dtype), right)


def _gathered(memory: Array, spans: Sequence[tuple[int, int]]) -> Array:
    return np.concatenate([memory[:0], *(memory[at : at + nbytes] for at, nbytes in spans)])


@given(calls(), st.integers(400, 3000))
def test_no_segment_is_empty_unless_the_call_is(call: Call, room: int) -> None:
    segments = cut(request(call), 0, call.size, room)
    assert all(sum(segment.request.elements) for segment in segments) or len(segments) == 1


def test_what_is_to_be_seen_whole_is_one_segment() -> None:
    whole = Request("all_reduce", (1000,), np.dtype(np.float64), op=ReduceOp.custom(np.add), shape=(10, 100))
    (segment,) = cut(whole, 0, 2, 512)
    assert (segment.room, segment.request.shape) == (8000, (10, 100))
    own_counts = Request("all_to_all", (900, 100), np.dtype(np.int8), given=(900, 50), agreed=False)
    (segment,) = cut(own_counts, 0, 2, 512)
    assert (segment.request, segment.room) == (own_counts, 1000)


def test_no_room_for_a_line_of_each_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="16 blocks of at least 64 bytes do not go through 1000 bytes"):
        cut(Request("all_gather", (1000,) * 16, np.dtype(np.int8)), 0, 16, 1000)


class Mark:
    """One recording of an event."""

    def __init__(self, reached: bool = False) -> None:
        self.reached = reached

    def reach(self) -> None:
        self.reached = True


class Streams:
    """A driver whose streams go on in any order that events allow, a step whenever somebody looks."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.queues: dict[int, deque[tuple[Mark, Callable[[], object]]]] = {}  # what a step waits for, and what it does
        self.newest: dict[int, Mark] = {}  # by event

    def stream(self) -> int:
        number = len(self.queues) + 1
        self.queues[number] = deque()
        return number

    def event(self) -> int:
        number = len(self.newest) + 1
        self.newest[number] = Mark(reached=True)  # nothing waits for what was not recorded yet
        return number

    def record(self, event: int, stream: int) -> None:
        self.newest[event] = Mark()
        self.queue(stream, self.newest[event].reach)

    def wait_event(self, stream: int, event: int) -> None:
        self.queues[stream].append((self.newest[event], lambda: None))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self.queue(stream, lambda: ctypes.memmove(target, source, nbytes))

    def queue(self, stream: int, work: Callable[[], object]) -> None:
        self.queues[stream].append((Mark(reached=True), work))

    def step(self) -> bool:
        """One step of some stream; False where none is left."""
        left = [queue for queue in self.queues.values() if queue]
        ready = [queue for queue in left if queue[0][0].reached]
        assert ready or not left, "streams wait for each other"
        if ready:
            self.chance.choice(ready).popleft()[1]()
        return bool(ready)

    def arrived(self, event: int) -> None:
        while not self.newest[event].reached:
            self.step()
        for _ in range(self.chance.randrange(4)):
            self.step()


@pytest.mark.parametrize("by_host", [False, True])
@settings(deadline=None, max_examples=200)
@given(st.integers(0, 1 << 32), st.integers(0, 3000), st.booleans())
def test_a_staged_call_in_any_order_that_events_allow(by_host: bool, seed: int, count: int, inplace: bool) -> None:
    """A scan on one rank, which is a copy: every byte must have gone in, been run and come out in time; twice."""
    driver: Any = Streams(seed)
    room = 1024
    memory = np.zeros((4, room), np.uint8)
    stages = [address_of(row) for row in memory]
    staging = Staging(driver, (Stage(*stages[:2]), Stage(*stages[2:])))
    asked = Request("scan", (count,), np.dtype(np.uint8), op=reduce_op("max"))
    for stream in (driver.stream(), driver.stream()):
        x = np.zeros(count, np.uint8)
        out = x if inplace else np.zeros(count, np.uint8)
        right = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
        driver.queue(stream, lambda x=x, right=right: np.copyto(x, right))

        def execute(segment: Request, source: int, target: int, stream: int = stream) -> None:
            def work() -> None:
                ctypes.memmove(target, source, segment.nbytes)

            work() if by_host else driver.queue(stream, work)

        segments = cut(asked, 0, 1, room)
        reached = driver.arrived if by_host else None
        staging.run(segments, address_of(x), address_of(out), stream, execute, reached)
        seen: list[Array] = []
        driver.queue(stream, lambda out=out, seen=seen: seen.append(out.copy()))
        if seed % 2 == 0:  # else the next call follows while this one is under way
            while driver.step():
                pass
        driver.keep = (*getattr(driver, "keep", ()), (x, out, right, seen))
    while driver.step():
        pass
    for _, _, right, (seen_then,) in driver.keep:
        np.testing.assert_array_equal(seen_then, right)
