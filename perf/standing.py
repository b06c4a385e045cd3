"""Figures from rounds: medians per tag, ratios, the best MPI, and means over points. JSON in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from collx.perf.contest import Round
from collx.perf.rivals import MPIS

Point = dict[str, Any]
Figure = dict[str, Any]

BEST = "best MPI"
OURS = ("collx", "collx.empty")
_ENOUGH = 3  # rounds that a tag must have for a figure of its own


def figures(rounds: Sequence[Round]) -> dict[str, Figure]:
    """By tag, NEAR and FAR where the brackets of enough rounds agree, otherwise whatever they are: how many rounds,
    each library's median seconds, and the median over rounds of the ratio of collx's time to each other's."""
    by_tag = {tag: [r for r in rounds if r.tag == tag] for tag in ("NEAR", "FAR", "?")}
    enough = {tag: some for tag, some in by_tag.items() if len(some) >= _ENOUGH}
    return {tag: _figure(some) for tag, some in (enough or {"mixed": list(rounds)}).items() if some}


def _figure(rounds: list[Round]) -> Figure:
    names = list(rounds[0].seconds)
    seconds = {name: statistics.median(r.seconds[name] for r in rounds) for name in names}
    ratio = {
        ours: {
            other: statistics.median(r.seconds[ours] / r.seconds[other] for r in rounds)
            for other in names
            if other not in OURS
        }
        for ours in names[:2]
        if ours in OURS
    }
    return {"rounds": len(rounds), "seconds": seconds, "ratio": ratio}


def tag_of(point: Point) -> str:
    """The tag under which most of a point's rounds were; empty where there are none."""
    found: dict[str, Figure] = point["figures"]
    return max(found, key=lambda tag: found[tag]["rounds"], default="")


def best_mpi(figure: Figure) -> str | None:
    """The fastest MPI of a point."""
    return min((name for name in MPIS if name in figure["seconds"]), key=figure["seconds"].__getitem__, default=None)


def ratio(figure: Figure, ours: str, other: str) -> float | None:
    """The ratio of our time to another's, or to the fastest MPI's; None where one of them was not measured."""
    name = best_mpi(figure) if other == BEST else other
    value: float | None = figure["ratio"].get(ours, {}).get(name)
    return value


def ratios(points: Iterable[Point], ours: str, other: str, tag: str = "") -> list[float]:
    """The ratios of those points that have one under this tag; "" takes each point's most frequent."""
    chosen = (point["figures"].get(tag or tag_of(point)) for point in points)
    found = (ratio(figure, ours, other) for figure in chosen if figure is not None)
    return [value for value in found if value is not None]


def mean(values: Sequence[float]) -> float:
    """The geometric mean, which is what ratios have."""
    return math.exp(sum(map(math.log, values)) / len(values))
