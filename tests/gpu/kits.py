"""Arrays in GPU memory, of the libraries whose arrays collx takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from collx.types import DTYPES, Array

_HELD = 4_000_000  # turns of a GPU's clock, about 2 ms, that a stream is kept busy
_OF_TORCH = ("bool", "uint8", "int32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "complex64")
_SPIN = """
extern "C" __global__ void spin(long long turns) {
    long long begun = clock64();
    while (clock64() - begun < turns) {}
}
"""


class Kit(Protocol):
    """One library on one rank."""

    name: str
    dtypes: tuple[np.dtype[Any], ...]

    def put(self, values: Array, offset: int = 0) -> Any:
        """A new array that holds them, from so many bytes into its memory."""
        ...

    def get(self, array: Any) -> Array:
        """What it holds, behind all that is queued on the current stream."""
        ...

    def copied(self, array: Any) -> Any:
        """A copy, queued on the current stream."""
        ...

    def made(self, array: Any) -> bool:
        """Whether it is one of this library's."""
        ...

    def stream(self) -> AbstractContextManager[None]:
        """In the block another stream is current, which waits for no other."""
        ...

    def busy(self) -> None:
        """Keep the current stream busy for a while."""
        ...

    def trim(self) -> None:
        """Give the memory of arrays that are gone back to the driver."""
        ...

    def apart(self) -> list[tuple[str, AbstractContextManager[None]]]:
        """By name, kinds of memory that processes cannot share; in the block arrays lie in it."""
        ...

    def captured(self, queue: Callable[[], object]) -> Callable[[], None]:
        """A CUDA graph of what `queue` queues, as a function that queues it again."""
        ...


class Cupy:
    name = "cupy"
    dtypes = tuple(dtype for dtype in DTYPES if dtype.kind != "V" and dtype.name != "float8_e5m2")

    def __init__(self, ordinal: int) -> None:
        import cupy

        cupy.cuda.Device(ordinal).use()
        self._cupy: Any = cupy
        self._spin: Any = cupy.RawKernel(_SPIN, "spin")

    def put(self, values: Array, offset: int = 0) -> Any:
        room = self._cupy.empty(values.nbytes + offset, np.uint8)
        array = self._cupy.ndarray(values.shape, values.dtype, memptr=room.data + offset)
        array.set(values)
        return array

    def get(self, array: Any) -> Array:
        found: Array = self._cupy.asnumpy(array)
        return found

    def copied(self, array: Any) -> Any:
        return array.copy()

    def made(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray)

    @contextmanager
    def stream(self) -> Iterator[None]:
        with self._cupy.cuda.Stream(non_blocking=True):
            yield

    def busy(self) -> None:
        self._spin((1,), (1,), (np.int64(_HELD),))

    def trim(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()

    def apart(self) -> list[tuple[str, AbstractContextManager[None]]]:
        cuda = self._cupy.cuda
        return [
            ("an async pool", cuda.using_allocator(cuda.MemoryAsyncPool().malloc)),
            ("managed memory", cuda.using_allocator(cuda.malloc_managed)),
        ]

    def captured(self, queue: Callable[[], object]) -> Callable[[], None]:
        stream = self._cupy.cuda.get_current_stream()
        stream.begin_capture()
        try:
            queue()
        except BaseException:
            with contextlib.suppress(Exception):  # the capture is invalid by then
                stream.end_capture()
            raise
        graph = stream.end_capture()
        return lambda: graph.launch(self._cupy.cuda.get_current_stream())


class Torch:
    name = "torch"
    dtypes = tuple(dtype for dtype in DTYPES if dtype.name in _OF_TORCH)

    def __init__(self, ordinal: int) -> None:
        import torch

        self._torch: Any = torch
        self._torch.cuda.set_device(ordinal)

    def put(self, values: Array, offset: int = 0) -> Any:
        torch = self._torch
        raw = torch.empty(values.nbytes + offset, dtype=torch.uint8, device="cuda")[offset:]
        raw.copy_(torch.from_numpy(values.reshape(-1).view(np.uint8).copy()))
        return raw.view(getattr(torch, values.dtype.name)).reshape(values.shape)

    def get(self, array: Any) -> Array:
        names = {getattr(self._torch, dtype.name): dtype for dtype in self.dtypes}
        raw: Array = array.contiguous().reshape(-1).view(self._torch.uint8).cpu().numpy()
        return raw.view(names[array.dtype]).reshape(array.shape)

    def copied(self, array: Any) -> Any:
        return array.clone()

    def made(self, array: Any) -> bool:
        return isinstance(array, self._torch.Tensor) and bool(array.is_cuda)

    @contextmanager
    def stream(self) -> Iterator[None]:
        with self._torch.cuda.stream(self._torch.cuda.Stream()):
            yield

    def busy(self) -> None:
        self._torch.cuda._sleep(_HELD)

    def trim(self) -> None:
        self._torch.cuda.empty_cache()

    def apart(self) -> list[tuple[str, AbstractContextManager[None]]]:
        return []  # its expandable segments are chosen before its first array, for the whole process

    def captured(self, queue: Callable[[], object]) -> Callable[[], None]:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, capture_error_mode="relaxed"):  # others of its threads look at events
            queue()
        return lambda: graph.replay()
