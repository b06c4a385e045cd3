"""A comparison of libraries as text: the lines of a running one, and a page of markdown with the goals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from collx.perf import standing
from collx.perf.goals import GOALS, Goal, Outcome, outcomes
from collx.perf.report import lines, machine_text, size_text, time_text
from collx.perf.rivals import MPIS
from collx.perf.standing import BEST, OURS, Point

Document = dict[str, Any]
_MISSING = "-"


def _against(names: Iterable[str]) -> list[str]:
    """Whom collx is compared with: each other library, and the best MPI where there are several."""
    others = [name for name in names if name not in OURS]
    return [*others, BEST] if len(set(others).intersection(MPIS)) > 1 else others


def head(collective: str, names: Sequence[str]) -> str:
    """The head of the table that a comparison prints while it runs."""
    ratios = "".join(f"  {f'/{name}':>9}" for name in _against(names))
    return f"# {collective}\n# {'size':>5}" + "".join(f"  {name:>11}" for name in names) + ratios + "  tag"


def row(point: Point, names: Sequence[str]) -> str:
    """One size's line of it: times, and collx's time over each other's."""
    if not point["figures"]:
        return f"  {size_text(point['size']):>5}  not enough memory for the arrays of all libraries"
    tag = standing.tag_of(point)
    figure = point["figures"][tag]
    times = "".join(f"  {_time(figure, name):>11}" for name in names)
    ratios = "".join(f"  {_ratio(figure, 'collx', name):>9}" for name in _against(names))
    differing = f"  RESULTS DIFFER: {', '.join(point['differing'])}" if point["differing"] else ""
    return f"  {size_text(point['size']):>5}{times}{ratios}  {tag}{differing}"


def _time(figure: Document, name: str) -> str:
    return time_text(figure["seconds"][name] * 1e6) if name in figure["seconds"] else _MISSING


def ratio_text(value: float) -> str:
    """Two decimals, three for small ones."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _ratio(figure: Document, ours: str, other: str) -> str:
    value = standing.ratio(figure, ours, other)
    return _MISSING if value is None else ratio_text(value)


# -- the page ----------------------------------------------------------------------------------------


def markdown(document: Document) -> str:
    """The whole comparison: what was compared and how, the goals, the means, and a table per collective."""
    parts = [
        "# collx beside other libraries",
        "",
        f"{machine_text(document['host'])}; collx at {document['revision'] or 'a release'}, {document['started']} to "
        f"{document['ended']}{_load(document)}.",
        "",
        f"{document['dtype']} {document['op']}, through each library's Python API on arrays allocated before: "
        f"{'; '.join(document['versions'].values())}.",
        "",
        "The libraries take turns, all within each round, for about "
        f"{document['seconds']:g} s per size. Times are medians over rounds of the slowest rank's mean; ratios are "
        "collx's time over the other's, medians over rounds of the ratio within a round: below 1, collx is faster. "
        "A round counts under the tag on which the probes before and after it agree: NEAR or FAR, as the two cores "
        "lie just then. A size's line shows the tag that most of its rounds had, `mixed` where the cores did not "
        "hold still.",
        "",
    ]
    missing = [
        f"With {ranks} ranks, without {why}.\n" for ranks, of in document["absent"].items() for why in of.values()
    ]
    parts += [*missing, *idle_lines(document), summary(document)]
    for (ranks, collective), points in groupby(document["points"], key=lambda p: (p["ranks"], p["collective"])):
        parts += ["", f"## {collective}, {ranks} ranks", "", *point_lines(list(points))]
    return "\n".join(parts) + "\n"


def summary(document: Document) -> str:
    """The goals, and the means for each number of ranks."""
    bound = "How near comm.empty comes to what memory allows is `python -m collx.perf.bounds`' to say, not this page's."
    parts = ["## Goals", "", *goal_lines(document), "", bound]
    for ranks, points in groupby(document["points"], key=lambda point: point["ranks"]):
        parts += ["", f"## {ranks} ranks: geometric means over sizes", "", *mean_lines(list(points))]
    return "\n".join(parts)


def _load(document: Document) -> str:
    return f"; load average before: {document['load']:g}" if "load" in document else ""


def idle_lines(document: Document) -> list[str]:
    """Whoever took the processor while another was measured has to be named."""
    found = [(share, name, ranks) for ranks, of in document["idle"].items() for name, share in of.items()]
    if not found:
        return []
    share, name, ranks = max(found)
    return [f"Processor time taken while not at turn: at most {share:.2%} of one core ({name}, {ranks} ranks).", ""]


def goal_lines(document: Document, goals: Sequence[Goal] = GOALS) -> list[str]:
    """A table of goals and of what was found."""
    head = ["goal", "limit", "found", "NEAR", "FAR", ""]
    return lines(
        head, ([goal_text(o.goal), f"{o.goal.limit:g}", *_found(o), o.verdict] for o in outcomes(document, goals))
    )


def goal_text(goal: Goal) -> str:
    """A goal in words."""
    points = " and ".join(goal.collectives) if len(goal.collectives) < 5 else "all five collectives"
    if goal.begin == goal.end:
        points += f" of {size_text(goal.begin)}"
    elif goal.begin:
        points += f" from {size_text(goal.begin)}"
    elif goal.end < 1 << 62:
        points += f" to {size_text(goal.end)}"
    what = {"mean": "geometric mean", "worst": "" if goal.begin == goal.end else "worst"}[goal.what]
    return f"{goal.ranks[0]} ranks, {goal.ours} / {goal.other}: {points}{', ' if what else ''}{what}"


def _found(outcome: Outcome) -> Iterator[str]:
    for tag in ("", "NEAR", "FAR"):
        value, count = outcome.found.get(tag, (None, 0))
        yield _MISSING if value is None else f"{value:.3f} ({count} point{'s' * (count > 1)})"


def _columns(points: list[Point]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """The libraries, the ratios to show of them, and the heads of those."""
    names = list(dict.fromkeys(n for p in points for f in p["figures"].values() for n in f["seconds"]))
    others = _against(names)
    empty = [name for name in names if name == "collx.empty" and BEST in others]
    columns = [("collx", other) for other in others] + [(name, BEST) for name in empty]
    return names, columns, [f"/{other}" for other in others] + [f"{name}/{BEST}" for name in empty]


def mean_lines(points: list[Point]) -> list[str]:
    """A table of geometric means, of each collective's points and of all."""
    _, columns, heads = _columns(points)
    groups = [(name, list(of)) for name, of in groupby(points, key=lambda point: point["collective"])]
    rows = [[name, *(_mean(of, *column) for column in columns)] for name, of in groups]
    rows += [["**all**", *(f"**{_mean(points, *column)}**" for column in columns)]]
    rows += [["worst", *(_worst(points, *column) for column in columns)]]
    return lines(["", *heads], rows)


def point_lines(points: list[Point]) -> list[str]:
    """A table of one collective's points."""
    names, columns, heads = _columns(points)
    return lines(["size", "tag", *names, *heads], _rows(points, names, columns))


def _rows(points: list[Point], names: list[str], columns: list[tuple[str, str]]) -> Iterator[list[str]]:
    for point in points:
        tag = standing.tag_of(point)
        figure = point["figures"].get(tag, {"seconds": {}, "ratio": {}})
        ratios = (_ratio(figure, *column) for column in columns)
        yield [size_text(point["size"]), tag, *(_time(figure, name) for name in names), *ratios]


def _mean(points: list[Point], ours: str, other: str) -> str:
    values = standing.ratios(points, ours, other)
    return ratio_text(standing.mean(values)) if values else _MISSING


def _worst(points: list[Point], ours: str, other: str) -> str:
    found = []
    for point in points:
        for value in standing.ratios([point], ours, other):
            found.append((value, f"{ratio_text(value)} ({point['collective']} {size_text(point['size'])})"))
    return max(found)[1] if found else _MISSING
