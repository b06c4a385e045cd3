"""A call cut into calls on segments of its blocks, for data that goes through memory smaller than its buffers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from collx.collectives import COLLECTIVES
from collx.plan import GRAIN, segment_step
from collx.request import Request


class Span(NamedTuple):
    """So many bytes, `at` in the caller's buffer and `staged` in the segment's."""

    at: int
    staged: int
    nbytes: int


class Segment(NamedTuple):
    """One of the calls that together are one: `request`, with what it reads of the caller's input and what it writes of
    the output. Its own input and output are laid out as those of any call, and never the same memory."""

    request: Request
    inward: tuple[Span, ...]
    outward: tuple[Span, ...]

    @property
    def room(self) -> int:
        """Bytes that the larger of its input and output has."""
        return max(sum(span.nbytes for span in spans) for spans in (self.inward, self.outward))


@lru_cache(maxsize=64)
def cut(request: Request, rank: int, size: int, room: int) -> tuple[Segment, ...]:
    """The segments of a call, at least one, whose inputs and outputs have at most `room` bytes on every rank.

    All ranks that agree on the request get as many, with requests that agree. A user's function sees whole blocks, and
    counts that ranks tell each other nothing of are not to be cut alike: there one segment is all, of any size.
    Raises ValueError where there is not even room for a cache line of each block.
    """
    itemsize = request.dtype.itemsize
    sizes, given = ([count * itemsize for count in counts] for counts in (request.elements, request.given))
    one = request.custom or not request.agreed
    count = 1 if one else _fewest(sizes, room)
    spec, where = COLLECTIVES[request.collective], (rank, size, request.root, len(sizes))
    held, wanted = spec.before(*where), spec.after(*where)
    everything = (*sizes, *given)
    segments = []
    for number in range(count):
        parts = [_part(length, count, number) for length in everything]
        lengths = [part.stop - part.start for part in parts]
        counts = tuple(length // itemsize for length in lengths)
        asked = request._replace(elements=counts[: len(sizes)], given=counts[len(sizes) :], inplace=False)
        segments.append(Segment(asked, _spans(held, everything, parts), _spans(wanted, everything, parts)))
    return tuple(segments)


def _fewest(sizes: Sequence[int], room: int) -> int:
    """As few segments as that all blocks of one have `room` bytes; none of them empty."""
    count = max(-(-sum(sizes) // room), 1)
    if sum(segment_step(length, count) for length in sizes) > room:  # what they are rounded up by is too much
        if room <= GRAIN * len(sizes):
            raise ValueError(f"{len(sizes)} blocks of at least {GRAIN} bytes do not go through {room} bytes at once")
        count = -(-sum(sizes) // (room - GRAIN * len(sizes)))
    return max(max((-(-length // segment_step(length, count)) for length in sizes if length), default=1), 1)


def _part(length: int, count: int, number: int) -> range:
    """The bytes of a block of `length` bytes in a segment."""
    step = segment_step(length, count)
    return range(min(number * step, length), min((number + 1) * step, length))


def _spans(blocks: range, sizes: Sequence[int], parts: Sequence[range]) -> tuple[Span, ...]:
    """Where the segment's parts of `blocks` lie, which lie in this order in the caller's buffer; neighbours in one."""
    begins = accumulate((sizes[block] for block in blocks), initial=0)
    spans: list[Span] = []
    staged = 0
    for block, begin in zip(blocks, begins, strict=False):
        at, nbytes = begin + parts[block].start, len(parts[block])
        if spans and spans[-1].at + spans[-1].nbytes == at:
            spans[-1] = spans[-1]._replace(nbytes=spans[-1].nbytes + nbytes)
        elif nbytes:
            spans.append(Span(at, staged, nbytes))
        staged += nbytes
    return tuple(spans)
