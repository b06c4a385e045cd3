"""Calls on GPUs, drawn at random and the same on all ranks. What they are to give is what they give on the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from collx import Communicator
from collx.collectives import COLLECTIVES
from collx.types import DTYPES, Array
from tests.collectives.numbers import PAIRS, contribution
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn

ROWS = (0, 1, 2, 5, 300, 40_001)  # of a buffer, or of a rank's part of one
REDUCTIONS = ("all_reduce", "reduce_scatter", "reduce", "scan", "exscan")
ROOTED = ("broadcast", "reduce", "gather", "scatter")
WAYS = ("call", "later", "handle")


def gpus(comm: Communicator, mode: str, uuid: str = "GPU-0", **options: Any) -> StandIn:
    """This process's GPU, shared by ranks that name it alike. They wait for each other by `mode`. Work comes late."""
    os.environ["COLLX_CUDA_SYNC"] = mode
    options = {"mps": mode == "spin", "jitter": 0.0005, "seed": comm.rank} | options
    return StandIn((uuid,), **options).install()


@dataclass
class Case:
    """One call on all ranks: its contributions are `x` on this rank, NumPy's; it works in place where `inplace`."""

    collective: str
    x: Array | None
    options: dict[str, Any]
    inplace: bool
    way: str
    out: tuple[int, ...] | None = None  # the shape of an output that the call is given
    wanted: Array | None = field(default=None, init=False)

    @classmethod
    def drawn(cls, chance: Random, collective: str, comm: Communicator, inplace: bool) -> Case:
        rank, size = comm.rank, comm.size
        dtype, op = chance.choice(PAIRS)
        options: dict[str, Any] = {}
        rows = chance.choice(ROWS)
        if collective in REDUCTIONS:
            options["op"] = "sum" if collective in ("scan", "exscan") and op == "avg" else op
        else:
            dtype = chance.choice(DTYPES)
        if collective in ROOTED:
            options["root"] = chance.randrange(size)
        counts = [rows] * size
        if collective in ("reduce_scatter", "all_gather", "gather", "scatter") and chance.random() < 0.5:
            options["counts"] = counts = [chance.choice(ROWS[:-1]) for _ in range(size)]
        given = {"all_gather": counts[rank], "gather": counts[rank]}.get(collective, rows)
        if collective in ("reduce_scatter", "scatter"):
            given = sum(counts)
        if collective == "all_to_all":
            given = rows * size
            if chance.random() < 0.5:
                matrix = [[chance.choice(ROWS[:-1]) for _ in range(size)] for _ in range(size)]
                options["send_counts"], options["recv_counts"] = matrix[rank], [row[rank] for row in matrix]
                given, inplace = sum(matrix[rank]), False
        seed, lowest = chance.randrange(1 << 30), int(op == "prod")
        x = contribution(rank, (given,), dtype, seed, lowest)
        return cls(collective, x, options, inplace, chance.choice(WAYS))

    def on_cpu(self, comm: Communicator) -> None:
        assert self.x is not None
        found = getattr(comm, self.collective)(self.x.copy(), **self.options)
        self.wanted = None if found is None else np.asarray(found)

    def on_gpu(self, comm: Communicator, cuda: StandIn, own: Random, shareable: bool = True) -> Outcome:
        """Begin it, on memory that begins anywhere; what is to be looked at later."""
        assert self.x is not None
        whole, part = self._where(comm)
        aligned = own.choice((0, 0, 1, 3, 5)) * self.x.dtype.alignment  # as outputs are to be
        anywhere = aligned if self.collective == "broadcast" else own.choice((0, 0, 1, 8))
        memory = arrays.empty(cuda, whole, self.x.dtype, offset=aligned, shareable=shareable)
        x = out = None
        if self.inplace and part is not None:
            x, out = (memory[part], memory) if self.collective in ("all_gather", "gather") else (memory, memory[part])
        else:
            x = arrays.empty(cuda, self.x.shape, self.x.dtype, offset=anywhere, shareable=shareable)
        x[...] = self.x
        method, options = getattr(comm, self.collective), dict(self.options)
        if self.collective == "broadcast":
            out = x
        elif out is not None:
            options["out"] = out
        if self.way == "later":
            return Outcome(self, x, out, method(x, **options, async_op=True), None)
        if self.way == "handle":
            handle = comm.plan(self.collective, x, **options)
            return Outcome(self, x, out, None, handle())
        return Outcome(self, x, out, None, method(x, **options))

    def _where(self, comm: Communicator) -> tuple[int, slice | None]:
        """How many rows the larger one of input and output has, and where the smaller one lies in it; None where they
        are not to be one memory."""
        assert self.x is not None
        rank, size, given = comm.rank, comm.size, self.x.size
        if self.collective in ("all_reduce", "scan", "exscan", "all_to_all"):
            return given, slice(None)
        if self.collective == "reduce":
            return given, slice(None) if rank == self.options["root"] else None
        if self.collective == "broadcast" or self.options.get("root", rank) != rank:
            return given, None
        counts = self.options.get("counts")
        if self.collective in ("all_gather", "gather"):
            each = counts or [given] * size
            return sum(each), slice(sum(each[:rank]), sum(each[: rank + 1]))
        each = counts or [given // size] * size
        return given, slice(sum(each[:rank]), sum(each[: rank + 1]))


@dataclass
class Outcome:
    case: Case
    x: FakeArray
    out: FakeArray | None
    work: Any
    result: Any

    def check(self) -> None:
        case = self.case
        found = self.result if self.work is None else self.work.wait()
        told = f"{case.collective} of {case.x!r}, {case.options}, in place: {case.inplace}, {case.way}"
        assert (found is None) == (case.wanted is None), told
        if found is not None:
            np.testing.assert_array_equal(found.numpy(), case.wanted, err_msg=told)
        if self.out is None:
            np.testing.assert_array_equal(self.x.numpy(), case.x, err_msg=told)


def exercise(comm: Communicator, cuda: StandIn, seed: int, times: int = 1, shareable: bool = True) -> None:
    """Every collective so many times, on two streams in turns: all are begun before one is looked at."""
    chance, own = Random(seed), Random(seed + 1 + comm.rank)
    collectives = [name for name in COLLECTIVES if name != "barrier"] * times
    chance.shuffle(collectives)
    cases = [Case.drawn(chance, name, comm, own.random() < 0.5) for name in collectives]
    for case in cases:
        case.on_cpu(comm)
    streams = cuda.stream(), cuda.stream()
    outcomes = []
    for case in cases:
        arrays.use_stream(cuda, chance.choice(streams))
        outcomes.append(case.on_gpu(comm, cuda, own, shareable))
    for outcome in outcomes:
        arrays.use_stream(cuda, outcome.x.stream)
        outcome.check()
