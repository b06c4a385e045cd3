"""Arrays in shared memory: what `Communicator.empty` returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from collx.buffers import supported
from collx.checks import whole
from collx.types import Array


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array in shared memory. Its views are too, and keep the memory; copies and results of computations
    are ordinary arrays. It cannot be pickled, which would make an ordinary array of it without a word."""

    def __array_wrap__(self, array: Array, context: Any = None, return_scalar: bool = False) -> Any:
        """What a ufunc computed, as it is: of this type only where it was written to such an array."""
        return array[()] if return_scalar and array.ndim == 0 else array

    def copy(self, order: Any = "C") -> Array:  # type: ignore[override]
        return np.array(self, order=order)

    def __copy__(self) -> Array:  # type: ignore[override]
        return np.array(self)

    def __deepcopy__(self, memo: object) -> Array:  # type: ignore[override]
        return np.array(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        root: Any = self
        while isinstance(root.base, np.ndarray):
            root = root.base
        if root.base is None:  # of this type, but in memory of its own, as what indexing with an array gives
            return np.asarray(self).__reduce_ex__(protocol)
        return self.__reduce__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an array of comm.empty cannot be pickled, its memory is this process's; pickle array.copy()")


def shared_array(shape: int | tuple[int, ...], dtype: npt.DTypeLike, allocate: Callable[[int], Array]) -> Array:
    """A new array of unspecified content in what `allocate` gives for a number of bytes: as many, as uint8."""
    element: np.dtype[Any] = supported(np.dtype(dtype), "the array")
    lengths = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    sizes = tuple(whole(length, "a length in the shape") for length in lengths)
    if any(length < 0 for length in sizes):
        raise ValueError(f"negative length in shape {sizes}")
    nbytes = math.prod(sizes) * element.itemsize
    return SharedArray(sizes, element, buffer=allocate(nbytes))
