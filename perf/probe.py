"""How far apart two cores are just now: `probe()`, or `python -m collx.perf.probe` to watch it.

Virtual cores wander: within seconds the same two lie in one complex of cores (NEAR) or in two (FAR), and whatever
passes memory between ranks differs by up to ten times. So figures are bracketed by probes, and compared only where
the tags agree.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from dataclasses import dataclass

from collx.errors import CollxError
from collx.perf.compiled import library
from collx.perf.program import Parser, program

NEAR = "NEAR"
FAR = "FAR"
MIXED = "mixed"
BORDER = 110.0  # nanoseconds one way, between NEAR and FAR: 26 to 60 and 150 to 260 were seen
_MOST = 100_000  # batches


@dataclass(frozen=True, slots=True)
class Probe:
    """Nanoseconds that a cache line takes one way: the median, and the quartiles beside it."""

    nanoseconds: float
    low: float
    high: float

    @property
    def tag(self) -> str:
        """NEAR or FAR, or mixed where the cores moved meanwhile."""
        if self.high < BORDER:
            return NEAR
        return FAR if self.low >= BORDER else MIXED

    def __str__(self) -> str:
        return f"{self.tag} {self.nanoseconds:.0f} ns"


def probe(seconds: float = 0.003, cores: tuple[int, int] | None = None) -> Probe:
    """Measure for `seconds` between two cores; by default the first two that this process may use.

    To be called while no rank works: it needs both cores. Raises CollxError where there are no two cores, or
    the native part cannot be built.
    """
    mine = sorted(os.sched_getaffinity(0))
    if cores is None:
        if len(mine) < 2:
            raise CollxError(f"a probe goes between two cores, and this process may use core {mine[0]} only")
        cores = (mine[0], mine[1])
    figures = (ctypes.c_double * _MOST)()
    count = library().stick_probe(*cores, ctypes.c_double(seconds), figures, _MOST)
    if count < 0:
        raise CollxError(f"this process may not use both cores {cores[0]} and {cores[1]}")
    batches = figures[:count]
    low, median, high = statistics.quantiles(batches, n=4) if count > 1 else batches * 3
    return Probe(median, low, high)


def joint(*probes: Probe) -> str:
    """The tag of what lies between probes: theirs where they agree, else mixed."""
    tags = {each.tag for each in probes}
    return tags.pop() if len(tags) == 1 else MIXED


@program("collx.perf.probe")
def main(argv: list[str]) -> int:
    """Print one probe after the other."""
    parser = Parser("collx.perf.probe", main.__doc__)
    parser.add_argument("--times", type=int, default=1, help="how many probes (1)")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between them (0.5)")
    parser.add_argument("--seconds", type=float, default=0.003, help="how long each measures (0.003)")
    options = parser.parse_args(argv)
    for turn in range(options.times):
        if turn:
            time.sleep(options.every)
        taken = probe(options.seconds)
        print(f"{taken.tag:5}  {taken.nanoseconds:6.1f} ns one way  ({taken.low:.1f} .. {taken.high:.1f})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
