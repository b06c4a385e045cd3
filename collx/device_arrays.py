"""Memory of GPUs as calls see it: what they look at of an ndarray, and what they have done with it, on a stream."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np

from collx.transports.cuda.driver import LEGACY_STREAM, Driver, driver
from collx.types import Array, Where

PATTERN = 4096  # bytes that a fill begins with; every element's size divides it


class Flags(NamedTuple):
    """As ndarray.flags."""

    c_contiguous: bool
    aligned: bool
    writeable: bool


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array on a GPU, with the attributes of an ndarray that calls look at. Nobody reads it: `owner` is the user's
    object, which keeps the memory. `strides` are in bytes, None where it is C-contiguous."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    owner: Any = field(repr=False)
    strides: tuple[int, ...] | None = None
    writeable: bool = True

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def flags(self) -> Flags:
        grain = self.dtype.alignment
        if self.strides is None:
            return Flags(True, self.address % grain == 0 or not self.size, self.writeable)
        aligned = not any(place % grain for place in (self.address, *self.strides))
        return Flags(_contiguous(self.shape, self.strides, self.itemsize), aligned or not self.size, self.writeable)

    def outline(self) -> Array:
        """Its addresses as those of an ndarray, which must not be read: it tells what overlaps it."""
        interface = {
            "shape": self.shape,
            "typestr": f"|V{self.itemsize}",
            "data": (self.address, True),
            "strides": self.strides,
            "version": 3,
        }
        return np.asarray(SimpleNamespace(__array_interface__=interface))


def _contiguous(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    if 0 in shape:
        return True
    step = itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True


class Library(Protocol):
    """What makes arrays on GPUs, and reads and writes them there: CuPy, PyTorch, ..."""

    name: str

    def read(self, given: Any, name: str) -> DeviceArray:
        """What `given`, the argument `name`, is. Raises TypeError for what cannot be told by addresses."""
        ...

    def stream(self, given: Any, device: int) -> int | None:
        """The stream that the caller's work on `given` is queued on; None where all of that is done."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        """A new array, on the stream that is current. Raises TypeError where it makes none."""
        ...

    def copy(self, target: Any, source: Any, device: int) -> None:
        """Queue a copy between two of its arrays, which need not be contiguous."""
        ...


class Gpu:
    """A `collx.buffers.Kind`: what is done with one of a library's arrays, and with others for the same call."""

    __slots__ = ("_given", "_library", "_name", "device")

    def __init__(self, library: Library, array: DeviceArray, name: str) -> None:
        self.device = array.device
        self._library, self._given, self._name = library, array.owner, name

    def __str__(self) -> str:
        return f"GPU {self.device}"

    def stream(self) -> int | None:
        stream = self._library.stream(self._given, self.device)
        return LEGACY_STREAM if stream == 0 else stream

    def where(self, all_of_them: Sequence[Any]) -> Where:
        found: dict[int, Gpu] = {}
        for kind in all_of_them:
            stream = kind.stream()
            if stream is not None:
                found.setdefault(stream, kind)
        if len(found) > 1:
            (first, one), (second, other) = list(found.items())[:2]
            raise ValueError(
                f"two streams order this call, {one.ordered} ({first:#x}) and {other.ordered} ({second:#x}): make one"
                " stream current in both libraries"
            )
        return Where(self.device, next(iter(found), LEGACY_STREAM))

    @property
    def ordered(self) -> str:
        """Whose current stream that is, in words."""
        return f"{self._name} by {self._library.name}'s"

    def address(self, array: Any) -> int:
        return int(array.address)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self._library.read(self._library.empty(shape, dtype, self.device, self._name), self._name)

    def given(self, array: Any) -> Any:
        return array.owner

    def copy(self, target: Any, source: Any, where: Where | None) -> None:
        if not source.flags.c_contiguous:
            self._library.copy(target.owner, source.owner, self.device)
        elif source.nbytes:
            assert where is not None
            with driver().on(self.device):
                driver().copy(target.address, source.address, source.nbytes, where.stream)

    def fill(self, array: Any, value: Array, where: Where | None) -> None:
        """By copies of what is filled already: of any element type, and without a kernel."""
        assert where is not None
        cuda, filled = driver(), min(PATTERN, array.nbytes)
        if not filled:
            return
        with cuda.on(self.device):
            cuda.copy(array.address, _pattern(cuda, value.tobytes()), filled, where.stream)
            while filled < array.nbytes:
                step = min(filled, array.nbytes - filled)
                cuda.copy(array.address + filled, array.address, step, where.stream)
                filled += step

    def share(self, one: Any, other: Any) -> bool:
        return np.shares_memory(one.outline(), other.outline())


_patterns: dict[tuple[Driver, bytes], int] = {}  # pinned, for as long as the process lives: copies may be under way


def _pattern(cuda: Driver, element: bytes) -> int:
    found = _patterns.get((cuda, element))
    if found is None:
        found = _patterns[cuda, element] = cuda.allocate_host(PATTERN)
        ctypes.memmove(found, element * (PATTERN // len(element)), PATTERN)
    return found
