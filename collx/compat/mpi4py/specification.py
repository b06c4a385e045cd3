"""Message specifications, [buffer, count, displacement, datatype] and what of it may be left out, as memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.datatype import Datatype
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import BOTTOM, at, is_buffer, read
from collx.compat.mpi4py.predefined import CODES, CONSTANTS, Kind

NOTHING = np.empty(0, np.uint8)


class Message:
    """`count` elements of a datatype, the first of them `offset` bytes behind where `base` begins.

    With `base` None the offset is an address.
    """

    __slots__ = ("base", "count", "kind", "offset")

    def __init__(self, base: Bytes | None, offset: int, count: int, kind: Kind) -> None:
        self.base, self.offset, self.count, self.kind = base, offset, count, kind

    @property
    def nbytes(self) -> int:
        """How many travel."""
        return self.count * self.kind.size

    def times(self, blocks: int) -> Message:
        """So many of it behind each other."""
        return Message(self.base, self.offset, self.count * blocks, self.kind)

    def block(self, index: int) -> Message:
        """The one that lies `index` of its own lengths behind it."""
        return Message(self.base, self.offset + index * self.count * self.kind.extent, self.count, self.kind)

    def view(self) -> Bytes | None:
        """The bytes where they lie; None where they are not contiguous."""
        return self._span() if self.kind.dense else None

    def data(self) -> Bytes:
        """The bytes, contiguous: where they lie or, if they are not, copied."""
        return self._span() if self.kind.dense else self.kind.layout.gather(self._span(), self.count)

    def put(self, data: Bytes) -> None:
        """Write what `data` returns, or the beginning of it."""
        if self.kind.dense:
            self._span()[: len(data)] = data
        else:
            self.kind.layout.scatter(data, self._span(), self.count)

    def _span(self) -> Bytes:
        first, last = self.kind.layout.span(self.count)
        if first == last:
            return NOTHING
        first, last = first + self.offset, last + self.offset
        if self.base is None:
            return at(first, last - first, None)
        if first >= 0 and last <= len(self.base):
            return self.base[first:last]
        if self.kind.dense:
            raise ValueError(f"message: {self.count} elements are {self.nbytes} bytes, but the buffer has fewer")
        # As in C, a datatype may reach beyond what the program names, as a column does that begins within an array.
        address = int(self.base.__array_interface__["data"][0])
        return at(address + first, last - first, self.base, not self.base.flags.writeable)


class Vector:
    """Several messages, one for or from each rank."""

    def __init__(self, parts: list[Message]) -> None:
        self.parts = parts

    @property
    def counts(self) -> list[int]:
        """How many bytes of each travel."""
        return [part.nbytes for part in self.parts]

    def view(self) -> Bytes | None:
        """The bytes of all where they lie, if they lie behind each other without a gap; else None."""
        full = [part for part in self.parts if part.nbytes]
        if not full:
            return NOTHING
        if not all(part.kind.dense for part in full):
            return None
        ends = [part.offset + part.kind.layout.true_lb + part.nbytes for part in full]
        if any(full[i + 1].offset + full[i + 1].kind.layout.true_lb != ends[i] for i in range(len(full) - 1)):
            return None
        first = full[0]
        whole = Message(first.base, first.offset + first.kind.layout.true_lb, sum(self.counts), _bytes())
        return whole.view()

    def data(self) -> Bytes:
        """The bytes of all, contiguous."""
        view = self.view()
        return np.concatenate([part.data() for part in self.parts]) if view is None else view

    def put(self, data: Bytes) -> None:
        begin = 0
        for part in self.parts:
            part.put(data[begin : begin + part.nbytes])
            begin += part.nbytes


def message(given: Any, writable: bool = False, rank: int = 0, blocks: int = 0) -> Message:
    """What a program means by `given`. To or from PROC_NULL it is nothing; of `blocks` blocks the count is one's.

    Raises TypeError, ValueError and KeyError for what means nothing, BufferError as `memory.read`.
    """
    if rank == constants.PROC_NULL:
        return Message(NOTHING, 0, 0, _bytes())
    buffer, count, displ, datatype = _split(given, (tuple, list))
    base, kind = _basic(buffer, datatype, writable)
    length, offset = 0 if base is None else len(base), 0
    if displ is not None and (steps := _index(displ)):
        if steps < 0:
            raise ValueError(f"message: negative displacement {steps}")
        offset = steps * _extent(kind, "displacement")
        if base is not None and offset > length:
            raise ValueError(
                f"message: displacement {steps} is out of bounds, there are {length // kind.extent} elements"
            )
        length -= offset
    if count is not None:
        number = _index(count)
        if number < 0:
            raise ValueError(f"message: negative count {number}")
        if number and buffer is None:
            raise ValueError(f"message: the buffer is None, but the count is {number}")
    else:
        number = _counted(length, kind, blocks)
    return Message(base, offset, number, kind)


def vector(given: Any, blocks: int, writable: bool = False) -> Vector:
    """The same, with a count and a displacement, in elements, for each of `blocks` ranks."""
    buffer, counts, displs, datatype = _split(given, (tuple,))
    base, kind = _basic(buffer, datatype, writable)
    if counts is None:
        number = _counted(0 if base is None else len(base), kind, 1)
        counts = [number // blocks + (number % blocks > block) for block in range(blocks)] if blocks else []
    elif _is_index(counts):
        counts = [_index(counts)] * blocks
    else:
        counts = _numbers(counts, blocks)
    if displs is None:
        displs = [sum(counts[:block]) for block in range(blocks)]
    elif _is_index(displs):
        displs = [_index(displs) * block for block in range(blocks)]
    else:
        displs = _numbers(displs, blocks)
    if counts and min(counts) < 0:
        raise errors.Exception(constants.ERR_COUNT, f"message: negative count {min(counts)}")
    extent = kind.extent
    return Vector([Message(base, at * extent, n, kind) for n, at in zip(counts, displs, strict=True)])


def vector_w(given: Any, blocks: int, writable: bool = False) -> Vector:
    """The same, with a datatype for each rank too; displacements are in bytes."""
    if not isinstance(given, (list, tuple)):
        raise TypeError("message: expecting a list or tuple")
    if len(given) == 2:
        (buffer, datatypes), counts, displs = given, None, None
    elif len(given) == 3:
        buffer, (counts, displs), datatypes = given
    elif len(given) == 4:
        buffer, counts, displs, datatypes = given
    else:
        raise ValueError("message: expecting 2 to 4 items")
    if buffer is BOTTOM and (counts is None or displs is None):
        raise ValueError("message: BOTTOM requires counts and displacements")
    base = None if buffer is BOTTOM else NOTHING if buffer is None else read(buffer, writable)[0]
    counts = [1] * blocks if counts is None else _numbers(counts, blocks)
    displs = [0] * blocks if displs is None else _numbers(displs, blocks)
    kinds = [_kind_of(one) for one in datatypes]
    if len(kinds) != blocks:
        raise ValueError(f"message: there are {len(kinds)} datatypes for {blocks} blocks")
    return Vector([Message(base, at, n, kind) for n, at, kind in zip(counts, displs, kinds, strict=True)])


def _split(given: Any, of_counts: tuple[type, ...]) -> tuple[Any, Any, Any, Any]:
    """Buffer, count or counts, displacement or displacements, datatype; what is left out as None."""
    if not isinstance(given, (list, tuple)):
        if is_buffer(given):
            return given, None, None, None
        raise TypeError(f"message: expecting a buffer, a list or a tuple, not {type(given).__name__}")
    whole: list[Any] = [*given, None, None, None, None]
    buffer, count, displ, datatype = whole[:4]
    if len(given) == 2 and isinstance(count, (Datatype, str)):
        return buffer, None, None, count
    if len(given) == 3:
        displ, datatype = None, given[2]
    if len(given) in (2, 3) and isinstance(count, of_counts):
        count, displ = whole[1]
    if not 2 <= len(given) <= 4:
        raise ValueError("message: expecting 2 to 4 items")
    return buffer, count, displ, datatype


def _basic(buffer: Any, datatype: Any, writable: bool) -> tuple[Bytes | None, Kind]:
    if buffer is BOTTOM:
        if datatype is None:
            raise KeyError("message: BOTTOM requires a datatype")
        return None, _kind_of(datatype)
    if buffer is None:
        return NOTHING, _bytes() if datatype is None else _kind_of(datatype)
    base, code = read(buffer, writable)
    return base, _kind_of(code if datatype is None else datatype)


def _kind_of(datatype: Any) -> Kind:
    if not isinstance(datatype, Datatype):
        if datatype not in CODES:
            raise KeyError(f"cannot map {datatype!r} to MPI datatype")
        datatype = CODES[datatype]
    if not datatype:
        raise errors.Exception(constants.ERR_TYPE, "message: the datatype is null")
    return datatype._kind()


def _counted(length: int, kind: Kind, blocks: int) -> int:
    """How many elements there are in so many bytes, in each of the blocks."""
    if not length:
        return 0
    extent = _extent(kind, "count")
    if length % extent:
        raise ValueError(
            f"message: cannot infer count, buffer length {length} is not a multiple of datatype extent {extent}"
        )
    if blocks > 1 and length // extent % blocks:
        raise ValueError(f"message: cannot infer count, {length // extent} elements do not divide into {blocks} blocks")
    return length // extent // max(blocks, 1)


def _extent(kind: Kind, what: str) -> int:
    if kind.extent <= 0:
        raise ValueError(f"message: cannot infer {what}, datatype extent is {kind.extent}")
    return kind.extent


def _bytes() -> Kind:
    kind: Kind = CONSTANTS["BYTE"]._it
    return kind


def _is_index(value: Any) -> bool:
    return hasattr(value, "__index__") and not (isinstance(value, np.ndarray) and value.ndim)


def _index(value: Any) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"message: expecting an integer, not {type(value).__name__}")
    return int(value.__index__())


def _numbers(values: Any, blocks: int) -> list[int]:
    found = [_index(value) for value in values]
    if len(found) != blocks:
        raise ValueError(f"message: expecting {blocks} items, got {len(found)}")
    return found
