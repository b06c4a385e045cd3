"""Pack and Unpack: elements gathered in a buffer, one behind the other, and brought back from there."""

from __future__ import annotations

from typing import Any

from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.handle import Mixin
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import read


class Packing(Mixin):
    """What Datatype has of it."""

    __slots__ = ()

    def Pack(self, inbuf: Any, outbuf: Any, position: int, comm: Any) -> int:
        """Put all elements of inbuf into outbuf, `position` bytes from its beginning; the position behind them."""
        (source, _), (packed, _) = read(inbuf, False), read(outbuf, True)
        count, room = self._fits(source, packed, position)
        one = self._kind().layout
        packed[position : position + room] = one.gather(_elements(one, source, count), count)
        return position + room

    def Unpack(self, inbuf: Any, position: int, outbuf: Any, comm: Any) -> int:
        """Fill outbuf with elements that were packed in inbuf; the position behind them."""
        (packed, _), (target, _) = read(inbuf, False), read(outbuf, True)
        count, room = self._fits(target, packed, position)
        one = self._kind().layout
        one.scatter(packed[position : position + room], _elements(one, target, count), count)
        return position + room

    def Pack_size(self, count: int, comm: Any) -> int:
        """The bytes that so many elements take."""
        return count * self._kind().size

    def Pack_external(self, datarep: str, inbuf: Any, outbuf: Any, position: int) -> int:
        raise NotImplementedError("MPI.Datatype.Pack_external is not in collx's shim of mpi4py")

    def Unpack_external(self, datarep: str, inbuf: Any, position: int, outbuf: Any) -> int:
        raise NotImplementedError("MPI.Datatype.Unpack_external is not in collx's shim of mpi4py")

    def Pack_external_size(self, datarep: str, count: int) -> int:
        raise NotImplementedError("MPI.Datatype.Pack_external_size is not in collx's shim of mpi4py")

    def _fits(self, plain: Bytes, packed: Bytes, position: int) -> tuple[int, int]:
        """How many elements there are, and the bytes they take when packed."""
        kind = self._kind()
        count = len(plain) // kind.extent if kind.extent > 0 else 0
        room = count * kind.size
        if not 0 <= position <= len(packed) - room:
            raise errors.Exception(
                constants.ERR_TRUNCATE, f"{room} bytes from {position} on do not fit in {len(packed)}"
            )
        return count, room


def _elements(one: Any, memory: Bytes, count: int) -> Bytes:
    first, last = one.span(count)
    if first < 0 or last > len(memory):
        raise errors.Exception(constants.ERR_BUFFER, "the datatype reaches beyond the buffer")
    return memory[first:last]
