"""Arrays on GPUs that are not there, as CuPy's are on others: memory from a pool, and a stream that is current."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from collx.types import Array
from tests.cuda.standin import StandIn

_current = threading.local()


def current(driver: StandIn) -> int:
    """This thread's stream, on which its arrays are made and read; `use_stream` sets another one."""
    if getattr(_current, "of", None) is not driver:
        _current.of, _current.stream = driver, driver.stream()
    return int(_current.stream)


def use_stream(driver: StandIn, stream: int) -> None:
    _current.of, _current.stream = driver, stream


class FakeArray:
    """`host` is its memory, which is read and written at once; the methods wait their turn on the stream."""

    def __init__(self, driver: StandIn, host: Array, stream: int, owner: object) -> None:
        self.driver, self.host, self.stream, self._owner = driver, host, stream, owner
        self.shape, self.dtype, self.size, self.nbytes = host.shape, host.dtype, host.size, host.nbytes

    @property
    def address(self) -> int:
        return int(self.host.__array_interface__["data"][0]) if self.size else 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, not self.host.flags.writeable),
            "strides": None if self.host.flags.c_contiguous else self.host.strides,
            "version": 3,
            "stream": self.stream,
        }

    def __getitem__(self, index: Any) -> FakeArray:
        return FakeArray(self.driver, self.host[index], self.stream, self._owner)

    def __setitem__(self, index: Any, value: npt.ArrayLike) -> None:
        """Queued, as everything that a GPU does."""
        kept, part = np.array(value), self.host[index]
        self.driver._on(self.stream).queue(lambda: np.copyto(part, kept, casting="unsafe"))

    def copy(self) -> FakeArray:
        made = empty(self.driver, self.shape, self.dtype, stream=self.stream)
        self.driver._on(self.stream).queue(lambda: np.copyto(made.host, self.host))
        return made

    def numpy(self) -> Array:
        self.driver.synchronize(self.stream)
        return self.host.copy()


def empty(
    driver: StandIn,
    shape: int | tuple[int, ...],
    dtype: npt.DTypeLike = np.float32,
    *,
    ordinal: int | None = None,
    stream: int | None = None,
    offset: int = 0,
    shareable: bool = True,
) -> FakeArray:
    """`offset`: so many bytes into its memory, for arrays that are not aligned."""
    kind, queue = np.dtype(dtype), current(driver) if stream is None else stream
    nbytes = int(np.prod(shape)) * kind.itemsize + offset
    with driver.on(driver.ordinal if ordinal is None else ordinal):
        if shareable:
            address, give_back = driver.pooled(nbytes, queue)
        else:
            address = driver.unshareable(max(nbytes, 1))
    owner = _Memory(address + offset, nbytes - offset)
    if shareable:
        weakref.finalize(owner, give_back).atexit = False
    host = np.ndarray(shape, kind, np.asarray(owner))
    return FakeArray(driver, host, queue, owner)


def placed(driver: StandIn, address: int, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> FakeArray:
    """An array in memory that somebody else looks after."""
    kind = np.dtype(dtype)
    owner = _Memory(address, int(np.prod(shape)) * kind.itemsize)
    return FakeArray(driver, np.ndarray(shape, kind, np.asarray(owner)), current(driver), owner)


def array(driver: StandIn, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None, **where: Any) -> FakeArray:
    """The values come by the stream, as by `cupy.asarray` from pinned memory: not at once."""
    given = np.asarray(value, dtype)
    made = empty(driver, given.shape, given.dtype, **where)
    made[...] = given
    return made


class _Memory:
    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}
