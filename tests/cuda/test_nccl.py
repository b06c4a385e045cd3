"""NCCL as a candidate: which calls it may serve, what it is asked for, and who learns that it cannot be used.

The library is a double on this machine's memory that does what NCCL's user guide says of each call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from collx.cuda import nccl
from collx.cuda.nccl import Nccl, join, objection
from collx.errors import TransportError
from collx.request import Request
from collx.transports.conformance import run_threads
from collx.types import DTYPES, OPS, Array, ReduceOp
from tests.calls import Call, even
from tests.oracle import expected, inputs

STREAM = 7
NUMPY = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", ml_dtypes.bfloat16)
FOLDS = (np.add, np.multiply, np.maximum, np.minimum)


class Refused(Exception):
    pass


class Hub:
    """Where the ranks' calls meet, one at a time."""

    def __init__(self, size: int) -> None:
        self.cells: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def all(self, rank: int, cell: Any) -> list[Any]:
        self.cells[rank] = cell
        self.barrier.wait()
        found = list(self.cells)
        self.barrier.wait()
        return found


class Library:
    """CuPy's module; all ranks of a test have the same."""

    NcclError = Refused

    def __init__(self, size: int) -> None:
        self.hub = Hub(size)
        self.identifier = tuple(range(-64, 64))
        self.grouped = threading.local()

    def get_unique_id(self) -> tuple[int, ...]:
        return self.identifier

    def NcclCommunicator(self, size: int, identifier: tuple[int, ...], rank: int) -> Communicator:
        assert identifier == self.identifier
        assert size == len(self.hub.cells)
        return Communicator(self, rank)

    def groupStart(self) -> None:
        self.grouped.sends, self.grouped.receives = {}, {}

    def groupEnd(self) -> None:
        rank = self.grouped.rank
        every = self.hub.all(rank, self.grouped.sends)
        for peer, target in self.grouped.receives.items():
            target[:] = every[peer][rank]
        self.hub.barrier.wait()


def memory(address: int, count: int, dtype: int) -> Array:
    kind = np.dtype(NUMPY[dtype])
    found = np.ctypeslib.as_array((ctypes.c_uint8 * (count * kind.itemsize)).from_address(address))
    typed: Array = found.view(kind)
    return typed


class Communicator:
    def __init__(self, library: Library, rank: int) -> None:
        self.library, self.rank, self.ended = library, rank, ""

    def _all(self, cell: Any) -> list[Any]:
        return self.library.hub.all(self.rank, cell)

    def _folded(self, given: int, count: int, dtype: int, op: int) -> Array:
        every = self._all(memory(given, count, dtype).copy())
        total: Array = every[0]
        for other in every[1:]:
            total = (np.add if op == 4 else FOLDS[op])(total, other)
        return np.asarray(total / total.dtype.type(len(every)), total.dtype) if op == 4 else total

    def allReduce(self, given: int, result: int, count: int, dtype: int, op: int, stream: int) -> None:
        assert stream == STREAM
        memory(result, count, dtype)[:] = self._folded(given, count, dtype, op)

    def reduce(self, given: int, result: int, count: int, dtype: int, op: int, root: int, stream: int) -> None:
        total = self._folded(given, count, dtype, op)
        if self.rank == root:
            memory(result, count, dtype)[:] = total

    def reduceScatter(self, given: int, result: int, count: int, dtype: int, op: int, stream: int) -> None:
        total = self._folded(given, count * len(self.library.hub.cells), dtype, op)
        memory(result, count, dtype)[:] = total[self.rank * count :][:count]

    def allGather(self, given: int, result: int, count: int, dtype: int, stream: int) -> None:
        every = np.concatenate(self._all(memory(given, count, dtype).copy()))
        memory(result, every.size, dtype)[:] = every

    def broadcast(self, given: int, result: int, count: int, dtype: int, root: int, stream: int) -> None:
        every = self._all(memory(given, count, dtype).copy() if self.rank == root else None)
        memory(result, count, dtype)[:] = every[root]

    def send(self, given: int, count: int, dtype: int, peer: int, stream: int) -> None:
        self.library.grouped.rank = self.rank
        self.library.grouped.sends[peer] = memory(given, count, dtype).copy()

    def recv(self, result: int, count: int, dtype: int, peer: int, stream: int) -> None:
        self.library.grouped.rank = self.rank
        self.library.grouped.receives[peer] = memory(result, count, dtype)

    def check_async_error(self) -> None:
        if self.ended == "aborted":
            raise Refused("NCCL_ERROR_SYSTEM_ERROR: a peer is gone")

    def abort(self) -> None:
        self.ended = "aborted"

    def destroy(self) -> None:
        self.ended = "destroyed"


def joined(library: Library, rank: int, found: Callable[[], Any] | None = None) -> Nccl | str:
    size = len(library.hub.cells)
    return join(rank, size, partial(library.hub.all, rank), found or (lambda: library))


def request(call: Call, rank: int) -> Request:
    whole = call.size if call.collective in ("reduce_scatter", "all_gather", "all_to_all") else 1
    return Request(
        call.collective,
        tuple(call.blocks(rank, whole)),
        call.dtype,
        "nccl",
        call.op,
        call.root,
        given=call.matrix[rank] if call.matrix else (),
    )


def performed(call: Call) -> list[Array]:
    given = inputs(call)
    library = Library(call.size)

    def rank(rank: int) -> Array:
        found = joined(library, rank)
        assert isinstance(found, Nccl)
        source = given[rank].copy()
        target = np.zeros(call.wanted(rank), call.dtype)
        if call.collective == "broadcast":
            target = source if rank == call.root else target
            source = target
        found.run(request(call, rank), source.ctypes.data, target.ctypes.data, STREAM)
        return target

    return run_threads(call.size, rank)


REDUCED = [("float32", "sum"), ("float64", "avg"), ("bfloat16", "sum"), ("int32", "max"), ("complex64", "sum")]


@pytest.mark.parametrize(
    "call",
    [
        *(
            even(collective, "nccl", 3, 12, dtype=np.dtype(dtype), op=ReduceOp(op), root=1)
            for collective in ("all_reduce", "reduce", "reduce_scatter")
            for dtype, op in REDUCED
        ),
        *(even(name, "nccl", 3, 12, dtype=np.dtype(np.int16), root=2) for name in ("all_gather", "broadcast")),
        Call("all_to_all", "nccl", 3, matrix=((1, 2, 0), (0, 0, 5), (3, 1, 1)), dtype=np.dtype(np.float16)),
    ],
    ids=lambda call: f"{call.collective}-{call.dtype}-{call.op.name}",
)
def test_it_does_what_is_asked(call: Call) -> None:
    if call.collective == "all_reduce" or call.collective == "reduce":
        call = Call(call.collective, call.algorithm, call.size, (12,), dtype=call.dtype, op=call.op, root=call.root)
    assert objection(request(call, 0)) is None
    for rank, (found, right) in enumerate(zip(performed(call), expected(call, inputs(call)), strict=True)):
        if call.collective != "reduce" or rank == call.root:
            np.testing.assert_array_equal(found, right)


def test_what_means_something_else_to_it_is_refused() -> None:
    def asked(collective: str, dtype: Any, op: str = "sum", elements: tuple[int, ...] = (4,)) -> str:
        reduction = ReduceOp.custom(np.add) if op == "custom" else ReduceOp(op)
        return objection(Request(collective, elements, np.dtype(dtype), None, reduction)) or ""

    assert asked("scan", "float32") == "NCCL has no scan"
    assert asked("all_gather", "float32", elements=(1, 2)) == "NCCL's all_gather takes equal counts only"
    assert asked("all_reduce", "float32", "custom") == "the op is not NCCL's"
    assert asked("all_reduce", "int16") == "NCCL does not reduce int16"
    assert asked("all_reduce", "bool") == "NCCL does not reduce bool"
    assert asked("all_reduce", "float32", "max") == "NCCL's max of float32 is not the same"
    assert asked("all_reduce", "complex64", "prod") == "NCCL's prod of complex64 is not the same"


def test_every_dtype_and_op_is_served_or_refused() -> None:
    for dtype in DTYPES:
        for op in OPS:
            made = ReduceOp.custom(np.add) if op == "custom" else ReduceOp(op)
            asked = Request("all_reduce", (3,), dtype, None, made)
            if objection(asked) is None:
                assert all(number >= 0 for number in nccl._reduced(asked, 3))


def test_all_ranks_learn_that_one_cannot_use_it() -> None:
    library = Library(3)

    def found(rank: int) -> Any:
        if rank == 2:
            raise TransportError("this CuPy has found no NCCL")
        return library

    told = run_threads(3, lambda rank: joined(library, rank, lambda: found(rank)))
    assert told == ["rank 2 cannot use it: this CuPy has found no NCCL"] * 3


def test_without_cupy_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cupy.cuda", None)
    with pytest.raises(TransportError, match="by way of CuPy"):
        nccl.library()


def test_what_nccl_refuses_is_a_transport_error() -> None:
    class Refusing(Communicator):
        def allReduce(self, *_: object) -> None:
            raise Refused("NCCL_ERROR_INVALID_USAGE: invalid usage")

    library = Library(1)
    found = Nccl(library, Refusing(library, 0), 0, 1)
    with pytest.raises(TransportError, match=r"NCCL's all_reduce failed: NCCL_ERROR_INVALID_USAGE.*NCCL_DEBUG"):
        found.run(request(Call("all_reduce", "nccl", 1, (4,)), 0), 0, 0, STREAM)


def test_a_peer_that_is_gone_is_told_and_what_waits_for_it_ended() -> None:
    library = Library(1)
    found = joined(library, 0)
    assert isinstance(found, Nccl)
    assert found.failed() is None
    found.abort()
    assert found.failed() == "NCCL_ERROR_SYSTEM_ERROR: a peer is gone"
