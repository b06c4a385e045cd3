"""Algorithms that take turns at one call until it is known which are the fastest."""

from __future__ import annotations

import statistics
from collections.abc import Container, Mapping, Sequence
from itertools import count
from operator import truediv
from time import perf_counter
from typing import Any

from collx.explain import Explanation
from collx.perf.collectives import Call
from collx.perf.measure import longest, mean_time
from collx.selector import by_another_name

_BEHIND = 1.5  # times the best: whoever takes longer is out
_DOUBT = 1.5  # times that, at the first look, which comes cold, where calls are short
_FEWEST, _MOST = 5, 40  # rounds
_SURE = 3  # rounds after which some may be out
_LONG = 0.1  # seconds of a call that is no better judged for being made again
_PLAIN = 0.01  # seconds of a call that finds nothing of its own in the caches, whatever ran before
_TURN, _CALLS = 0.006, 1000  # seconds and calls that one turn should take at most
_LOOK, _LOOKS = 0.002, 4  # seconds that a first look should take, and how many there are where that many fit


def race(comm: Any, calls: Mapping[str, Call], seconds: float, beside: str) -> dict[str, float]:
    """Seconds per call of the slowest rank by algorithm, of those that were looked at more than once; in about so many
    seconds, or fewer where the outcome is clear before. The same on every rank.

    Of `beside`, which stays to the end, it is the median over rounds; of the others that times the median of the
    ratio to it within a round, as what drifts befalls both. Collective, with the same names in the same order.
    """
    field = Field(comm, calls, {beside})
    long = min(_TURN, seconds / (_FEWEST + 2) / len(field.left))
    for turns in count(1):
        at = turns % len(field.left)
        passed = field.round([*field.left[at:], *field.left[:at]], long, _CALLS)
        if turns >= _SURE:
            field.narrow()
        if turns >= _MOST or (turns >= _FEWEST and (passed >= seconds or _clear(field))):
            break
        if turns > 1 and passed >= 2 * seconds:  # calls that take as long as this should not be made more often
            break
    taken = field.taken
    middle = statistics.median(taken[beside])
    return {name: middle * statistics.median(map(truediv, figures, taken[beside])) for name, figures in taken.items()}


class Field:
    """Calls that take turns, of those given the ones `kept` and those that are not far behind at a first look.

    `left` are their names, `taken` the seconds per call of the slowest rank in each round, also of those that are not
    left any more; both the same on every rank. To make one is collective, and so is `round`.
    """

    def __init__(self, comm: Any, calls: Mapping[str, Call], kept: Container[str]) -> None:
        self._comm, self._calls, self._kept, self._start = comm, calls, kept, perf_counter()
        self._seen = dict(zip(calls, _looks(comm, list(calls.values())), strict=True))
        best = min(self._seen.values())
        self._keep(self._seen, best * _BEHIND * (_DOUBT if best < _LONG else 1))
        self.taken: dict[str, list[float]] = {name: [] for name in self.left}

    def round(self, order: Sequence[str], long: float, most: int) -> float:
        """A turn of each, of at most so many seconds and calls; the seconds since the first look."""
        counts = {name: max(1, min(most, int(long / self._seen[name]))) for name in order}
        mine = [turn(self._comm, self._calls[name], counts[name], self._seen[name]) for name in order]
        *figures, passed = longest(self._comm, [*mine, perf_counter() - self._start])
        for name, figure in zip(order, figures, strict=True):
            self.taken[name].append(figure)
        return passed

    def narrow(self) -> None:
        """Leave out whoever was far behind in all of its turns."""
        best = min(statistics.median(self.taken[name]) for name in self.left)
        self._keep({name: min(self.taken[name]) for name in self.left}, _BEHIND * best)

    def _keep(self, seconds: Mapping[str, float], limit: float) -> None:
        self.left = [name for name in seconds if seconds[name] <= limit or name in self._kept]


def candidates(comm: Any, contest: Explanation) -> list[str]:
    """The algorithms that can serve, in one order on all ranks; by another name only what is chosen by that."""
    able = sorted(entry.name for entry in contest.candidates if entry.objection is None)
    where = (comm.size, comm.groups)
    return [name for name in able if name == contest.chosen or not by_another_name(contest.collective, name, *where)]


def _looks(comm: Any, calls: Sequence[Call]) -> list[float]:
    """A first estimate of each: the best of several bursts, as a single call may take ten times as long as the next."""
    found = longest(comm, [turn(comm, call, 1, _LONG) for call in calls])
    if min(found) >= _LONG:
        return found
    # The first ones made plans and touched pages: nothing to judge by.
    found = longest(comm, [turn(comm, call, 1) for call in calls])
    counts = [max(1, min(_CALLS, int(_LOOK / seconds))) for seconds in found]
    for _ in range(_LOOKS if min(found) < _LOOK else 1):
        again = longest(comm, [turn(comm, call, count) for call, count in zip(calls, counts, strict=True)])
        found = list(map(min, found, again))
    return found


def turn(comm: Any, call: Call, calls: int, about: float = 0.0) -> float:
    """Seconds per call of this rank over so many in a row, after one that is not counted where calls take `about`
    so little that the caches matter."""
    if about < _PLAIN:
        call()  # what ran before has left its own in the caches
    comm.barrier()
    return mean_time(call, calls)


def _clear(field: Field) -> bool:
    """Whether one was faster in its worst round than all others in their best."""
    best = min(field.left, key=lambda name: statistics.median(field.taken[name]))
    return all(max(field.taken[best]) < min(field.taken[name]) for name in field.left if name != best)
