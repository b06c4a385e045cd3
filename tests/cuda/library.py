"""The library of the arrays that are not there, as collx knows CuPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from collx.device_libraries import LIBRARIES, Interface
from collx.transports.cuda.driver import driver
from tests.cuda import arrays


class Fake(Interface):
    """Of `tests.cuda.arrays.FakeArray`s, by this process's driver."""

    name = "Fake"

    def stream(self, given: Any, device: int) -> int | None:
        return arrays.current(given.driver)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        cuda: Any = driver()
        return arrays.empty(cuda, shape, dtype, ordinal=device)

    def copy(self, target: Any, source: Any, device: int) -> None:
        stream = target.driver._on(arrays.current(target.driver))
        to, of = target.host, source.host  # which keep no array, as a GPU's work does not
        stream.queue(lambda: np.copyto(to, of))


arrays.FakeArray.__module__ = "fakes"  # a library is known by the package that its types come from
LIBRARIES["fakes"] = Fake()
