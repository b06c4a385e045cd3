"""How fast the fold kernels are with other constants: `python -m tests.gpu.tuning`, alone on a GPU, in about a minute.

One process folds K sources of S bytes into M targets, as a worker does for the ranks of its GPU. The figures are bytes
read and written per second, and their share of what the driver's copy of the same bytes reaches.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from collx.cuda import kernels
from collx.cuda.kernels import Kernels, Move
from collx.transports.cuda.driver import Driver, Program, driver

REPEATS = 7
SHAPES = ((2, 1), (4, 1), (4, 4), (8, 8))  # sources and targets
CASES = (("float32", 1, 1), ("float32", 1, 4), *((d, k, m) for d in ("float32", "float16") for k, m in SHAPES))
DEFAULT = (kernels.THREADS, kernels.RESIDENT, kernels.BLOCKS, "rows = 2, columns = 4")
CHANGES = (  # threads of a block, blocks in registers, blocks at most, loads at once: one changed at a time
    DEFAULT,
    *((threads, *DEFAULT[1:]) for threads in (128, 512)),
    *((DEFAULT[0], resident, *DEFAULT[2:]) for resident in (1, 3, 4)),
    *((*DEFAULT[:2], blocks, DEFAULT[3]) for blocks in (2, 3, 4, 8, 12, 32)),
    *((*DEFAULT[:3], f"rows = {rows}, columns = {columns}") for rows, columns in ((1, 4), (4, 2), (1, 8), (2, 8))),
)


class Changed:
    """A driver whose kernels have another number of loads at once."""

    def __init__(self, used: Driver, loads: str) -> None:
        self._used, self._loads = used, loads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._used, name)

    def program(self, source: str, names: Sequence[str]) -> Program:
        assert source.count(DEFAULT[3]) == 1
        return self._used.program(source.replace(DEFAULT[3], self._loads), names)


def seconds(used: Driver, stream: int, queue: Callable[[], object]) -> float:
    """The median of a few runs, after one that is not counted."""
    events = [used.event(timing=True) for _ in range(REPEATS + 2)]
    for event in events:
        used.record(event, stream)
        if event != events[-1]:
            queue()
    while not used.done(events[-1]):
        pass
    return statistics.median(used.elapsed(a, b) for a, b in itertools.pairwise(events[1:]))


def measured(used: Driver, nbytes: int) -> Iterator[tuple[tuple[Any, ...], dict[tuple[str, int, int], float]]]:
    """By change of constants: bytes per second of each case, beginning with the copy's own."""
    stream = used.stream()
    buffers = [used.allocate(nbytes) for _ in range(2 * max(k for _, k, _ in CASES))]
    half = len(buffers) // 2
    roof = 2 * nbytes / seconds(used, stream, lambda: used.copy(buffers[0], buffers[half], nbytes, stream))
    yield ("copy",), {("copy", 1, 1): roof}
    for change in CHANGES:
        threads, resident, blocks, loads = change
        found = {}
        with mock.patch.multiple(kernels, THREADS=threads, RESIDENT=resident, BLOCKS=blocks, COPIED=nbytes + 1):
            made: Any = Changed(used, loads)
            folding = Kernels(made, 0)
            for dtype, k, m in CASES:
                move = Move(tuple(buffers[:k]), tuple(buffers[half : half + m]), nbytes)
                (queue,) = folding.prepared([move], np.dtype(dtype), "sum", k)
                found[dtype, k, m] = (k + m) * nbytes / seconds(used, stream, partial(queue, stream))
        yield change, found
    for buffer in buffers:
        used.free(buffer)
    used.destroy_stream(stream)


def main(nbytes: int = 64 << 20) -> None:
    used = driver()
    with used.on(0):
        print(f"{used.device(0).name}, {nbytes >> 20} MiB each; TB/s, and the share of the copy's")
        rows = measured(used, nbytes)
        roof = next(rows)[1]["copy", 1, 1]
        print(f"copy: {roof / 1e12:.2f} TB/s")
        print("threads resident blocks loads".ljust(44), *(f"{d}:{k}>{m}".rjust(12) for d, k, m in CASES))
        for change, found in rows:
            rates = (f"{found[case] / 1e12:5.2f} {found[case] / roof:6.1%}".rjust(12) for case in CASES)
            print(" ".join(map(str, change)).ljust(44), *rates, flush=True)


if __name__ == "__main__":
    main()
