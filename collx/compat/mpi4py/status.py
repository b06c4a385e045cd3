"""Status: what is known of a message, in five integers as MPICH lays them out."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Self

from collx.compat.mpi4py.constants import (
    ANY_SOURCE,
    ANY_TAG,
    F_ERROR,
    F_SOURCE,
    F_STATUS_SIZE,
    F_TAG,
    SUCCESS,
    UNDEFINED,
)

if TYPE_CHECKING:
    from collx.compat.mpi4py.datatype import Datatype

_LOW, _HIGH = 0, 1  # of the number of bytes, and whether it was cancelled in the high word's lowest bit


class Status:
    __slots__ = ("__weakref__", "_words")

    def __init__(self, status: Status | None = None) -> None:
        if status is not None and not isinstance(status, Status):
            raise TypeError(f"cannot make a Status of {type(status).__name__}")
        self._words: array[int] = array("i", [0] * F_STATUS_SIZE) if status is None else status._words[:]
        if status is None:
            self._words[F_SOURCE], self._words[F_TAG], self._words[F_ERROR] = ANY_SOURCE, ANY_TAG, SUCCESS

    def _tell(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, nbytes: int = 0, error: int = SUCCESS) -> None:
        """What became of a message that was not cancelled."""
        words = self._words
        words[F_SOURCE], words[F_TAG], words[F_ERROR] = source, tag, error
        words[_HIGH] = 0
        self._nbytes = nbytes

    @property
    def _nbytes(self) -> int:
        return (self._words[_LOW] & 0xFFFFFFFF) | self._words[_HIGH] >> 1 << 32

    @_nbytes.setter
    def _nbytes(self, nbytes: int) -> None:
        low = nbytes & 0xFFFFFFFF
        self._words[_LOW] = low - (low >> 31 << 32)
        self._words[_HIGH] = nbytes >> 32 << 1 | self._words[_HIGH] & 1

    def _copy(self, status: Status) -> None:
        self._words[:] = status._words

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Status):
            return NotImplemented
        return self._words == other._words

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (), self.__getstate__()

    def __getstate__(self) -> dict[str, int]:
        state = {"source": self.source, "tag": self.tag, "error": self.error}
        return state | {"count": self.count, "cancelled": self.cancelled}

    def __setstate__(self, state: dict[str, int]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def Get_source(self) -> int:
        return self._words[F_SOURCE]

    def Set_source(self, source: int) -> None:
        self._words[F_SOURCE] = source

    def Get_tag(self) -> int:
        return self._words[F_TAG]

    def Set_tag(self, tag: int) -> None:
        self._words[F_TAG] = tag

    def Get_error(self) -> int:
        return self._words[F_ERROR]

    def Set_error(self, error: int) -> None:
        self._words[F_ERROR] = error

    def Get_count(self, datatype: Datatype | None = None) -> int:
        """Whole items of `datatype` that came, bytes by default; UNDEFINED where a part of one is left over."""
        size = 1 if datatype is None else datatype.Get_size()
        if size == 0:
            return 0 if self._nbytes == 0 else UNDEFINED
        return self._nbytes // size if self._nbytes % size == 0 else UNDEFINED

    def Get_elements(self, datatype: Datatype) -> int:
        """Elements of the predefined types in `datatype` that came, the last item perhaps in part."""
        one = datatype._kind().layout
        items, left = divmod(self._nbytes, one.size) if one.size else (0, self._nbytes)
        count = items * sum(many for _, many in one.basics)
        for size, many in one.basics:
            whole = min(left // size, many)
            left, count = left - whole * size, count + whole
            if whole < many:
                break
        return count if left == 0 else UNDEFINED

    def Set_elements(self, datatype: Datatype, count: int) -> None:
        one = datatype._kind().layout
        each = sum(many for _, many in one.basics)
        items, left = divmod(count, each) if each else (0, 0)
        self._nbytes = items * one.size
        for size, many in one.basics:
            self._nbytes += size * min(left, many)
            left -= min(left, many)

    def Is_cancelled(self) -> bool:
        return bool(self._words[_HIGH] & 1)

    def Set_cancelled(self, flag: bool) -> None:
        self._words[_HIGH] = self._words[_HIGH] & ~1 | bool(flag)

    source = property(Get_source, Set_source)
    tag = property(Get_tag, Set_tag)
    error = property(Get_error, Set_error)
    cancelled = property(Is_cancelled, Set_cancelled)

    @property
    def count(self) -> int:
        return self._nbytes

    @count.setter
    def count(self, count: int) -> None:
        self._nbytes = count

    def tomemory(self) -> memoryview:
        """Its integers, to be read and written."""
        return memoryview(self._words)

    def py2f(self) -> list[int]:
        return self._words.tolist()

    @classmethod
    def f2py(cls, arg: list[int]) -> Self:
        status = cls()
        status._words[:] = array("i", arg)
        return status
