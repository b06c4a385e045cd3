"""The stand-in's arrays as a kit of the GPU tests (tests/gpu), which so are tested here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from collx.types import DTYPES, Array
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn


class Fakes:
    name = "fakes"
    dtypes = tuple(dtype for dtype in DTYPES if dtype.name != "float8_e5m2")  # whose letters NumPy does not read

    def __init__(self, driver: StandIn) -> None:
        self._driver = driver
        self._shareable = True

    def put(self, values: Array, offset: int = 0) -> Any:
        return arrays.array(self._driver, values, values.dtype, offset=offset, shareable=self._shareable)

    def get(self, array: Any) -> Array:
        self._driver.synchronize(arrays.current(self._driver))
        found: Array = array.numpy()
        return found

    def copied(self, array: Any) -> Any:
        return array.copy()

    def made(self, array: Any) -> bool:
        return isinstance(array, FakeArray)

    @contextmanager
    def stream(self) -> Iterator[None]:
        before, made = arrays.current(self._driver), self._driver.stream()
        arrays.use_stream(self._driver, made)
        try:
            yield
        finally:
            arrays.use_stream(self._driver, before)

    def busy(self) -> None:
        """Its streams are late by themselves."""

    def trim(self) -> None:
        """Its pool has the driver's memory for good."""

    def apart(self) -> list[tuple[str, AbstractContextManager[None]]]:
        return [("memory that cannot be shared", self._apart())]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        self._shareable = False
        try:
            yield
        finally:
            self._shareable = True

    def captured(self, queue: Callable[[], object]) -> Callable[[], None]:
        stream = arrays.current(self._driver)
        self._driver.begin_capture(stream)
        try:
            queue()
        finally:
            graph = self._driver.end_capture(stream)
        return lambda: self._driver.replay(graph, arrays.current(self._driver))
