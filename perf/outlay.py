"""Regrets of the selector's choices as text: a summary of jobs, and a page of markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from collx.perf.report import lines, machine_text, size_text, time_text

Point = dict[str, Any]
# Of which choice, times the best candidate, at so many of the points: what is to be reached.
GOALS = (("after", 1.15, 0.95), ("after", 1.5, 1.0), ("before", 1.5, 0.9))
_SIDES = {"after": "after `collx tune --quick`", "before": "without a table"}


def share(points: Sequence[Point], side: str, limit: float) -> float:
    """Of the points, those at which the choice takes at most `limit` times the best."""
    return sum(bool(point[side]["regret"] <= limit) for point in points) / len(points)


def plain_share(points: Sequence[Point], side: str, limit: float) -> float:
    """The same by medians over all rounds, of which the least of several seems faster than it is: that errs high, as
    the regret of few noisy rounds errs low."""
    ratios: list[float] = [point["seconds"][point[side]["choice"]] / min(point["seconds"].values()) for point in points]
    return sum(ratio <= limit for ratio in ratios) / len(points)


def _worst(points: Sequence[Point], side: str) -> str:
    point = max(points, key=lambda one: one[side]["regret"])
    return f"{point[side]['regret']:.2f} ({point['collective']} {size_text(point['size'])}, {point[side]['choice']})"


def _row(name: str, points: Sequence[Point]) -> list[str]:
    shares = [f"{share(points, side, limit):.0%}" for side, limit, _ in GOALS]
    return [name, str(len(points)), *shares[:2], _worst(points, "after"), shares[2], _worst(points, "before")]


def summary(points: Sequence[Point]) -> list[str]:
    """A line for each job, one for all, and whether the goals are reached."""
    head = ["job", "points", "tuned: to 1.15", "to 1.5", "worst", "untuned: to 1.5", "worst"]
    jobs = [(job, list(of)) for job, of in groupby(points, key=lambda point: point["job"])]
    rows = [_row(job, of) for job, of in jobs]
    table = lines(head, [*rows, _row("all", points)] if len(jobs) > 1 else rows)
    verdicts = [
        f"- {_SIDES[side]}, at most {limit:g} times the best at {wanted:.0%} of the points: "
        f"{'reached' if (found := share(points, side, limit)) >= wanted else 'NOT REACHED'}, {found:.1%}"
        f" (by plain medians {plain_share(points, side, limit):.1%})."
        for side, limit, wanted in GOALS
    ]
    return [*table, "", *verdicts]


def beyond(points: Iterable[Point]) -> list[str]:
    """The points at which a choice is beyond its limit: 1.15 times the best after tuning, 1.5 before."""
    rows = []
    for point in points:
        seconds = point["seconds"]
        best = min(seconds, key=lambda name: seconds[name])
        for side, limit in (("after", 1.15), ("before", 1.5)):
            name, found = point[side]["choice"], point[side]["regret"]
            if found > limit:
                where = f"{point['job']}, {point['collective']} {size_text(point['size'])}"
                times = [f"{one} {time_text(seconds[one] * 1e6)}" for one in (name, best)]
                rows.append([where, side, *times, f"{found:.2f}", str(point["rounds"])])
    return lines(["where", "tuning", "chosen", "best", "regret", "rounds"], rows)


def page(document: dict[str, Any]) -> str:
    """The whole measurement as markdown."""
    points = document["points"]
    parts = [
        "# What it costs to leave the choice to the selector",
        "",
        f"{machine_text(document['host'])}; collx at {document['revision'] or 'a release'}, {document['ended']}. By "
        "`make regret`, as root. float32, sum, root 0.",
        "",
        "Jobs are ranks on this machine, or on two hosts (`2x2`: two each), network namespaces on this machine joined "
        "by a pair of veth interfaces, which `@1gbit` holds to that by `tbf`. For each job `collx tune --quick` made a "
        "table; then all algorithms that can serve took turns at every size from 8 bytes by 4 to 64 MiB, "
        f"{document['seconds']:g} s a point on average, the selector's choices with and without the table among them. "
        "Other than these, only what took 2.25 times the best at a first look, or 1.5 times in each of four "
        "rounds, is left out.",
        "",
        "Regret is how many times as long as the best candidate the choice takes: the median over rounds of the ratio "
        "within a round, so that what drifts befalls both. The best of several noisy figures seems better than it is, "
        "so one half of the rounds says which candidate is the best, the other half how far behind it the choice is: "
        "both ways, and their geometric mean. It may come out below 1, and of few rounds it errs low, as the plain "
        "ratio of medians errs high: both shares are given.",
        "",
        *summary(points),
        "",
        "## Beyond the limits",
        "",
        *beyond(points),
    ]
    for (job, collective), of in groupby(points, key=lambda point: (point["job"], point["collective"])):
        parts += ["", f"## {collective}, {job}", "", *_points(list(of))]
    return "\n".join(parts) + "\n"


def _points(points: Sequence[Point]) -> list[str]:
    """Every size of one collective: the choices with their regrets, and the best candidate."""
    rows = []
    for point in points:
        seconds = point["seconds"]
        best = min(seconds, key=lambda name: seconds[name])
        cells = list[str]()
        for side in ("after", "before"):
            name = point[side]["choice"]
            cells += [f"{name} {time_text(seconds[name] * 1e6)}", f"{point[side]['regret']:.2f}"]
        rows.append([size_text(point["size"]), *cells, f"{best} {time_text(seconds[best] * 1e6)}"])
    return lines(["size", "tuned", "regret", "untuned", "regret", "best"], rows)
