"""collx beside other libraries in interleaved runs: `make versus`, `python -m collx.perf.peers`, `collx perf --vs`.

Every library is one long-lived job. For each point all of them prepare the same call; then they take turns in short
rounds, and only ratios within a round are believed, because the machine drifts from one second to the next. Rounds
lie between two probes of how far apart the cores are, and have their tag. Ranks not at turn block in a read.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from collx.perf import comparison, picture
from collx.perf.arguments import parse
from collx.perf.goals import EVERY
from collx.perf.options import Options, UsageError, nearest, numbers
from collx.perf.program import Parser, program
from collx.perf.rivals import MPIS, OTHERS
from collx.perf.versus import Plan, belongs_beside, bracketing, fresh, measure, merged

_COMPARED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "scan", "exscan")
_GROUPS = {"mpi": MPIS, "all": OTHERS}


def rivals_named(text: str) -> tuple[str, ...]:
    """The libraries that a --vs names: their own names, `mpi` for the three MPIs, `all`."""
    names: dict[str, None] = {}
    for name in filter(None, text.split(",")):
        if name not in _GROUPS and name not in OTHERS:
            raise nearest("library for --vs", name, [*OTHERS, *_GROUPS])
        names.update(dict.fromkeys(_GROUPS.get(name, (name,))))
    return tuple(names)


def versus(options: Options) -> int:
    """`collx perf COLLECTIVE --vs ...`; 0, or 1 where the libraries' results differ."""
    _comparable([options.case.name])
    rivals = rivals_named(",".join(options.versus))
    plan = Plan(options, (options.ranks or 2,), (options.case.name,), rivals, options.end)
    document = fresh(plan)
    measure(plan, document, _say, bracketing(_say))
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
    parser = Parser("collx.perf.peers", "collx beside other libraries.")
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
    add("--add", action="store_true", help="keep what OUTPUT.json has of other points, and of other tags of the same")
    return parser


def plan_of(argv: list[str]) -> tuple[Plan, Path | None, bool]:
    """What a command line asks for, where to write it, and whether to add to what is there; UsageError says what is
    wrong with it."""
    given = _parser().parse_args(argv)
    collectives = given.collectives.split(",")
    _comparable(collectives)
    ranks = numbers("-n", given.ranks, 2)
    sizes = ["-b", given.minbytes, "-e", given.maxbytes or "64M", "-f", given.stepfactor]
    seconds = given.seconds or ("0.5" if given.quick else "3")
    options = parse([collectives[0], *sizes, "--seconds", seconds, "--vs", given.vs])
    end = options.end if given.maxbytes else None
    _check_output(given.output, given.add)
    plan = Plan(options, ranks, tuple(collectives), rivals_named(given.vs), end, given.quick)
    return plan, given.output, given.add and given.output.with_suffix(".json").exists()


def _check_output(output: Path | None, add: bool) -> None:
    if output is None:
        if add:
            raise UsageError("--add needs --output, which it adds to")
        return
    if not output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {output}.json: no such directory")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--output draws pictures with matplotlib; install it with: pip install 'collx[plot]'")


def write(document: dict[str, Any], output: Path) -> None:
    """JSON, the page, and a picture for each number of ranks."""
    output.with_suffix(".json").write_text(json.dumps(document) + "\n")
    output.with_suffix(".md").write_text(comparison.markdown(document))
    for ranks in dict.fromkeys(point["ranks"] for point in document["points"]):
        picture.draw(document, ranks, output.with_name(f"{output.name}-{ranks}.png"))


@program("collx.perf.peers")
def main(argv: list[str]) -> int:
    """The whole comparison. 0: measured; 1: results differ, or collx failed; 2: a mistake on the command line."""
    plan, output, adds = plan_of(argv)
    document = fresh(plan)
    before = json.loads(output.with_suffix(".json").read_text()) if adds and output else None
    if before is not None:
        belongs_beside(before, document)
    measure(plan, document, _say, bracketing(_say))
    _say(f"\n{comparison.summary(document)}")
    if output is not None:
        write(merged(before, document) if before is not None else document, output)
    return _status(document)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
