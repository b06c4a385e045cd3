"""Why the selector chooses what it chooses: every candidate with what is known of it, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import NamedTuple

import numpy as np

from collx.collectives import COLLECTIVES
from collx.cost import GAMMA, estimate
from collx.guide import UNGUIDED, Guide
from collx.plan import balanced
from collx.request import Request
from collx.schedule import Groups
from collx.selector import Choice, by_another_name, choose, objection, placed
from collx.topology import Topology
from collx.tuning import Point, Table
from collx.types import nearest, reduce_op
from collx.wishes import MPI, may_choose

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Candidate(NamedTuple):
    """One algorithm for one call. Seconds are of the slowest rank, None where they are not known; `rounds` is the
    longest chain of messages, `sent` the most bytes that any rank sends. `objection`: why it cannot serve."""

    name: str
    predicted: float | None
    measured: float | None
    rounds: int | None
    sent: int | None
    links: Mapping[str, int]
    objection: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The contest for one call: which algorithm is chosen, why, and every candidate, the chosen one first. `str()` of
    it is a table."""

    collective: str
    nbytes: int
    size: int
    chosen: str
    why: str
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        shown = [candidate for candidate in self.candidates if candidate.objection is None]
        rows = [self._row(candidate) for candidate in shown]
        links = list(dict.fromkeys(link for candidate in shown for link in candidate.links))
        head = ["", "algorithm", "predicted", "measured", "rounds", "sent", *links]
        for row, candidate in zip(rows, shown, strict=True):
            row += [bytes_text(candidate.links[link]) if link in candidate.links else "-" for link in links]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [f"{self.collective} of {bytes_text(self.nbytes)} on {self.size} ranks: {self.chosen}, {self.why}"]
        for row in (head, *rows):
            left = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths, strict=False)]
            right = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join([*left, *right]).rstrip())
        cannot = (f"  not {entry.name}: {entry.objection}" for entry in self.candidates if entry.objection)
        return "\n".join([*lines, *cannot])

    def _row(self, candidate: Candidate) -> list[str]:
        times = [seconds_text(seconds) for seconds in (candidate.predicted, candidate.measured)]
        rounds = "-" if candidate.rounds is None else str(candidate.rounds)
        sent = "-" if candidate.sent is None else bytes_text(candidate.sent)
        return ["*" if candidate.name == self.chosen else "", candidate.name, *times, rounds, sent]


def explain(
    collective: str,
    nbytes: int,
    size: int,
    room: float,
    far: bool = False,
    mpi: bool = False,
    guide: Guide = UNGUIDED,
    hosts: Groups = (),
    topology: Topology | None = None,
    predicts: bool = False,
) -> Explanation:
    """The contest for a call with a buffer of about `nbytes`, of float32 and sum; for the others see `choose`. On a
    `topology` times are predicted, with what a tuning table knows of its links, unless it is one that only `predicts`:
    then predictions decide, where nothing else was said or measured.

    Raises ValueError for an unknown collective.
    """
    request = typical(collective, nbytes, size)
    choice = choose(request, size, room, far, mpi, guide, hosts)
    gamma: float | None = None
    if topology is not None and guide.table is not None and not predicts:
        topology, gamma = topology.with_links(guide.table.links), guide.table.gamma
    candidates = [
        _candidate(name, request, size, objection(name, request, size, room, mpi, hosts), guide, hosts, topology, gamma)
        for name in (*may_choose(collective), *[MPI] * mpi)
    ]
    name, why = choice.name, sentence(choice, request, guide)
    wish = guide.wish(collective)
    priced = [
        entry
        for entry in candidates
        if entry.predicted is not None
        and (not wish or wish.allows(entry.name))
        and not by_another_name(collective, entry.name, size, hosts)
    ]
    if predicts and priced and choice.by == "rule":
        name = min(priced, key=lambda entry: (entry.predicted, entry.rounds, entry.name)).name
        ruled = "as the rules say too" if name == choice.name else f"the rules, which do not know it, say {choice.name}"
        why = f"predicted to be the fastest on this topology ({ruled})"
    candidates.sort(key=lambda entry: (entry.name != name, entry.objection is not None, _rank(entry)))
    return Explanation(collective, request.nbytes, size, name, why, tuple(candidates))


def typical(collective: str, nbytes: int, size: int) -> Request:
    """The call that tables are measured and contests explained by: float32, sum, root 0, equal blocks."""
    if collective not in tuple(COLLECTIVES):  # which also takes what has no hash
        raise ValueError(f"unknown collective {collective!r}: {nearest(str(collective), COLLECTIVES)}")
    spec, dtype = COLLECTIVES[collective], np.dtype(np.float32)
    whole = 0 if spec.result == "heard" else nbytes // dtype.itemsize
    elements = tuple(balanced(whole, size)) if spec.per_rank else (whole,)
    return Request(collective, elements, dtype, op=reduce_op("sum") if spec.reduces else None)


def first_choice(request: Request, size: int, room: float, far: bool, mpi: bool, guide: Guide, hosts: Groups) -> str:
    """What COLLX_DEBUG=INFO says of a call: its collective and size class, the algorithm, and why."""
    choice = choose(request, size, room, far, mpi, guide, hosts)
    return f"{class_text(request)}: {choice.name}, {sentence(choice, request, guide)}"


def class_text(request: Request) -> str:
    """As "all_reduce of 1 KiB to 2 KiB": the collective, and from which power of two bytes to the next."""
    low = 1 << max(request.nbytes.bit_length() - 1, 0)
    of = f" of {bytes_text(low)} to {bytes_text(2 * low)}" if request.nbytes else ""
    return f"{request.called or request.collective}{of}"


def sentence(choice: Choice, request: Request, guide: Guide) -> str:
    """Why it was chosen."""
    wish = guide.wish(request.collective)
    wished = f" of those that COLLX_ALGO leaves, {wish}" if wish and not request.called else ""
    match choice.by:
        case "explicit":
            return "as the call says"
        case "COLLX_ALGO":
            return f"as COLLX_ALGO says, {wish}"
        case "measured":
            return f"measured to be the fastest{wished}"
        case _ if choice.name == MPI:
            return f"as MPI's own collective means the same{wished}"
    return f"by the rules that collx comes with{wished}"


def _candidate(
    name: str,
    request: Request,
    size: int,
    why_not: str | None,
    guide: Guide,
    hosts: Groups,
    topology: Topology | None,
    gamma: float | None,
) -> Candidate:
    measured = _measured(guide.table, request.collective, name, request.nbytes)
    if name == MPI or why_not is not None:
        return Candidate(name, None, measured, None, None, {}, why_not)
    algorithm = placed(name, request, hosts)
    sent = int(algorithm.volume(size) * request.nbytes)
    if topology is None or size < 2:
        return Candidate(name, None, measured, algorithm.rounds(size), sent, {}, None)
    priced = estimate(algorithm, size, topology, request.nbytes, gamma=gamma or GAMMA)
    return Candidate(name, priced.seconds, measured, algorithm.rounds(size), sent, priced.by_link, None)


def _rank(candidate: Candidate) -> tuple[float, float, int]:
    """By what is known of its speed."""
    unknown = float("inf")
    known = (candidate.measured, candidate.predicted)
    first, second = (unknown if seconds is None else seconds for seconds in known)
    return first, second, candidate.rounds or 0


def _measured(table: Table | None, collective: str, name: str, nbytes: int) -> float | None:
    """Seconds that the table has for it, between two sizes by a line in logarithms; None beyond those measured."""
    points = [point for point in table.points.get(collective, ()) if name in point.nanoseconds] if table else []
    below = [point for point in points if point.nbytes <= nbytes]
    above = [point for point in points if point.nbytes >= nbytes]
    return _between(below[-1], above[0], name, nbytes) if below and above else None


def _between(below: Point, above: Point, name: str, nbytes: int) -> float:
    first, second = below.nanoseconds[name], above.nanoseconds[name]
    if below.nbytes == above.nbytes:
        return first / 1e9
    ends = (log(max(below.nbytes, 1)), log(above.nbytes))
    share = (log(max(nbytes, 1)) - ends[0]) / max(ends[1] - ends[0], 1e-9)
    return exp(log(first) + share * (log(second) - log(first))) / 1e9


def bytes_text(nbytes: int) -> str:
    """As "8 B", "1.5 KiB" or "64 MiB"."""
    value, unit = float(nbytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if value < 1000 else f"{value:.0f} {_UNITS[unit]}"


def seconds_text(seconds: float | None) -> str:
    """As "1.2 us", "3.4 ms" or "5 s"; "-" for None."""
    if seconds is None:
        return "-"
    scale, unit = next(
        ((scale, unit) for scale, unit in ((1.0, "s"), (1e3, "ms")) if seconds * scale >= 1), (1e6, "us")
    )
    value = seconds * scale
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
