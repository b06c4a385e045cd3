"""What memory allows: `python -m collx.perf.bounds -n 2`.

Every one of n processes copies or adds its part of a buffer of so many bytes, from shared memory to shared memory,
with loops that do nothing else. A zero-copy all_reduce of that size reads and writes n times as much in all, so it
cannot be faster than n times the copy.
"""

from __future__ import annotations

import ctypes
import mmap
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from collx import spawn
from collx.perf.compiled import library
from collx.perf.options import UsageError, nbytes
from collx.perf.program import Parser, program
from collx.perf.turns import Quiet, Run, take_turns

KINDS = {"copy_nt": 0, "copy": 1, "memcpy": 2, "add": 3, "add_nt": 4}  # as in bounds.cpp; nt: past the caches
SIZES = "64K,256K,1M,4M,16M,64M,256M"


class Bounds:
    """Memory to move `largest` bytes in, by `size` processes that are forked after it was made."""

    def __init__(self, size: int, largest: int) -> None:
        self.size = size
        self._compiled = library()
        self._arrays = [np.frombuffer(mmap.mmap(-1, largest), np.uint8) for _ in range(3)]

    def runs(self, rank: int, total: int) -> dict[str, Run]:
        """What rank `rank` does of every kind on `total` bytes."""
        part = total // self.size
        target, *sources = (array[rank * part :][:part].ctypes.data for array in self._arrays)
        for array in self._arrays:
            array[rank * part :][:part] = 0
        return {name: self._run(kind, [target, *sources], part) for name, kind in KINDS.items()}

    def _run(self, kind: int, addresses: list[int], part: int) -> Callable[[int], None]:
        pointers, count = [ctypes.c_void_p(address) for address in addresses], ctypes.c_size_t(part // 4)
        return lambda times: self._compiled.stick_move(kind, *pointers, count, times)


def measure(size: int, sizes: list[int], rounds: int) -> list[tuple[int, dict[str, dict[str, float]]]]:
    """Median seconds by size, tag and kind."""
    bounds, quiet = Bounds(size, max(sizes)), Quiet()

    def rank(comm: Any) -> list[tuple[int, dict[str, dict[str, float]]]]:
        points = []
        for total in sizes:
            found = take_turns(comm, quiet, bounds.runs(comm.rank, total), rounds)
            points.append((total, {tag: _medians(times) for tag, times in found.items()}))
        return points

    points: list[tuple[int, dict[str, dict[str, float]]]] = spawn(rank, size)[0]
    return points


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in times.items()}


@program("collx.perf.bounds")
def main(argv: list[str]) -> int:
    """Print GB/s of n processes together by size, and what a zero-copy all_reduce of that size takes at least."""
    parser = Parser("collx.perf.bounds", main.__doc__)
    parser.add_argument("-n", "--ranks", type=int, default=2, help="processes (2)")
    parser.add_argument("--sizes", default=SIZES, help=f"bytes in all, with commas ({SIZES})")
    parser.add_argument("--rounds", type=int, default=7, help="rounds per size (7)")
    options = parser.parse_args(argv)
    if options.ranks < 1 or options.rounds < 1:
        raise UsageError("--ranks and --rounds must be at least 1")
    sizes = [nbytes(size) for size in options.sizes.split(",")]
    print(f"# GB/s written by {options.ranks} processes together; at least: of a zero-copy all_reduce, us")
    print(f"{'bytes':>10} {'cores':>6} " + " ".join(f"{name:>8}" for name in KINDS) + f" {'at least':>10}")
    for total, tags in measure(options.ranks, sizes, options.rounds):
        for tag, seconds in tags.items():
            rates = " ".join(f"{total / seconds[name] / 1e9:8.1f}" for name in KINDS)
            least = options.ranks * min(seconds[name] for name in KINDS if name.startswith("copy"))
            print(f"{total:10} {tag:>6} {rates} {least * 1e6:10.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
