"""Arrays in shared memory."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from collx.buffers import supported
from collx.checks import whole
from collx.errors import TransportError
from collx.transports.shm import memory_file
from collx.types import Array


def shared_array(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A new array of unspecified content in anonymous shared memory, which is freed with the array's last view.

    Raises TypeError for a dtype collx does not compute with, ValueError for a negative shape, MemoryError
    where there is not that much shared memory.
    """
    element: np.dtype[Any] = supported(np.dtype(dtype), "the array")
    lengths = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    sizes = tuple(whole(length, "a length in the shape") for length in lengths)
    if any(length < 0 for length in sizes):
        raise ValueError(f"negative length in shape {sizes}")
    nbytes = max(math.prod(sizes) * element.itemsize, 1)
    try:
        fd = memory_file(nbytes, "collx.empty")
    except TransportError as error:
        raise MemoryError(str(error)) from error
    try:
        memory = mmap.mmap(fd, nbytes)
    finally:
        os.close(fd)
    return np.ndarray(sizes, element, buffer=memory)
