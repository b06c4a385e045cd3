"""What it costs that ranks compare their calls: `make checks`, which builds collx a second time without that.

Jobs of both take turns, in rounds that are bracketed by a probe. A process's place in memory alone can make some
percent in a fifth of a microsecond, so both jobs are started anew several times, and the ratio of each is shown.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from collx.errors import CollxError
from collx.perf import machine
from collx.perf.contest import Call, Contest, Round
from collx.perf.options import nbytes
from collx.perf.program import Parser, program
from collx.perf.rivals import RIVALS, Rival
from collx.perf.versus import bracketing, revision

SIZES = "8,64,1K,4K,16K,64K"
COLLECTIVES = "all_reduce,broadcast"
Starts = list[list[Round]]  # the rounds of every start

CHECKED = Rival("checked", "collx", (), RIVALS["collx"].command)


def unchecked(python: Path) -> Rival:
    """The collx of another environment."""
    return Rival("unchecked", "collx", (), lambda _, size: RIVALS["collx"].command(python, size))


def measure(python: Path, ranks: int, calls: list[tuple[Call, int]], starts: int, seconds: float) -> list[Starts]:
    """The rounds of every call."""
    probing = [str(python), "-c", "from collx import _core; print(_core.CHECKED)"]
    if subprocess.run(probing, capture_output=True, text=True).stdout != "False\n":
        raise CollxError(f"{python} has no collx without checks; `make checks` makes one")
    found: list[Starts] = [[] for _ in calls]
    bracket = bracketing(lambda text: print(text, file=sys.stderr))
    for start in range(starts):
        rivals = [CHECKED, unchecked(python)]
        with Contest(rivals if start % 2 else rivals[::-1], ranks, bracket) as contest:
            for why in contest.absent.values():
                raise CollxError(why)
            for at, (call, size) in enumerate(calls):
                found[at].append(contest.measure(call, seconds, ranks * size * 2)[0])
    return found


def row(call: Call, size: int, tag: str, starts: Starts) -> str:
    """One call's line of the table, from the rounds of one tag."""
    ratios = [
        [turn.seconds["checked"] / turn.seconds["unchecked"] for turn in turns if turn.tag == tag] for turns in starts
    ]
    every = [ratio for start in ratios for ratio in start]
    medians = sorted(statistics.median(start) for start in ratios if len(start) > 2)
    without = statistics.median(t.seconds["unchecked"] for turns in starts for t in turns if t.tag == tag)
    spread = f"{medians[0]:.3f} .. {medians[-1]:.3f}" if medians else "-"
    figures = f"{without * 1e6:.3g} us | {statistics.median(every):.3f} | {spread} | {len(every)}"
    return f"| {call.collective} | {size} | {tag} | {figures} |"


def table(calls: list[tuple[Call, int]], found: list[Starts], ranks: int) -> str:
    host = machine.describe()
    where = f"{host['cpu']}, {host['cores']} cores, {host['system']}, Python {host['python']}, {ranks} ranks"
    lines = [
        "# What it costs that ranks compare their calls",
        "",
        f"Commit {revision()}, {time.strftime('%Y-%m-%d %H:%M')}, {where}, float32, methods on ordinary arrays; by"
        " `make checks`. The ratio is the time with checks by that without, the median over all rounds of a tag; beside"
        " it the lowest and the highest median of one start of both jobs.",
        "",
        "| collective | bytes | cores | without | ratio | by start | rounds |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for (call, size), starts in zip(calls, found, strict=True):
        tags: dict[str, int] = defaultdict(int)
        for turn in (turn for turns in starts for turn in turns):
            tags[turn.tag] += 1
        lines += [row(call, size, tag, starts) for tag in sorted(tags) if tag != "mixed" or len(tags) == 1]
    return "\n".join(lines) + "\n"


@program("collx.perf.checks")
def main(argv: list[str]) -> int:
    """Measure both and print the table."""
    parser = Parser("collx.perf.checks", main.__doc__)
    parser.add_argument("python", type=Path, help="the interpreter of an environment with a collx without checks")
    parser.add_argument("-n", "--ranks", type=int, default=2, help="ranks (2)")
    parser.add_argument("--sizes", default=SIZES, help=f"bytes, with commas ({SIZES})")
    parser.add_argument("--collectives", default=COLLECTIVES, help=f"with commas ({COLLECTIVES})")
    parser.add_argument("--starts", type=int, default=6, help="how often both jobs are started (6)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for a call in each start (1)")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args(argv)
    calls = [
        (Call(collective, max(nbytes(size) // 4, 1), "float32", "sum", 0), nbytes(size))
        for collective in options.collectives.split(",")
        for size in options.sizes.split(",")
    ]
    python = options.python.absolute()
    text = table(calls, measure(python, options.ranks, calls, options.starts, options.seconds), options.ranks)
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
