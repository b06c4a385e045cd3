"""A plan that is MPI's own collective, as the call that mpi4py takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
from mpi4py import MPI

from collx.collectives import COLLECTIVES
from collx.plan import Plan
from collx.reference.moves import bytes_at
from collx.types import DTYPES, OPS, Array

_NAMES = {
    "all_reduce": "Allreduce", "reduce_scatter": "Reduce_scatter_block", "all_gather": "Allgather",
    "all_to_all": "Alltoall", "broadcast": "Bcast", "reduce": "Reduce", "gather": "Gather", "scatter": "Scatter",
    "scan": "Scan", "exscan": "Exscan", "barrier": "Barrier",
}  # fmt: skip
_BY_COUNTS = {
    "reduce_scatter": "Reduce_scatter", "all_gather": "Allgatherv", "gather": "Gatherv", "scatter": "Scatterv"
}  # fmt: skip

# What is reduced by its dtype, what is only moved by its size. A bool is a byte of 0 or 1.
_REDUCED = {
    "bool": MPI.UINT8_T, "int8": MPI.INT8_T, "uint8": MPI.UINT8_T, "int16": MPI.INT16_T, "uint16": MPI.UINT16_T,
    "int32": MPI.INT32_T, "uint32": MPI.UINT32_T, "int64": MPI.INT64_T, "uint64": MPI.UINT64_T, "float32": MPI.FLOAT,
    "float64": MPI.DOUBLE, "complex64": MPI.C_FLOAT_COMPLEX, "complex128": MPI.C_DOUBLE_COMPLEX,
}  # fmt: skip
_MOVED = {1: MPI.BYTE, 2: MPI.UINT16_T, 4: MPI.UINT32_T, 8: MPI.UINT64_T, 16: MPI.C_DOUBLE_COMPLEX}
_OPS = {
    "sum": MPI.SUM, "avg": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX, "band": MPI.BAND,
    "bor": MPI.BOR, "bxor": MPI.BXOR, "land": MPI.LAND, "lor": MPI.LOR, "lxor": MPI.LXOR,
}  # fmt: skip
_ON_BOOL = _OPS | {"sum": MPI.BOR, "prod": MPI.BAND, "land": MPI.BAND, "lor": MPI.BOR, "lxor": MPI.BXOR}

_bytes_at = MPI.buffer.fromaddress

# Those for which MPI allocates room for as much as they reduce, in each call anew, unless the request is persistent.
_BUFFERED = ("all_reduce", "reduce_scatter", "reduce")


class Collective:
    """One plan's MPI collective on `comm`. The memory it works on must stay until it has ended."""

    def __init__(self, comm: Any, plan: Plan) -> None:
        spec, dtype, op = COLLECTIVES[plan.collective], DTYPES[plan.dtype], OPS[plan.op]
        self.plan = plan
        self._type = _REDUCED[dtype.name] if spec.reduces else _MOVED[dtype.itemsize]
        self._op = (_ON_BOOL if dtype.kind == "b" else _OPS)[op]
        self._counts = None if len(set(plan.elements)) == 1 else _with_places(plan.elements)
        self._divides = spec.reduces and op == "avg"
        # MPI's reduce_scatter in place has its result at the beginning of the input, and its exscan may write to rank
        # 0, which has its result already.
        self._apart = plan.collective == ("reduce_scatter" if plan.inplace else "exscan" if plan.rank == 0 else "")
        self._room = plan.input_bytes if plan.collective == "exscan" else plan.output_bytes
        name = (_NAMES if self._counts is None else _BY_COUNTS)[plan.collective]
        self._blocking: Callable[..., None] = getattr(comm, name)
        self._starting: Callable[..., Any] = getattr(comm, f"I{name.lower()}")
        self._making: Callable[..., Any] = getattr(comm, f"{name}_init")
        self.gains = plan.collective in _BUFFERED and not self._apart  # by a persistent request

    def run(self, source: int, target: int) -> None:
        """From the input at address `source` to the output at `target`; returns when it has ended on this rank."""
        if self._apart or self._divides:
            made = self.room()
            self._blocking(*self._arguments(source, target if made is None else made.ctypes.data))
            self.finish(made, target)
        else:
            self._blocking(*self._arguments(source, target))

    def start(self, source: int, place: int) -> Any:
        """The same as a request of MPI's."""
        return self._starting(*self._arguments(source, place))

    def persistent(self, source: int, place: int) -> Any:
        """The same as a persistent request, to be started."""
        return self._making(*self._arguments(source, place))

    def room(self) -> Array | None:
        """Where MPI is to put the output; None: where it belongs."""
        return np.empty(max(self.plan.input_bytes, self.plan.output_bytes), np.uint8) if self._apart else None

    def finish(self, made: Array | None, target: int) -> None:
        """What is left to do for the output at `target` when MPI has put it there, or into the room `made` for it."""
        plan, result = self.plan, bytes_at(target, self.plan.output_bytes)
        if made is not None:
            np.copyto(result, made[: plan.output_bytes])
        if self._divides:
            dtype = DTYPES[plan.dtype]
            parts = result.view(dtype.type(0).real.dtype)  # of complex numbers each part by itself, as always
            np.divide(parts, parts.dtype.type(plan.size), out=parts)

    def _arguments(self, source: int, target: int) -> tuple[Any, ...]:
        plan, kind, counts = self.plan, self._type, self._counts
        given: Any = [_bytes_at(source, plan.input_bytes), kind]
        taken: Any = [_bytes_at(target, self._room), kind]
        own: Any = MPI.IN_PLACE if plan.inplace and not self._apart else given
        at_root = plan.rank == plan.root
        match plan.collective:
            case "all_reduce" | "scan" | "exscan":
                return own, taken, self._op
            case "reduce_scatter":
                return (given, taken, self._op) if counts is None else (given, taken, counts[0], self._op)
            case "all_gather":
                return own, _by(taken, counts)
            case "all_to_all":
                return given, taken
            case "broadcast":
                return taken, plan.root
            case "reduce":
                return own, taken if at_root else None, self._op, plan.root
            case "gather":
                return own, _by(taken, counts) if at_root else None, plan.root
            case "scatter":
                received = MPI.IN_PLACE if plan.inplace else taken
                return _by(given, counts) if at_root else None, received, plan.root
        return ()


Counts = tuple[tuple[int, ...], tuple[int, ...]]  # elements of each block, and where it begins


def _with_places(elements: tuple[int, ...]) -> Counts:
    return elements, tuple(accumulate(elements, initial=0))[:-1]


def _by(memory: list[Any], counts: Counts | None) -> list[Any]:
    return memory if counts is None else [memory[0], counts, memory[1]]
