"""A comparison from its first point to its last: what to compare, and the document that comes of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collx.errors import CollxError
from collx.perf import comparison, machine, standing
from collx.perf.collectives import MEASURED
from collx.perf.contest import Bracket, Call, Contest
from collx.perf.options import Options, UsageError
from collx.perf.probe import probe
from collx.perf.progress import Progress
from collx.perf.rivals import RIVALS, Rival

_QUICK = {8 << 10, 64 << 10, 1 << 20, 64 << 20}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare: `options` of a sweep for sizes, dtype and op, and the seconds for each point. `end` is the
    largest size; None: as large as takes reasonable time and memory."""

    options: Options
    ranks: tuple[int, ...]
    collectives: tuple[str, ...]
    rivals: tuple[str, ...]
    end: int | None
    quick: bool = False

    def calls(self, ranks: int) -> Iterator[tuple[Call, int]]:
        """Each point's call, and its size in bytes."""
        end = self.end or (256 if ranks == 2 and not self.quick else 64) << 20
        for name in self.collectives:
            options = replace(self.options, case=MEASURED[name], end=end)
            for index, count in enumerate(options.sizes(ranks)):
                size = count * options.dtype.itemsize
                if index == 0 or not self.quick or size in _QUICK:
                    yield Call(name, count, options.dtype.name, options.op, options.root), size


def bracketing(say: Say) -> Bracket:
    """The probe, or where it cannot be had the tag `?`, and that is said."""
    try:
        probe()
    except CollxError as error:
        say(f"# no tags: {error}")
        return lambda: "?"
    return lambda: probe().tag


def fresh(plan: Plan) -> dict[str, Any]:
    """A document that says what is measured where, without points."""
    return {
        "host": machine.describe(),
        "revision": revision(),
        "load": round(os.getloadavg()[0], 1),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "ended": "",
        "dtype": plan.options.dtype.name,
        "op": plan.options.op,
        "seconds": plan.options.seconds,
        "versions": {},
        "absent": {},
        "idle": {},
        "points": [],
    }


def measure(
    plan: Plan,
    document: dict[str, Any],
    say: Say,
    bracket: Bracket,
    contestants: Callable[[int], list[Rival]] | None = None,
) -> None:
    """Run the comparison into a fresh document for JSON and markdown, saying each line of its table as it comes.
    `contestants` are those of a number of ranks, collx first; by default collx and the plan's rivals on this host."""
    with Progress(sum(len(list(plan.calls(ranks))) for ranks in plan.ranks), shown=True) as progress:
        for ranks in plan.ranks:
            progress.start(f"{ranks} ranks: starting {', '.join(plan.rivals)}")
            named = (*standing.OURS, *plan.rivals)
            rivals = contestants(ranks) if contestants else [RIVALS[name] for name in named]
            with Contest(rivals, ranks, bracket) as contest:
                _points(plan, contest, document, say, progress)
                document["versions"] |= contest.versions
                document["idle"][str(ranks)] = contest.idle
                document["absent"][str(ranks)] = contest.absent
    document["ended"] = time.strftime("%Y-%m-%d %H:%M:%S")


def _points(plan: Plan, contest: Contest, document: dict[str, Any], say: Say, progress: Progress) -> None:
    """Every point of one number of ranks."""
    told: set[str] = set()
    heading = ""

    def tell_absent() -> None:
        for name, why in contest.absent.items():
            if name not in told:
                told.add(name)
                say(f"# without {why}")

    tell_absent()
    say(f"# {contest.size} ranks, {plan.options.dtype.name} {plan.options.op}: {'; '.join(contest.versions.values())}")
    for call, size in plan.calls(contest.size):
        progress.start(f"{contest.size} ranks, {call.collective} {size} B")
        lengths = MEASURED[call.collective].lengths(call.count, call.count // contest.size)
        nbytes = contest.size * sum(lengths) * plan.options.dtype.itemsize
        rounds, odd = contest.measure(call, plan.options.seconds, nbytes)
        tell_absent()
        point = {
            "ranks": contest.size,
            "collective": call.collective,
            "size": size,
            "differing": odd,
            "figures": standing.figures(rounds),
        }
        document["points"].append(point)
        if heading != call.collective:
            heading = call.collective
            say(comparison.head(call.collective, list(contest.versions)))
        say(comparison.row(point, list(contest.versions)))
        progress.advance()


def revision() -> str:
    """The commit of the checkout that is measured, with a + where its code has changed since; empty outside of one."""
    here = Path(__file__).resolve().parents[1]
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(here), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--", "collx", "algorithms", "transports"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}+" if changed else commit


def belongs_beside(old: dict[str, Any], new: dict[str, Any]) -> None:
    """UsageError where the figures of two documents must not stand on one page."""
    for key in ("host", "revision", "dtype", "op"):
        if old[key] != new[key]:
            raise UsageError(f"--add to figures of {key} {old[key]}: here it is {new[key]}")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both documents' points. Where both have a point the newer figures hold, and the older ones of other tags beside
    them."""
    points = {_place(point): point for point in old["points"]}
    for point in new["points"]:
        found = points.get(_place(point), point)["figures"] | point["figures"]
        clear = {tag: figure for tag, figure in found.items() if tag != "mixed"}
        points[_place(point)] = point | {"figures": clear or found}
    return new | {
        "started": old["started"],
        "load": max(old["load"], new["load"]),
        **{key: old[key] | new[key] for key in ("versions", "absent", "idle")},
        "points": [points[place] for place in sorted(points)],
    }


def _place(point: dict[str, Any]) -> tuple[int, int, int]:
    return point["ranks"], list(MEASURED).index(point["collective"]), point["size"]
