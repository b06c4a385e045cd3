"""The engine against an all_reduce written by hand: `python -m collx.perf.yardstick`, `make yardstick`.

Both run in the same processes on the same NumPy arrays, in turns; the ratio is the median over rounds of the ratio
within a round, apart by how far the cores were from each other. The hand-written one loops in C++, collx in Python.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import numpy as np

from collx import spawn
from collx.perf.handwritten import Memory, choices
from collx.perf.machine import describe
from collx.perf.options import UsageError, nbytes, numbers
from collx.perf.program import Parser, program
from collx.perf.turns import Quiet, Run, ratio, take_turns

SIZES = "8,4K,16K,64K,256K,1M,4M,16M,64M"
Found = dict[str, dict[str, list[float]]]  # seconds, by tag and contestant


def measure(size: int, sizes: list[int], rounds: int) -> list[tuple[int, Found]]:
    """What every round took, by bytes."""
    memory, quiet = Memory(size), Quiet()
    crowded = size > describe()["cores"]

    def rank(comm: Any) -> list[tuple[int, Found]]:
        hand = memory.join(comm.rank, choices(crowded))
        points = []
        for total in sizes:
            x, out = np.full(max(total // 4, 1), comm.rank, np.float32), np.zeros(max(total // 4, 1), np.float32)
            again = comm.plan("all_reduce", x, out=out)
            runs: dict[str, Run] = {
                "hand": lambda times, x=x, out=out: hand.all_reduce(x, out, times),  # type: ignore[misc]
                "handle": lambda times, again=again: [again() for _ in range(times)],  # type: ignore[misc]
                "method": lambda times, x=x, out=out: [comm.all_reduce(x, out=out) for _ in range(times)],  # type: ignore[misc]
            }
            points.append((total, take_turns(comm, quiet, runs, rounds)))
        comm.barrier()
        hand.close()
        return points

    points: list[tuple[int, Found]] = spawn(rank, size)[0]
    return points


@program("collx.perf.yardstick")
def main(argv: list[str]) -> int:
    """Print microseconds of the hand-written all_reduce, and of collx's in units of that."""
    parser = Parser("collx.perf.yardstick", main.__doc__)
    parser.add_argument("-n", "--ranks", default="2,4,8", help="ranks, with commas (2,4,8)")
    parser.add_argument("--sizes", default=SIZES, help=f"bytes, with commas ({SIZES})")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per size (7)")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise UsageError("--rounds must be at least 1")
    sizes = [nbytes(size) for size in options.sizes.split(",")]
    print("# all_reduce, float32 sum: by hand in us, collx as a multiple of that")
    print(f"{'ranks':>5} {'bytes':>9} {'cores':>6} {'rounds':>6} {'by hand':>10} {'handle':>7} {'method':>7}")
    for size in numbers("-n", options.ranks, 1):
        for total, found in measure(size, sizes, options.rounds):
            for tag, times in found.items():
                hand = times["hand"]
                shown = f"{len(hand):6} {statistics.median(hand) * 1e6:10.2f}"
                ratios = " ".join(f"{ratio(times[name], hand):7.3g}" for name in ("handle", "method"))
                print(f"{size:>5} {total:9} {tag:>6} {shown} {ratios}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
