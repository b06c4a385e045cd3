"""collx over MPI beside that MPI alone, in turns: `make on-mpi`, `python -m collx.perf.on_mpi openmpi,mpich`.

Both run in the environment with that MPI, two ranks under its launcher, collx with COLLX_TRANSPORT=mpi: as it is, and
without comparing the ranks' calls. The MPI is called by mpi4py.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from collx.errors import CollxError
from collx.perf import machine
from collx.perf.collectives import MEASURED
from collx.perf.contest import Call, Contest, Round
from collx.perf.goals import EVERY
from collx.perf.options import UsageError, nbytes
from collx.perf.program import Parser, program
from collx.perf.report import lines, machine_text, size_text, time_text
from collx.perf.rivals import MPIS, RIVALS, Rival
from collx.perf.versus import bracketing, revision

SIZES = "8,1K,16K,64K,128K,256K,512K,1M,2M,4M,8M,16M,32M,64M"
OURS, UNCHECKED = "collx", "collx unchecked"
GOAL = 64 << 10, 64 << 20  # bytes for which collx is to be as fast as the MPI beneath it
LIMIT = 1.05


def contestants(mpi: str) -> list[Rival]:
    """collx over an MPI, the same without comparing calls, and the MPI alone."""
    python = Path(os.environ.get("COLLX_VENVS", ".venvs")).absolute() / f"on-{mpi}" / "bin" / "python"
    if not python.exists():
        raise UsageError(f"{python} is missing: make .venvs/on-{mpi}/.stamp")

    def rival(name: str, contestant: str, *environ: str) -> Rival:
        return Rival(name, contestant, (), lambda _, size: ["env", *environ, *RIVALS[mpi].command(python, size)])

    return [
        rival(OURS, "collx", "COLLX_TRANSPORT=mpi"),
        rival(UNCHECKED, "collx", "COLLX_TRANSPORT=mpi", "COLLX_CHECK=0"),
        rival(mpi, "mpi"),
    ]


@dataclass(frozen=True, slots=True)
class Point:
    """One call of one MPI: medians over the rounds of the tag that most of them had, of seconds and of the ratios of
    collx's time to the MPI's within a round."""

    call: Call
    size: int
    tag: str
    alone: float
    ratio: float
    unchecked: float

    @staticmethod
    def of(call: Call, size: int, mpi: str, rounds: Sequence[Round]) -> Point:
        tag = statistics.mode(r.tag for r in rounds)
        same = [r.seconds for r in rounds if r.tag == tag]
        ratios = (statistics.median(s[name] / s[mpi] for s in same) for name in (OURS, UNCHECKED))
        return Point(call, size, tag, statistics.median(s[mpi] for s in same), *ratios)

    def line(self) -> list[str]:
        figures = [time_text(self.alone * 1e6), f"{self.ratio:.2f}", f"{self.unchecked:.2f}", self.tag]
        return [self.call.collective, size_text(self.size), *figures]


def measure(mpi: str, collectives: Sequence[str], sizes: Sequence[int], ranks: int, seconds: float) -> Iterator[Point]:
    """Every call's point, as it comes."""
    with Contest(contestants(mpi), ranks, bracketing(lambda line: print(line, flush=True))) as contest:
        for name in collectives:
            for size in sizes:
                call = Call(name, max(size // 4, ranks), "float32", "sum", 0)
                memory = ranks * 4 * sum(MEASURED[name].lengths(call.count, call.count // ranks))
                rounds, odd = contest.measure(call, seconds, memory)
                if odd or contest.absent or not rounds:
                    why = f"results differ: {odd}" if odd else contest.absent or "not enough memory"
                    raise CollxError(f"{name} of {size} bytes on {mpi}: {why}")
                yield Point.of(call, size, mpi, rounds)


def mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def page(found: dict[str, list[Point]], ranks: int) -> str:
    """All points as markdown, with the means that the goal is about first."""
    parts = [
        "# collx over MPI beside that MPI alone",
        "",
        f"{machine_text(machine.describe())}; collx at {revision()}, {time.strftime('%Y-%m-%d %H:%M')}; {ranks} ranks,"
        " float32 sum, through the Python APIs on arrays allocated before; by `python -m collx.perf.on_mpi`. A ratio is"
        " the time of collx with COLLX_TRANSPORT=mpi over that of mpi4py's call, the median over rounds of the ratio"
        f" within a round; *unchecked* with COLLX_CHECK=0. Goal: a geometric mean of at most {LIMIT} over 64K to 64M.",
    ]
    for mpi, points in found.items():
        large = [p for p in points if GOAL[0] <= p.size <= GOAL[1]]
        means = [
            ["**all**", *(f"**{text}**" for text in _means(large))],
            *([name, *_means([p for p in large if p.call.collective == name])] for name in EVERY),
            *(
                [f"all, {size_text(s)}", *_means([p for p in points if p.size == s])]
                for s in _sizes(points)
                if s < GOAL[0]
            ),
        ]
        parts += ["", f"## {mpi}", "", *lines(["geometric means, 64K to 64M", "ratio", "unchecked"], means)]
        head = ["collective", "size", mpi, "ratio", "unchecked", "tag"]
        parts += ["", *lines(head, (point.line() for point in points))]
    return "\n".join(parts) + "\n"


def _sizes(points: Sequence[Point]) -> list[int]:
    return sorted({point.size for point in points})


def _means(points: Sequence[Point]) -> list[str]:
    if not points:
        return ["-", "-"]
    return [f"{mean([p.ratio for p in points]):.3f}", f"{mean([p.unchecked for p in points]):.3f}"]


@program("collx.perf.on_mpi")
def main(argv: list[str]) -> int:
    """Measure and print. 0: measured; 1: a job failed or results differ; 2: a mistake on the command line."""
    parser = Parser("collx.perf.on_mpi", main.__doc__)
    parser.add_argument("mpis", nargs="?", default="openmpi,mpich", help="with commas (openmpi,mpich)")
    parser.add_argument("-n", "--ranks", type=int, default=2, help="ranks (2)")
    parser.add_argument("--sizes", default=SIZES, help=f"bytes, with commas ({SIZES})")
    parser.add_argument("--collectives", default=",".join(EVERY), help="with commas (the five card collectives)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each point (1)")
    parser.add_argument("--output", type=Path, help="a file for the page")
    options = parser.parse_args(argv)
    found: dict[str, list[Point]] = {}
    sizes = [nbytes(size) for size in options.sizes.split(",")]
    for mpi in options.mpis.split(","):
        if mpi not in MPIS:
            raise UsageError(f"{mpi!r} is no MPI; there are {', '.join(MPIS)}")
        found[mpi] = []
        for point in measure(mpi, options.collectives.split(","), sizes, options.ranks, options.seconds):
            found[mpi].append(point)
            print(f"# {mpi} {' '.join(point.line())}", flush=True)
    text = page(found, options.ranks)
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
