"""NCCL beside collx's own plans, where every rank has a GPU to itself: one communicator of NCCL's, by CuPy.

NCCL refuses ranks that share a GPU. Calls and constants are those of nccl.h (NVIDIA, NCCL user guide, "API").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from collx.collectives import COLLECTIVES
from collx.errors import TransportError
from collx.request import Request

_IDENTIFIER = 128  # bytes, NCCL_UNIQUE_ID_BYTES
_BYTES = 1  # ncclUint8: what only moves has no other dtype
_DTYPES = {
    "int8": 0, "uint8": 1, "int32": 2, "uint32": 3, "int64": 4, "uint64": 5,
    "float16": 6, "float32": 7, "float64": 8, "bfloat16": 9,
}  # fmt: skip
_OPS = {"sum": 0, "prod": 1, "max": 2, "min": 3, "avg": 4}
# Kind of dtype -> the ops that mean the same to NCCL: its min and max lose NaN. A complex sum is one of the parts.
_SAME = {"b": (), "i": ("sum", "prod", "min", "max"), "u": ("sum", "prod", "min", "max"), "f": ("sum", "prod", "avg")}
_SAME |= {"V": _SAME["f"], "c": ("sum", "avg")}
_SERVED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce")

Gather = Callable[[bytes], list[bytes]]  # every rank's bytes, as many on each


def objection(request: Request) -> str | None:
    """Why NCCL cannot serve the request, if it cannot; the same on every rank."""
    if request.collective not in _SERVED:
        return f"NCCL has no {request.collective}"
    if request.collective in ("reduce_scatter", "all_gather") and not request.uniform:
        return f"NCCL's {request.collective} takes equal counts only"
    if request.op is None or not COLLECTIVES[request.collective].reduces:
        return None
    if request.custom:
        return "the op is not NCCL's"
    dtype, op = request.dtype, request.op.name
    if dtype.kind != "c" and dtype.name not in _DTYPES:
        return f"NCCL does not reduce {dtype.name}"
    return None if op in _SAME[dtype.kind] else f"NCCL's {op} of {dtype.name} is not the same"


def library() -> Any:
    """CuPy's binding to NCCL. Raises TransportError, in one line, where there is none."""
    try:
        from cupy.cuda import nccl
    except ImportError as error:
        raise TransportError(f"NCCL is used by way of CuPy, which cannot be imported: {error}") from error
    if not getattr(nccl, "available", False):
        raise TransportError("CuPy has found no NCCL; install nvidia-nccl-cu12 or nvidia-nccl-cu13, as its CUDA is")
    return nccl


def join(rank: int, size: int, gather: Gather, found: Callable[[], Any] = library) -> Nccl | str:
    """One communicator of all ranks, on the device in use; or, on every rank alike, why there is none. Collective."""
    nccl, lacking = None, ""
    identifier = bytes(_IDENTIFIER)
    try:
        nccl = found()
        if rank == 0:
            identifier = bytes(byte & 0xFF for byte in nccl.get_unique_id())
    except Exception as error:  # as CuPy has it: RuntimeError, ImportError, NCCL's own
        lacking = " ".join(str(error).split()) or type(error).__name__
    told = gather(identifier + lacking.encode()[:_IDENTIFIER].ljust(_IDENTIFIER, b"\0"))
    for peer, record in enumerate(told):
        if reason := record[_IDENTIFIER:].rstrip(b"\0").decode(errors="replace"):
            return f"rank {peer} cannot use it: {reason}"
    assert nccl is not None
    signed = tuple(byte - 256 if byte > 127 else byte for byte in told[0][:_IDENTIFIER])  # C's chars, as CuPy has them
    try:
        return Nccl(nccl, nccl.NcclCommunicator(size, signed, rank), rank, size)
    except nccl.NcclError as error:
        raise TransportError(f"NCCL does not join {size} ranks: {error}; NCCL_DEBUG=INFO says more") from error


class Nccl:
    """One rank's end of NCCL's communicator. Calls are queued on a stream, in the same order on all ranks."""

    def __init__(self, nccl: Any, communicator: Any, rank: int, size: int) -> None:
        self._nccl, self._communicator, self.rank, self.size = nccl, communicator, rank, size

    def run(self, request: Request, source: int, target: int, stream: int) -> None:
        """Queue a call that has no `objection`. Raises TransportError for what NCCL refuses."""
        try:
            getattr(self, f"_{request.collective}")(request, source, target, stream)
        except self._nccl.NcclError as error:
            raise TransportError(f"NCCL's {request.collective} failed: {error}; NCCL_DEBUG=INFO says more") from error

    def failed(self) -> str | None:
        """What NCCL has found out by itself since, as that a peer's connection broke."""
        try:
            self._communicator.check_async_error()
        except self._nccl.NcclError as error:
            return str(error)
        return None

    def abort(self) -> None:
        """End what is queued, for a peer that will not come; idempotent, from any thread. Nothing can run after it."""
        with contextlib.suppress(self._nccl.NcclError):
            self._communicator.abort()

    def close(self) -> None:
        """When all that was queued is done. Idempotent."""
        self._communicator.destroy()

    # -- collectives

    def _all_reduce(self, request: Request, source: int, target: int, stream: int) -> None:
        count, dtype, op = _reduced(request, request.elements[0])
        self._communicator.allReduce(source, target, count, dtype, op, stream)

    def _reduce(self, request: Request, source: int, target: int, stream: int) -> None:
        count, dtype, op = _reduced(request, request.elements[0])
        self._communicator.reduce(source, target or source, count, dtype, op, request.root, stream)

    def _reduce_scatter(self, request: Request, source: int, target: int, stream: int) -> None:
        count, dtype, op = _reduced(request, request.elements[self.rank])
        self._communicator.reduceScatter(source, target, count, dtype, op, stream)

    def _all_gather(self, request: Request, source: int, target: int, stream: int) -> None:
        self._communicator.allGather(source, target, _nbytes(request, self.rank), _BYTES, stream)

    def _broadcast(self, request: Request, source: int, target: int, stream: int) -> None:
        self._communicator.broadcast(source, target, _nbytes(request, 0), _BYTES, request.root, stream)

    def _all_to_all(self, request: Request, source: int, target: int, stream: int) -> None:
        """A group of sends and receives, as NCCL's user guide has it ("Point-to-point communication")."""
        self._nccl.groupStart()
        try:
            for peer, (offset, nbytes) in enumerate(_blocks(request, request.given)):
                if nbytes:
                    self._communicator.send(source + offset, nbytes, _BYTES, peer, stream)
            for peer, (offset, nbytes) in enumerate(_blocks(request, request.elements)):
                if nbytes:
                    self._communicator.recv(target + offset, nbytes, _BYTES, peer, stream)
        finally:
            self._nccl.groupEnd()


def _reduced(request: Request, count: int) -> tuple[int, int, int]:
    """Count, dtype and op in NCCL's numbers."""
    assert request.op is not None
    name = request.dtype.name
    if request.dtype.kind == "c":
        count, name = 2 * count, f"float{request.dtype.itemsize * 4}"
    return count, _DTYPES[name], _OPS[request.op.name]


def _nbytes(request: Request, block: int) -> int:
    return request.elements[block] * request.dtype.itemsize


def _blocks(request: Request, elements: tuple[int, ...]) -> list[tuple[int, int]]:
    """Offset and length of each block, in bytes."""
    lengths = [count * request.dtype.itemsize for count in elements]
    return list(zip(accumulate([0, *lengths]), lengths, strict=False))
