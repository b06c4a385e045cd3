"""The same sweep on other libraries, interleaved with collx: `collx perf ... --vs mpi`, `python -m collx.perf.peers`.

Every library is one long-lived job. For each size all of them prepare the same call; then they take turns in
short rounds, and only the ratio within a round is believed, because the machine drifts from one second to the
next. Ranks that are not at turn block in a read and cost nothing.
"""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from collx.errors import CollxError
from collx.perf import machine, report
from collx.perf.arguments import Parser, parse
from collx.perf.collectives import MEASURED
from collx.perf.options import Options, UsageError, nearest
from collx.perf.rivals import RIVALS, Job

_ROUND = 0.05  # seconds that one library's turn should take
_MOST_CALLS = 5000
_COMPARED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "scan", "exscan")


def compare(jobs: list[Job], options: Options, rounds: int) -> Iterator[dict[str, Any]]:
    """One record per size: each library's median seconds and digest, and the median over rounds of the ratio of
    the first library's time to each other's."""
    size, name = jobs[0].size, options.case.name
    for count in options.sizes(size):
        call = {"collective": name, "count": count, "dtype": options.dtype.name, "op": options.op, "root": options.root}
        digests = [[answer["digest"] for answer in job.ask(do="prepare", **call)] for job in jobs]
        calls = [_calls(job) for job in jobs]
        times: list[list[float]] = [[] for _ in jobs]
        for turn in range(rounds):
            order = list(range(len(jobs)))
            for index in order if turn % 2 == 0 else reversed(order):
                times[index].append(jobs[index].turn(calls[index], 2))
        ratios = [[ours / theirs for ours, theirs in zip(times[0], other, strict=True)] for other in times[1:]]
        yield {
            "size": count * options.dtype.itemsize,
            "seconds": {job.rival.name: statistics.median(taken) for job, taken in zip(jobs, times, strict=True)},
            "rounds": {job.rival.name: taken for job, taken in zip(jobs, times, strict=True)},
            "ratio": {job.rival.name: statistics.median(r) for job, r in zip(jobs[1:], ratios, strict=True)},
            "same": all(digest == digests[0] for digest in digests),
        }


def _calls(job: Job) -> int:
    """How many calls fill a round; the second estimate is the one without a cold start."""
    job.turn(1, 1)
    estimate = job.turn(3, 0)
    return max(2, min(_MOST_CALLS, int(_ROUND / max(estimate, 1e-7))))


def measure(options: Options, collectives: list[str], rounds: int) -> dict[str, Any]:
    """Run the whole comparison and print the table as it grows; the document for JSON and `report`."""
    for name in options.versus:
        if name not in RIVALS or name == "collx":
            raise nearest("library for --vs", name, [known for known in RIVALS if known != "collx"])
    for name in collectives:
        if name not in _COMPARED:
            raise UsageError(f"{name} is not measured side by side; these are: {', '.join(_COMPARED)}")
    size = options.ranks or 2
    rivals = [RIVALS[name] for name in ("collx", *options.versus)]
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    tables: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(Job(rival, size)) for rival in rivals]
        print(f"# {' against '.join(job.version for job in jobs)}, {size} ranks, {options.dtype.name} {options.op}")
        for name in collectives:
            print(report.versus_head(name, [rival.name for rival in rivals]), flush=True)
            tables[name] = []
            for point in compare(jobs, _of(options, name), rounds):
                tables[name].append(point)
                print(report.versus_row(point), flush=True)
        versions = {job.rival.name: job.version for job in jobs}
    return {
        "host": machine.describe(),
        "started": started,
        "ranks": size,
        "dtype": options.dtype.name,
        "op": options.op,
        "rounds": rounds,
        "versions": versions,
        "collectives": tables,
    }


def _of(options: Options, collective: str) -> Options:
    return replace(options, case=MEASURED[collective])


def versus(
    options: Options, collectives: list[str] | None = None, rounds: int = 9, markdown: Path | None = None
) -> int:
    """Compare and write what was asked for; 0, or 1 where the libraries' results differ."""
    document = measure(options, collectives or [options.case.name], rounds)
    if options.json:
        options.json.write_text(json.dumps(document) + "\n")
    if markdown:
        markdown.write_text(report.versus_markdown(document))
    return 0 if all(point["same"] for points in document["collectives"].values() for point in points) else 1


def main(argv: list[str]) -> int:
    """`python -m collx.perf.peers [COLLECTIVE,...] -n 2 -b 64K -e 64M [--vs mpi] [--rounds 9] [--json F]
    [--markdown F]`; other flags as the sweep's."""
    parser = Parser(prog="collx.perf.peers", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--vs", default="mpi")
    try:
        named = bool(argv) and not argv[0].startswith("-")
        own, rest = parser.parse_known_args(argv[named:])
        if own.rounds < 1:
            raise UsageError("--rounds must be at least 1")
        names = argv[0].split(",") if named else ["all_reduce"]
        options = parse([names[0], *rest, "--vs", own.vs])
        return versus(options, names, own.rounds, own.markdown)
    except UsageError as error:
        print(f"collx.perf.peers: {error}", file=sys.stderr)
        return 2
    except (CollxError, OSError) as error:
        print(f"collx.perf.peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
