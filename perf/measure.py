"""Times one call on all ranks, and counts what is wrong with its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from collx.perf.collectives import Array, Call

# Below this a clock reading per call would show in the mean, so the mean comes from a loop without them.
_FAST = 20e-6
_POISON = 0x5A
_SETTLING = 20_000  # calls


@dataclass(frozen=True, slots=True)
class Timing:
    """`mean` is the largest of the ranks' mean times per call, `each` the largest over ranks of every call; seconds."""

    mean: float
    each: tuple[float, ...]

    def percentile(self, percent: int) -> float:
        """The time that `percent` of the calls took at most: nearest rank; for 50 the upper median, as nccl-tests."""
        ordered = sorted(self.each)
        if percent == 50:
            return ordered[len(ordered) // 2]
        return ordered[min(len(ordered), -(-len(ordered) * percent // 100)) - 1]


def longest(comm: Any, seconds: list[float]) -> list[float]:
    """The maximum over ranks, place by place; the same on every rank, so that all may decide by it."""
    largest: list[float] = comm.all_reduce(np.array(seconds, np.float64), "max").tolist()
    return largest


def settle(comm: Any) -> None:
    """Calls in which the kernel, and ranks that share a core, find who goes where."""
    for _ in range(_SETTLING):
        comm.barrier()


def mean_time(call: Call, iterations: int) -> float:
    """Seconds per call over `iterations` calls in a row."""
    start = perf_counter()
    for _ in range(iterations):
        call()
    return (perf_counter() - start) / iterations


def each_time(call: Call, iterations: int) -> list[float]:
    """Seconds of each of `iterations` calls in a row."""
    stamps = [perf_counter()]
    for _ in range(iterations):
        call()
        stamps.append(perf_counter())
    return [after - before for before, after in pairwise(stamps)]


class Clock(Protocol):
    """Times calls by this process's clock, or by that of what runs them."""

    def mean_time(self, call: Call, iterations: int) -> float:
        """As the function of this name; all calls are done when it returns."""
        ...

    def each_time(self, call: Call, iterations: int) -> list[float]: ...


class HostClock:
    def mean_time(self, call: Call, iterations: int) -> float:
        return mean_time(call, iterations)

    def each_time(self, call: Call, iterations: int) -> list[float]:
        return each_time(call, iterations)


_HOST = HostClock()


def timed(comm: Any, call: Call, warmup: int, iterations: int, seconds: float, clock: Clock = _HOST) -> Timing:
    """Time `call` on every rank: `iterations` calls after `warmup`, fewer where they would take above `seconds`.

    Ranks start together and are not kept in step between calls, as in nccl-tests.
    """
    call()  # the first call makes plans and touches pages: nothing to judge the others by
    comm.barrier()
    (estimate,) = longest(comm, [clock.mean_time(call, 1)])
    affordable = seconds / max(estimate, 1e-9) / (warmup + iterations)
    if affordable < 1:
        warmup, iterations = int(warmup * affordable), min(iterations, max(2, int(iterations * affordable)))
    if warmup:
        clock.mean_time(call, warmup)
    mean = None
    if estimate < _FAST:
        comm.barrier()
        mean = clock.mean_time(call, iterations)
    comm.barrier()
    each = clock.each_time(call, iterations)
    mean = sum(each) / iterations if mean is None else mean
    largest = longest(comm, [mean, *each])
    return Timing(largest[0], tuple(largest[1:]))


def rubbish(dtype: np.dtype[Any]) -> Array:
    """An element to fill arrays with, so that nothing left over from before can pass for a result."""
    return np.frombuffer(bytes([_POISON] * dtype.itemsize), np.uint8).view(dtype)


def wrong(comm: Any, call: Call, result: Callable[[], Array], expected: Array | None) -> int:
    """How many elements of the result over all ranks differ from `expected` after one call; the same on every rank.

    None as `expected`: this rank has nothing to check.
    """
    call()
    differing = 0 if expected is None else int(np.count_nonzero(result() != expected))
    total: int = comm.all_reduce(np.array([differing], np.int64), "sum")[0].item()
    return total
