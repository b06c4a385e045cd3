"""Arrays in shared memory."""

from __future__ import annotations

import math
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from collx.buffers import supported
from collx.types import Array


def shared_array(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A new array of unspecified content in anonymous shared memory, which is freed with the array's last view.

    Raises TypeError for a dtype collx does not compute with, ValueError for a negative shape, MemoryError
    where there is not that much shared memory.
    """
    element: np.dtype[Any] = supported(np.dtype(dtype), "the array")
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(length < 0 for length in sizes):
        raise ValueError(f"negative length in shape {sizes}")
    nbytes = max(math.prod(sizes) * element.itemsize, 1)
    fd = os.memfd_create("collx.empty", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, nbytes)  # an error now, not SIGBUS at the first touch
        memory = mmap.mmap(fd, nbytes)
    except OSError as error:
        raise MemoryError(f"no {nbytes} bytes of shared memory: {error.strerror}") from error
    finally:
        os.close(fd)
    return np.ndarray(sizes, element, buffer=memory)
