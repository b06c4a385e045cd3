"""collx beside other libraries in interleaved runs: `make versus`, `python -m collx.perf.peers`, `collx perf --vs`.

Every library is one long-lived job. For each point all of them prepare the same call; then they take turns in short
rounds, and only ratios within a round are believed, because the machine drifts from one second to the next. Rounds
lie between two probes of how far apart the cores are, and have their tag. Ranks not at turn block in a read.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collx.errors import CollxError
from collx.perf import comparison, machine, picture, standing
from collx.perf.arguments import Parser, parse
from collx.perf.collectives import MEASURED
from collx.perf.contest import Bracket, Call, Contest
from collx.perf.goals import EVERY
from collx.perf.options import Options, UsageError, nearest
from collx.perf.probe import probe
from collx.perf.progress import Progress
from collx.perf.rivals import MPIS, OTHERS, RIVALS

_COMPARED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "scan", "exscan")
_GROUPS = {"mpi": MPIS, "all": OTHERS}
_QUICK = {8 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20}
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


def rivals_named(text: str) -> tuple[str, ...]:
    """The libraries that a --vs names: their own names, `mpi` for the three MPIs, `all`."""
    names: dict[str, None] = {}
    for name in filter(None, text.split(",")):
        if name not in _GROUPS and name not in OTHERS:
            raise nearest("library for --vs", name, [*OTHERS, *_GROUPS])
        names.update(dict.fromkeys(_GROUPS.get(name, (name,))))
    return tuple(names)


def bracketing(say: Say) -> Bracket:
    """The probe, or where it cannot be had the tag `?`, and that is said."""
    try:
        probe()
    except CollxError as error:
        say(f"# no tags: {error}")
        return lambda: "?"
    return lambda: probe().tag


def measure(plan: Plan, say: Say, bracket: Bracket) -> dict[str, Any]:
    """Run the comparison, saying each line of its table as it comes; the document for JSON and markdown."""
    document: dict[str, Any] = {
        "host": machine.describe(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "dtype": plan.options.dtype.name,
        "op": plan.options.op,
        "seconds": plan.options.seconds,
        "versions": {},
        "absent": {},
        "idle": {},
        "points": [],
    }
    with Progress(sum(len(list(plan.calls(ranks))) for ranks in plan.ranks), shown=True) as progress:
        for ranks in plan.ranks:
            progress.start(f"{ranks} ranks: starting {', '.join(plan.rivals)}")
            ours = ("collx", "collx.empty")
            with Contest([RIVALS[name] for name in (*ours, *plan.rivals)], ranks, bracket) as contest:
                _points(plan, contest, document, say, progress)
                document["versions"] |= contest.versions
                document["idle"][str(ranks)] = contest.idle
                document["absent"] |= {f"{name}, {ranks} ranks": why for name, why in contest.absent.items()}
    return document | {"ended": time.strftime("%Y-%m-%d %H:%M:%S")}


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


def versus(options: Options) -> int:
    """`collx perf COLLECTIVE --vs ...`; 0, or 1 where the libraries' results differ."""
    _comparable([options.case.name])
    rivals = rivals_named(",".join(options.versus))
    plan = Plan(options, (options.ranks or 2,), (options.case.name,), rivals, options.end)
    document = measure(plan, _say, bracketing(_say))
    if options.json:
        options.json.write_text(json.dumps(document) + "\n")
    return _status(document)


def _say(line: str) -> None:
    print(line, flush=True)


def _status(document: dict[str, Any]) -> int:
    return 1 if any(point["differing"] for point in document["points"]) else 0


def _comparable(collectives: list[str]) -> None:
    for name in collectives:
        if name not in _COMPARED:
            raise UsageError(f"{name} is not measured side by side; these are: {', '.join(_COMPARED)}")


def _parser() -> Parser:
    parser = Parser(prog="collx.perf.peers", description="collx beside other libraries.", allow_abbrev=False)
    add = parser.add_argument
    add("--collectives", default=",".join(EVERY), help="with commas (the five card collectives)")
    add("-n", "--ranks", default="2,4,8", help="numbers of ranks, with commas (2,4,8)")
    add("-b", "--minbytes", default="8", help="smallest size (8)")
    add("-e", "--maxbytes", help="largest size (256M with 2 ranks, 64M with others)")
    add("-f", "--stepfactor", default="2", help="from one size to the next (2)")
    add("--seconds", help="of rounds for each point (3; with --quick 0.5)")
    add("--vs", default="all", help="openmpi, mpich, intelmpi, gloo; mpi: the three MPIs; all (all)")
    add("--quick", action="store_true", help="few sizes up to 64M, little time")
    add("--output", type=Path, help="write OUTPUT.json, OUTPUT.md and a picture OUTPUT-N.png per number of ranks")
    return parser


def plan_of(argv: list[str]) -> tuple[Plan, Path | None]:
    """What a command line asks for, and where to write it; UsageError says what is wrong with it."""
    given = _parser().parse_args(argv)
    collectives = given.collectives.split(",")
    _comparable(collectives)
    try:
        ranks = tuple(int(text) for text in given.ranks.split(","))
    except ValueError:
        raise UsageError(f"-n {given.ranks}: numbers of ranks, with commas between") from None
    if min(ranks) < 2:
        raise UsageError(f"-n {given.ranks}: a comparison takes at least 2 ranks")
    if given.output is not None and not given.output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {given.output}.json: no such directory")
    if given.output is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--output draws pictures with matplotlib; install it with: pip install 'collx[plot]'")
    sizes = ["-b", given.minbytes, "-e", given.maxbytes or "64M", "-f", given.stepfactor]
    seconds = given.seconds or ("0.5" if given.quick else "3")
    options = parse([collectives[0], *sizes, "--seconds", seconds, "--vs", given.vs])
    end = options.end if given.maxbytes else None
    return Plan(options, ranks, tuple(collectives), rivals_named(given.vs), end, given.quick), given.output


def main(argv: list[str]) -> int:
    """The whole comparison. 0: measured; 1: results differ, or collx failed; 2: a mistake on the command line."""
    try:
        plan, output = plan_of(argv)
        document = measure(plan, _say, bracketing(_say))
        page = comparison.markdown(document)
        print("\n" + page.partition("## Goals")[2].partition("\n### ")[0].strip())
        if output is not None:
            output.with_suffix(".json").write_text(json.dumps(document) + "\n")
            output.with_suffix(".md").write_text(page)
            for ranks in plan.ranks:
                picture.draw(document, ranks, output.with_name(f"{output.name}-{ranks}.png"))
        return _status(document)
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
