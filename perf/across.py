"""collx between hosts over TCP beside Gloo and Open MPI: `make tcp`, `python -m collx.perf.across`; as root.

The hosts are network namespaces joined by a cable. Jobs of all three take turns, with one rank on each host and with
two; then all_reduce once more over the cable held to 1 Gbit/s, against the time in which its bytes can pass.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from collx.perf import comparison, versus
from collx.perf.apart import contestants
from collx.perf.arguments import parse
from collx.perf.contest import Call, Contest
from collx.perf.goals import EVERY, Goal
from collx.perf.hosts import Hosts, joined
from collx.perf.link import rate
from collx.perf.options import UsageError, numbers
from collx.perf.program import Parser, program
from collx.perf.report import lines, machine_text, time_text
from collx.perf.standing import figures, tag_of

K, M = 1 << 10, 1 << 20
GOALS = tuple(
    goal
    for ranks in (2, 4)
    for goal in (
        Goal((ranks,), "mean", "gloo", 0.5, end=64 * M),
        Goal((ranks,), "mean", "gloo", 0.25, end=64 * K),
        Goal((ranks,), "mean", "openmpi", 0.8, end=64 * M),
        Goal((ranks,), "worst", "gloo", 1.1, end=64 * M),
        Goal((ranks,), "worst", "openmpi", 1.1, end=64 * M),
    )
)
HOSTS = 2
GIGABIT = "1gbit"
SHAPED = 64 * M  # bytes of the all_reduce over the cable held to a rate
LIMIT = 1.11  # of its time over the bound
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


# -- over the cable held to a rate -------------------------------------------------------------------


def shaped(hosts: Hosts, ranks: int, seconds: float, carried: float) -> dict[str, Any]:
    """Times of a large all_reduce, and the time in which its bytes can pass a link that `carried` so many a second."""
    with Contest(contestants(hosts, ranks), ranks, lambda: "?") as contest:
        call = Call("all_reduce", SHAPED // 4, "float32", "sum", 0)
        rounds, odd = contest.measure(call, seconds, 2 * ranks * SHAPED)
        found = figures(rounds)
        return {
            "ranks": ranks,
            "rate": carried,
            "bound": 2 * (ranks - 1) / ranks * SHAPED / carried,
            "seconds": found[tag_of({"figures": found})]["seconds"] if found else {},
            "rounds": len(rounds),
            "differing": odd,
            "absent": contest.absent,
        }


def shaped_lines(document: dict[str, Any]) -> list[str]:
    """What came of it, as a table."""
    rows = []
    for run in document["shaped"]:
        for name, seconds in run["seconds"].items():
            over = seconds / run["bound"]
            verdict = ("reached" if over <= LIMIT else "NOT REACHED") if name == "collx" else ""
            bound = time_text(run["bound"] * 1e6)
            rows.append([f"{run['ranks']} ranks, {name}", time_text(seconds * 1e6), bound, f"{over:.3f}", verdict])
    return lines(["all_reduce of 64M", "time", "bound", "time / bound", ""], rows)


# -- the page ----------------------------------------------------------------------------------------


def page(document: dict[str, Any]) -> str:
    """The whole comparison as markdown."""
    parts = [
        "# collx over TCP beside Gloo and Open MPI",
        "",
        f"{machine_text(document['host'])}; collx at {document['revision'] or 'a release'}, {document['started']} to "
        f"{document['ended']}; load average before: {document['load']:g}. By `make tcp`, as root.",
        "",
        "Two hosts, network namespaces on this machine joined by a pair of veth interfaces, with one rank on each (2 "
        f"ranks) and two (4 ranks). {document['dtype']} {document['op']}, through each library's Python API on arrays "
        f"allocated before: {'; '.join(document['versions'].values())}. collx is started by `collx run --nnodes 2`, "
        "Gloo told which interface to use, Open MPI held to its own TCP between the hosts (`pml ob1`, `btl "
        "self,tcp`; with two ranks on a host also `sm`) and, where there are more ranks than cores, to yield; "
        "otherwise nothing is tuned. Both hosts have the same cores, which no library knows. Connections that do not "
        f"ask for another congestion control have {document['congestion']}; collx asks for cubic, where it may.",
        "",
        "The libraries take turns, all within each round, for about "
        f"{document['seconds']:g} s per size. Times are medians over rounds of the slowest rank's mean; ratios are "
        "collx's time over the other's, medians over rounds of the ratio within a round: below 1, collx is faster. "
        "The tag says how far apart the two cores were (docs/perf.md).",
        "",
    ]
    missing = [f"With {n} ranks, without {why}.\n" for n, of in document["absent"].items() for why in of.values()]
    parts += [*missing, *comparison.idle_lines(document), "## Goals", "", *comparison.goal_lines(document, GOALS)]
    if document["shaped"]:
        carried = document["shaped"][0]["rate"]
        parts += [
            *("", f"## Over the cable held to {GIGABIT}", ""),
            f"By `tbf` on both ends. One TCP connection carries {carried / 1e6:.1f} MB/s over it, measured "
            f"just before; the bound is 2(p-1)/p times 64 MiB at that rate. Goal: at most {LIMIT} of the bound.",
            *("", *shaped_lines(document)),
            *(
                f"\nWith {run['ranks']} ranks, without {why}."
                for run in document["shaped"]
                for why in run["absent"].values()
            ),
        ]
    for ranks, points in groupby(document["points"], key=lambda point: point["ranks"]):
        parts += ["", f"## {ranks} ranks: geometric means over sizes", "", *comparison.mean_lines(list(points))]
    for (ranks, collective), points in groupby(document["points"], key=lambda p: (p["ranks"], p["collective"])):
        parts += ["", f"## {collective}, {ranks} ranks", "", *comparison.point_lines(list(points))]
    return "\n".join(parts) + "\n"


# -- the command -------------------------------------------------------------------------------------


def run(plan: versus.Plan, seconds: float, congestion: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything; `seconds` is for each shaped run, 0 for none, `congestion` that of the hosts, "" for this
    machine's."""
    document = versus.fresh(plan) | {"shaped": [], "congestion": congestion or CONGESTION.read_text().strip()}
    with tempfile.TemporaryDirectory(prefix="collx-hosts-") as folder, joined(HOSTS, Path(folder)) as hosts:
        if congestion:
            hosts.control_congestion(congestion)
        if plan.collectives:
            versus.measure(plan, document, say, versus.bracketing(say), lambda ranks: contestants(hosts, ranks))
        if seconds:
            with hosts.shaped(GIGABIT):
                carried = rate(hosts)
                document["shaped"] = [shaped(hosts, ranks, seconds, carried) for ranks in plan.ranks]
    return document


def _parser() -> Parser:
    parser = Parser("collx.perf.across", "collx over TCP beside others.")
    add = parser.add_argument
    add("--collectives", default=",".join(EVERY), help="with commas (the five card collectives)")
    add("--each", default="1,2", help="numbers of ranks on each host, with commas (1,2)")
    add("-b", "--minbytes", default="8", help="smallest size (8)")
    add("-e", "--maxbytes", default="64M", help="largest size (64M)")
    add("-f", "--stepfactor", default="2", help="from one size to the next (2)")
    add("--seconds", help="of rounds for each point (0.5; with --quick 0.2)")
    add("--shaped", type=float, default=6, help="seconds for all_reduce over 1 Gbit/s, 0 for none (6)")
    add("--congestion", default="", help="control that the hosts have by default: cubic, bbr (this machine's)")
    add("--quick", action="store_true", help="few sizes, little time")
    add("--output", type=Path, help="write OUTPUT.md and OUTPUT.json")
    return parser


def plan_of(argv: list[str]) -> tuple[versus.Plan, float, str, Path | None]:
    """What a command line asks for, the seconds of a shaped run, the congestion control, and where to write; UsageError
    says what is wrong with it."""
    given = _parser().parse_args(argv)
    collectives = tuple(filter(None, given.collectives.split(",")))
    ranks = tuple(HOSTS * each for each in numbers("--each", given.each, 1))
    unknown = [name for name in collectives if name not in EVERY]
    if unknown:
        raise UsageError(f"{unknown[0]} is not measured here; these are: {', '.join(EVERY)}")
    if given.output and not given.output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {given.output}.md: no such directory")
    sizes = ["-b", given.minbytes, "-e", given.maxbytes, "-f", given.stepfactor]
    options = parse(["all_reduce", *sizes, "--seconds", given.seconds or ("0.2" if given.quick else "0.5")])
    plan = versus.Plan(options, ranks, collectives, ("gloo", "openmpi"), options.end, given.quick)
    return plan, given.shaped, given.congestion, given.output


@program("collx.perf.across")
def main(argv: list[str]) -> int:
    """The whole comparison. 0: measured; 1: results differ, or something failed; 2: a mistake on the command line."""
    plan, seconds, congestion, output = plan_of(argv)
    document = run(plan, seconds, congestion, lambda line: print(line, flush=True))
    print("\n".join(["", *comparison.goal_lines(document, GOALS), "", *shaped_lines(document)]))
    if output is not None:
        output.with_suffix(".json").write_text(json.dumps(document) + "\n")
        output.with_suffix(".md").write_text(page(document))
    return 1 if any(point["differing"] for point in (*document["points"], *document["shaped"])) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
