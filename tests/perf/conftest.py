"""A communicator made of NumPy and threads, so that what is tested here is the measuring and not collx."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from collx.explain import Explanation, explain

Array = npt.NDArray[Any]
FOLDS = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
Corrupt = Callable[[str, int, Array], None]


class Table:
    """Where the ranks lay down what they hold, one collective at a time."""

    def __init__(self, size: int) -> None:
        self.cells: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


class ThreadComm:
    """One rank's end. `corrupt(collective, rank, result)` may change a result before it is handed out."""

    transports = ("threads",)

    def __init__(self, table: Table, rank: int, corrupt: Corrupt) -> None:
        self.table, self.rank, self.size, self.local_rank = table, rank, len(table.cells), rank
        self.hosts = ("here",) * self.size
        self.groups = (tuple(range(self.size)),)
        self.links = ("threads",) * self.size
        self.corrupt = corrupt

    def _all(self, x: Any) -> list[Any]:
        self.table.cells[self.rank] = None if x is None else np.array(x, copy=True)
        self.table.barrier.wait()
        everything = list(self.table.cells)
        self.table.barrier.wait()
        return everything

    def _give(self, name: str, result: Array, out: Array | None) -> Array:
        given = np.empty_like(result) if out is None else out
        given[...] = result
        self.corrupt(name, self.rank, given)
        return given

    def _fold(self, arrays: list[Array], op: str) -> Array:
        with np.errstate(all="ignore"):
            total: Array = functools.reduce(FOLDS[op], arrays)
            return (total / total.dtype.type(self.size)).astype(total.dtype) if op == "avg" else total

    def _part(self, array: Array) -> Array:
        return np.split(array, self.size)[self.rank]

    def explain(self, collective: str, nbytes: int) -> Explanation:
        return explain(collective, nbytes, self.size, 1 << 16)

    def barrier(self) -> None:
        self._all(None)

    def all_reduce(self, x: Array, op: str = "sum", *, out: Array | None = None, algorithm: str | None = None) -> Array:
        return self._give("all_reduce", self._fold(self._all(x), op), out)

    def reduce_scatter(self, x: Array, op: str, *, out: Array, algorithm: str | None) -> Array:
        return self._give("reduce_scatter", self._part(self._fold(self._all(x), op)), out)

    def all_gather(self, x: Array, *, out: Array | None = None, algorithm: str | None = None) -> Array:
        return self._give("all_gather", np.concatenate(self._all(x)), out)

    def all_to_all(self, x: Array, *, out: Array, algorithm: str | None) -> Array:
        return self._give("all_to_all", np.concatenate([self._part(a) for a in self._all(x)]), out)

    def broadcast(self, x: Array, root: int, *, algorithm: str | None) -> Array:
        return self._give("broadcast", self._all(x)[root], x)

    def reduce(self, x: Array, op: str, root: int, *, out: Array | None, algorithm: str | None) -> Array | None:
        total = self._fold(self._all(x), op)
        return self._give("reduce", total, out) if self.rank == root else None

    def gather(self, x: Array, root: int, *, out: Array | None, algorithm: str | None) -> Array | None:
        everything = self._all(x)
        return self._give("gather", np.concatenate(everything), out) if self.rank == root else None

    def scatter(self, x: Array | None, root: int, *, out: Array, algorithm: str | None) -> Array:
        return self._give("scatter", self._part(self._all(x)[root]), out)

    def scan(self, x: Array, op: str, *, out: Array, algorithm: str | None) -> Array:
        return self._give("scan", self._fold(self._all(x)[: self.rank + 1], op), out)

    def exscan(self, x: Array, op: str, *, out: Array, algorithm: str | None) -> Array:
        everything = self._all(x)
        return self._give("exscan", self._fold(everything[: self.rank], op), out) if self.rank else out

    def sendrecv(self, x: Array, to: int, out: Array, source: int, tag: int = 0) -> Array:
        return self._give("sendrecv", self._all(x)[source], out)


World = Callable[..., list[Any]]


def _nothing(collective: str, rank: int, result: Array) -> None:
    pass


@pytest.fixture
def world() -> World:
    """`world(size, function, corrupt=...)` runs `function(comm)` on every rank; the results in rank order."""

    def run(size: int, function: Callable[[Any], Any], corrupt: Corrupt = _nothing) -> list[Any]:
        table = Table(size)

        def rank(index: int) -> Any:
            try:
                return function(ThreadComm(table, index, corrupt))
            except BaseException:
                table.barrier.abort()
                raise

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(rank, range(size)))

    return run
