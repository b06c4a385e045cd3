"""Kernels where there is no GPU: given by a test, by name, or else built for the host from their source."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

from collx.transports.cuda.driver import CudaError
from tests.cuda.streams import Work

Kernel = Callable[[bytes], None]


class HostProgram:
    """`queue(stream, work)` has the work done on the stream."""

    def __init__(
        self, given: Mapping[str, Kernel], queue: Callable[[int, Work], None], source: str, kernels: Sequence[str]
    ) -> None:
        self._given, self._queue, self._source, self._names = given, queue, source, frozenset(kernels)

    def launch(self, kernel: str, grid: tuple[int, int], block: int, arguments: bytes, stream: int) -> None:
        if kernel not in self._names:
            raise CudaError("cuModuleGetFunction", "CUDA_ERROR_NOT_FOUND")
        if given := self._given.get(kernel):
            run = given
            self._queue(stream, lambda: run(arguments))
        else:
            built = importlib.import_module("tests.cuda.host_kernels")
            self._queue(stream, lambda: built.run(self._source, kernel, grid, block, arguments))
