"""What a sweep must know of each collective: how its buffers relate to the size, its bus bandwidth, its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from collx.plugins import command_line_algorithm

Array = npt.NDArray[Any]
Call = Callable[[], object]
# How long a rank's buffer is: the whole of the size, one rank's part of it, or the whole (part) at the root only.
Extent = Literal["whole", "part", "none"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One collective in the sweep.

    `sends` and `receives` say how long a rank's input and output are; `at_root` names the side that exists
    at the root only. `busbw(size)` is nccl-tests' factor from algorithm to bus bandwidth.
    """

    name: str
    busbw: Callable[[int], float]
    sends: Extent = "whole"
    receives: Extent = "whole"
    at_root: Literal["", "sends", "receives"] = ""
    reduces: bool = False
    rooted: bool = False
    out_of_place: bool = True
    in_place: bool = True

    @property
    def per_rank(self) -> bool:
        """Whether the buffer is cut into one part per rank, so that a size is a multiple of the ranks'."""
        return "part" in (self.sends, self.receives) or self.name == "all_to_all"

    def whole(self, count: int, ranks: int) -> int:
        """The elements of the whole buffer, where about so many are wanted."""
        return max(count - count % ranks, ranks) if self.per_rank else max(count, 1)

    def lengths(self, whole: int, part: int) -> tuple[int, int]:
        """The elements of a rank's input and output, of a collective over `whole` elements."""
        elements = {"whole": whole, "part": part, "none": 0}
        return elements[self.sends], elements[self.receives]

    def views(self, whole: Array, rank: int, part: int) -> tuple[Array, Array]:
        """Input and output in place, inside one buffer: a rank's part lies where it does in the whole."""
        mine = whole[rank * part : (rank + 1) * part]
        return mine if self.sends == "part" else whole, mine if self.receives == "part" else whole


def _one(size: int) -> float:
    return 1.0


def _others(size: int) -> float:
    return (size - 1) / size


def _twice(size: int) -> float:
    return 2 * (size - 1) / size


# Factors: nccl-tests, doc/PERFORMANCE.md and the GetBw of each src/*.cu. It has no scan, exscan and barrier:
# a prefix must cross every link of a chain once, as a broadcast does, so their factor is 1.
MEASURED: dict[str, Measured] = {
    case.name: case
    for case in (
        Measured("all_reduce", _twice, reduces=True),
        Measured("reduce_scatter", _others, receives="part", reduces=True),
        Measured("all_gather", _others, sends="part"),
        Measured("all_to_all", _others),
        Measured("broadcast", _one, receives="none", rooted=True, out_of_place=False),
        Measured("reduce", _one, at_root="receives", reduces=True, rooted=True),
        Measured("gather", _others, sends="part", at_root="receives", rooted=True),
        Measured("scatter", _others, receives="part", at_root="sends", rooted=True),
        Measured("scan", _one, reduces=True),
        Measured("exscan", _one, reduces=True),
        Measured("sendrecv", _one, in_place=False),
        Measured("barrier", _one, sends="none", receives="none", in_place=False),
    )
}


def bind(comm: Any, case: Measured, x: Array, out: Array, op: str, root: int, algorithm: str | None) -> Call:
    """The call to be timed, with nothing left to decide in it."""
    method = getattr(comm, case.name)
    if case.name == "barrier":
        return partial(method)
    if case.name == "sendrecv":
        return partial(method, x, (comm.rank + 1) % comm.size, out, (comm.rank - 1) % comm.size)
    keywords: dict[str, Any] = {"algorithm": algorithm}
    if algorithm is not None and ":" in algorithm:
        keywords["algorithm"] = command_line_algorithm(case.name, algorithm)
    if case.reduces:
        keywords["op"] = op
    if case.rooted:
        keywords["root"] = root
    if case.name != "broadcast":
        keywords["out"] = out if case.at_root != "receives" or comm.rank == root else None
    source = None if case.at_root == "sends" and comm.rank != root else x
    return partial(method, source, **keywords)


class Arrays:
    """One rank's memory for float32, as long as the largest size needs; smaller ones use the beginning."""

    def __init__(self, elements: int) -> None:
        self.x, self.out = np.ones(elements, np.float32), np.zeros(elements, np.float32)

    def call(self, comm: Any, case: Measured, whole: int, algorithm: str) -> Call:
        """Over `whole` elements: a sum, and from or to rank 0."""
        send, receive = case.lengths(whole, whole // comm.size)
        return bind(comm, case, self.x[:send], self.out[:receive], "sum", 0, algorithm)
