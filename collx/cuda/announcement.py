"""What a rank says of its call to all others before any of them touches its memory."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from collx.agreement import OWN_COUNTS, WORDS, Traits, agreed, counts_text
from collx.collectives import COLLECTIVES, Where
from collx.request import Request
from collx.transports.cuda.handles import Shared
from collx.types import DTYPE_CODES

REMEMBERED = 1024  # of each: most calls are alike, and all this is done for every one
_TRAITS = WORDS * 8  # bytes


class Announcement(NamedTuple):
    """A call, and where its input and output lie. `captured`: it becomes part of a CUDA graph."""

    traits: Traits
    inplace: bool  # which ranks need not agree on
    captured: bool
    source: Shared
    target: Shared

    def pack(self) -> bytes:
        """As many bytes for every call."""
        return b"".join(
            (_words(self.traits), bytes([self.inplace, self.captured]), self.source.pack(), self.target.pack())
        )

    @staticmethod
    @lru_cache(maxsize=REMEMBERED)
    def unpack(record: bytes) -> Announcement:
        traits, places = Traits.of(np.frombuffer(record[:_TRAITS], np.int64)), record[_TRAITS + 2 :]
        half = len(places) // 2
        inplace, captured = map(bool, record[_TRAITS : _TRAITS + 2])
        return Announcement(traits, inplace, captured, *map(Shared.unpack, (places[:half], places[half:])))


@lru_cache(maxsize=REMEMBERED)
def _words(traits: Traits) -> bytes:
    return traits.words().tobytes()


@lru_cache(maxsize=REMEMBERED)
def traits_of(request: Request, algorithm: str, size: int) -> Traits:
    """What ranks must agree on in a call on GPUs."""
    op = request.op.name if request.op is not None else "sum"
    count = counts_text(request.elements) if request.agreed else OWN_COUNTS
    dtype, called = DTYPE_CODES[request.dtype], request.called or request.collective
    how = (algorithm, "on GPUs")
    return agreed(request.collective, called, size, request.root, dtype, op, request.ordered, count, how)


def input_bytes(request: Request, rank: int, size: int) -> int:
    """What a rank's input has."""
    return _bytes(request, rank, size, COLLECTIVES[request.collective].before)


def output_bytes(request: Request, rank: int, size: int) -> int:
    """What a rank's output has."""
    return _bytes(request, rank, size, COLLECTIVES[request.collective].after)


def _bytes(request: Request, rank: int, size: int, blocks: Where) -> int:
    every = (*request.elements, *(request.given or request.elements))
    counted = blocks(rank, size, request.root, len(request.elements))
    return sum(every[block] for block in counted) * request.dtype.itemsize
