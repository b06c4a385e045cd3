"""What a sweep runs on: the host here, GPUs in `collx.perf.gpu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from collx.perf import machine
from collx.perf.collectives import Array
from collx.perf.measure import Clock, HostClock
from collx.perf.options import Options
from collx.perf.points import Gpus


class Way(NamedTuple):
    """What one column of a sweep measures: calls by an algorithm ("" is the selector's choice) on a communicator."""

    comm: Any
    algorithm: str


Ways = Mapping[str, Way]


class Device(Clock, Protocol):
    """Where a sweep's arrays lie, how they are filled and read from here, and whose clock times the calls on them."""

    def ways(self, comm: Any, options: Options) -> Ways:
        """The columns of the sweep. Collective, as are those that take ways."""
        ...

    def card(self, comm: Any) -> tuple[int, str, str]:
        """What this rank runs on: its number on the host, a name among its like, and what it is."""
        ...

    def gpus(self, comm: Any, ways: Ways, devices: Sequence[Mapping[str, Any]]) -> Gpus | None:
        """What the figures depend on, where they are of GPUs; `devices` has every rank's card."""
        ...

    def chosen(self, comm: Any, collective: str, nbytes: int) -> str:
        """The algorithm that the selector chooses."""
        ...

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any:
        """A flat array, which can be sliced."""
        ...

    def write(self, array: Any, values: Array) -> None:
        """Set all of `array`; `values` are as long, or one for all."""
        ...

    def read(self, array: Any, dtype: np.dtype[Any]) -> Array:
        """What `array` holds when all calls before are done."""
        ...


class Host(HostClock):
    """NumPy arrays, and the processor's clock."""

    def ways(self, comm: Any, options: Options) -> Ways:
        return {name: Way(comm, name) for name in options.algorithms or ("",)}

    def card(self, comm: Any) -> tuple[int, str, str]:
        return comm.local_rank, "cpu", machine.processor()

    def gpus(self, comm: Any, ways: Ways, devices: Sequence[Mapping[str, Any]]) -> None:
        return None

    def chosen(self, comm: Any, collective: str, nbytes: int) -> str:
        name: str = comm.explain(collective, nbytes).chosen
        return name

    def empty(self, count: int, dtype: np.dtype[Any]) -> Array:
        return np.empty(count, dtype)

    def write(self, array: Array, values: Array) -> None:
        array[...] = values

    def read(self, array: Array, dtype: np.dtype[Any]) -> Array:
        return array


HOST = Host()
