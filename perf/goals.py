"""What collx wants to reach against the other libraries, and whether a comparison shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from collx.perf import standing
from collx.perf.standing import BEST, Point

K, M = 1 << 10, 1 << 20
EVERY = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")
_OF: dict[str, Callable[[Sequence[float]], float]] = {"mean": standing.mean, "worst": max}


@dataclass(frozen=True, slots=True)
class Goal:
    """The geometric mean, or the worst, of our ratios to `other` over some points is at most `limit`."""

    ranks: tuple[int, ...]
    what: Literal["mean", "worst"]
    other: str
    limit: float
    collectives: tuple[str, ...] = EVERY
    begin: int = 0
    end: int = 1 << 62
    ours: str = "collx"

    def takes(self, point: Point) -> bool:
        return (
            point["ranks"] in self.ranks
            and point["collective"] in self.collectives
            and self.begin <= point["size"] <= self.end
        )


ONE, TWO = ("all_reduce",), ("all_gather", "broadcast")
GOALS = (
    Goal((2,), "mean", "openmpi", 0.45),
    Goal((2,), "mean", BEST, 0.75),
    Goal((2,), "worst", BEST, 1.10),
    Goal((2,), "worst", "openmpi", 0.25, ONE, 8, 8),
    Goal((2,), "worst", "openmpi", 0.35, ONE, 64 * M, 64 * M),
    Goal((2,), "worst", "openmpi", 0.10, ("reduce_scatter",), 256 * K),
    Goal((2,), "worst", BEST, 0.30, ONE, 64 * K, ours="collx.empty"),
    Goal((2,), "worst", BEST, 0.30, TWO, 64 * K, ours="collx.empty"),
    *(
        goal
        for ranks in (4, 8)
        for goal in (
            Goal((ranks,), "worst", "openmpi", 0.35, ONE, 0, 64 * K),
            Goal((ranks,), "worst", "openmpi", 0.30, ONE, 64 * M, 64 * M),
            Goal((ranks,), "mean", "openmpi", 0.50),
            Goal((ranks,), "mean", BEST, 0.80),
            Goal((ranks,), "worst", BEST, 1.10),
            Goal((ranks,), "mean", "gloo", 0.10),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal's figure and the number of its points, under each tag that was seen; "" is every point under the tag it
    has most often."""

    goal: Goal
    found: dict[str, tuple[float, int]]

    @property
    def verdict(self) -> str:
        """A goal holds where it holds near and far alike; what has been seen of the two is said."""
        if not self.found:
            return "not measured"
        if any(value > self.goal.limit for value, _ in self.found.values()):
            return "NOT REACHED"
        seen = [tag for tag in ("NEAR", "FAR") if tag in self.found]
        return "reached" if len(seen) == 2 else f"reached, {f'{seen[0]} only' if seen else 'untagged'}"


def outcomes(document: dict[str, Any], goals: Sequence[Goal] = GOALS) -> Iterator[Outcome]:
    """Every one of `goals` for a number of ranks that the comparison has."""
    points = document["points"]
    measured = {point["ranks"] for point in points}
    for goal in goals:
        if measured.isdisjoint(goal.ranks):
            continue
        mine = [point for point in points if goal.takes(point)]
        found = {}
        for tag in ("", "NEAR", "FAR"):
            values = standing.ratios(mine, goal.ours, goal.other, tag)
            if values:
                found[tag] = (_OF[goal.what](values), len(values))
        yield Outcome(goal, found)
