"""Algorithms that take turns at one call until it is known which are the fastest."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from operator import truediv
from time import perf_counter
from typing import Any

from collx.explain import Explanation
from collx.perf.collectives import Call
from collx.perf.measure import longest, mean_time
from collx.selector import by_another_name

BEHIND = 1.5  # times the best: whoever takes longer is out
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
    start = perf_counter()
    seen = dict(zip(calls, looks(comm, list(calls.values())), strict=True))
    limit = near(seen.values())
    left = {name: call for name, call in calls.items() if seen[name] <= limit or name == beside}
    long = min(_TURN, seconds / (_FEWEST + 2) / len(left))
    counts = {name: max(1, min(_CALLS, int(long / seen[name]))) for name in left}
    taken: dict[str, list[float]] = {name: [] for name in left}
    for turns in count(1):
        names = list(left)
        order = names[turns % len(names) :] + names[: turns % len(names)]
        mine = [turn(comm, left[name], counts[name], seen[name]) for name in order]
        *figures, passed = longest(comm, [*mine, perf_counter() - start])
        for name, figure in zip(order, figures, strict=True):
            taken[name].append(figure)
        medians = {name: statistics.median(taken[name]) for name in left}
        limit = BEHIND * min(medians.values())
        left = {name: left[name] for name in left if turns < _SURE or min(taken[name]) <= limit or name == beside}
        if turns >= _MOST or (turns >= _FEWEST and (passed >= seconds or _clear(left, taken))):
            break
        if turns > 1 and passed >= 2 * seconds:  # calls that take as long as this should not be made more often
            break
    middle = statistics.median(taken[beside])
    return {name: middle * statistics.median(map(truediv, figures, taken[beside])) for name, figures in taken.items()}


def candidates(comm: Any, contest: Explanation) -> list[str]:
    """The algorithms that can serve, in one order on all ranks; by another name only what is chosen by that."""
    able = sorted(entry.name for entry in contest.candidates if entry.objection is None)
    where = (comm.size, comm.groups)
    return [name for name in able if name == contest.chosen or not by_another_name(contest.collective, name, *where)]


def near(seen: Iterable[float]) -> float:
    """Seconds that the first look at a call may have taken for it to stay."""
    best = min(seen)
    return best * BEHIND * (_DOUBT if best < _LONG else 1)


def looks(comm: Any, calls: Sequence[Call]) -> list[float]:
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


def _clear(left: Mapping[str, Call], taken: Mapping[str, list[float]]) -> bool:
    """Whether one was faster in its worst round than all others in their best."""
    best = min(left, key=lambda name: statistics.median(taken[name]))
    return all(max(taken[best]) < min(taken[name]) for name in left if name != best)
