"""A sweep on GPUs: arrays in their memory, and times of events on the stream that the calls are queued on."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from collx.errors import AbortedError, TransportError
from collx.perf.collectives import Array, Call
from collx.perf.device import Way, Ways
from collx.perf.measure import longest
from collx.perf.options import Options, UsageError
from collx.perf.points import Gpus
from collx.transports.cuda.bindings import NO_DRIVER, NO_PACKAGE
from collx.transports.cuda.driver import driver
from collx.transports.cuda.interface import Driver

SYNC = "COLLX_CUDA_SYNC"
SYNC_MODES = ("host", "event", "memop", "spin")
ROOF_BYTES = 1 << 30  # of the copy that the roof is measured by: far more than any cache holds
_COPIES, _WARMING = 20, 100  # copies that are timed, and before: an idle GPU's clocks take a while to rise
_FLOAT = np.dtype(np.float32)
_OF_TORCH = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # dtypes that CuPy has not, or not everywhere


class Arrays(Protocol):
    """A library's arrays on one GPU."""

    stream: int  # the library's current one

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any: ...
    def address(self, array: Any) -> int: ...
    def available(self) -> int:
        """Bytes that the GPU has left."""
        ...


class CupyArrays:
    def __init__(self, ordinal: int) -> None:
        import cupy

        self._cupy = cupy
        cupy.cuda.Device(ordinal).use()
        self._kept = cupy.cuda.Stream(non_blocking=True)
        self._kept.use()
        self.stream = int(self._kept.ptr)

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any:
        return self._cupy.empty(count, dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def available(self) -> int:
        return int(self._cupy.cuda.runtime.memGetInfo()[0])


class TorchArrays:
    def __init__(self, ordinal: int) -> None:
        import torch

        self._torch: Any = torch
        self._torch.cuda.set_device(ordinal)
        self._kept = self._torch.cuda.Stream()
        self._torch.cuda.set_stream(self._kept)
        self.stream = int(self._kept.cuda_stream)

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any:
        return self._torch.empty(count, dtype=getattr(self._torch, dtype.name), device="cuda")

    def address(self, array: Any) -> int:
        return int(array.data_ptr())

    def available(self) -> int:
        return int(self._torch.cuda.mem_get_info()[0])


def missing(dtype: np.dtype[Any]) -> str:
    """What a sweep on GPUs lacks here, in one line; empty where nothing is. CUDA stays untouched, as a process that has
    begun with it cannot fork ranks."""
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return NO_PACKAGE
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return NO_DRIVER
    if dtype.name in _OF_TORCH:
        return (
            "" if importlib.util.find_spec("torch") else f"arrays of {dtype.name} are torch's here: pip install torch"
        )
    return "" if importlib.util.find_spec("cupy") else "arrays are CuPy's here: pip install cupy-cuda13x, or -cuda12x"


def on_gpu(comm: Any, options: Options) -> Gpu:
    """This rank's GPU: the ranks of a host take turns."""
    found = driver()
    ordinal = comm.local_rank % found.devices()
    arrays = TorchArrays(ordinal) if options.dtype.name in _OF_TORCH else CupyArrays(ordinal)
    return Gpu(found, ordinal, arrays)


def synchronised(comm: Any, mode: str, array: Callable[[], Any]) -> Any:
    """The same ranks in another communicator, whose calls on GPUs wait for each other by `mode`. Collective."""
    before = os.environ.get(SYNC)
    os.environ[SYNC] = mode
    try:
        made = comm.split(0)
        made.all_reduce(array())  # the first call on GPUs settles it
    finally:
        os.environ.pop(SYNC)
        if before is not None:
            os.environ[SYNC] = before
    return made


class Gpu:
    """One rank's GPU, as a sweep's device."""

    def __init__(self, found: Driver, ordinal: int, arrays: Arrays, roof_bytes: int = ROOF_BYTES) -> None:
        self._driver, self._ordinal, self._arrays, self._roof_bytes = found, ordinal, arrays, roof_bytes
        self._events: list[int] = []
        self._pinned, self._room = 0, 0
        self._left_out: list[str] = []

    # -- what is measured, and where

    def ways(self, comm: Any, options: Options) -> Ways:
        """By algorithm, or by sync mode, each on a communicator of its own: it holds for all calls of one."""
        one = partial(self.empty, 1, _FLOAT)
        if len(options.sync) > 1:
            return self._modes(comm, options, one)
        for mode in options.sync:
            comm = synchronised(comm, mode, one)
        comm.all_reduce(one())  # after which it can be told how calls are made
        if options.versus:
            return {"collx": Way(comm, ""), "nccl": Way(comm, "nccl")}
        return {name: Way(comm, name) for name in options.algorithms or ("",)}

    def _modes(self, comm: Any, options: Options, one: Callable[[], Any]) -> Ways:
        """Of the modes that are named, all that this machine has."""
        algorithm = options.algorithms[0] if options.algorithms else ""
        ways = {}
        for mode in options.sync:
            try:
                ways[mode] = Way(synchronised(comm, mode, one), algorithm)
            except (TransportError, AbortedError) as error:  # no rank has it, or one has told the others so
                self._left_out.append(f"{mode}: {error}")
        if not ways:
            raise TransportError("; ".join(self._left_out))
        return ways

    def card(self, comm: Any) -> tuple[int, str, str]:
        found = self._driver.device(self._ordinal)
        return self._ordinal, found.uuid, found.name

    def gpus(self, comm: Any, ways: Ways, devices: Sequence[Mapping[str, Any]]) -> Gpus:
        sharing: dict[tuple[str, str], list[int]] = {}
        for row in devices:
            sharing.setdefault((row["hostname"], row["device_hex"]), []).append(row["rank"])
        ranks = tuple(map(tuple, sharing.values()))
        if "nccl" in ways and len(ranks) < comm.size:
            raise UsageError("--vs nccl needs a GPU for every rank: NCCL refuses ranks that share one")
        how = [way.comm.explain("all_reduce", 0, device="cuda").way for way in ways.values()]
        sync = tuple(name for name in ways if name in SYNC_MODES)
        roof = longest(comm, [self._roof() if comm.rank == 0 else 0.0])[0] if len(ranks) == 1 else None
        return Gpus(ranks, sync, tuple(dict.fromkeys(how)), tuple(self._left_out), roof)

    def _roof(self) -> float:
        """Bytes per second that a large copy inside this GPU reads and writes, while nobody else does anything."""
        nbytes = min(self._roof_bytes, self._arrays.available() // 4)
        with self._driver.on(self._ordinal):
            source, target = self._driver.allocate(nbytes), self._driver.allocate(nbytes)
            try:
                copy = partial(self._driver.copy, target, source, nbytes, self._arrays.stream)
                self.mean_time(copy, _WARMING)
                return 2 * nbytes / statistics.median(self.each_time(copy, _COPIES))
            finally:
                self._driver.free(source)
                self._driver.free(target)

    def chosen(self, comm: Any, collective: str, nbytes: int) -> str:
        told = comm.explain(collective, nbytes, device="cuda")
        return str(told.chosen or told.host.chosen)

    # -- arrays

    def empty(self, count: int, dtype: np.dtype[Any]) -> Any:
        return self._arrays.empty(count, dtype)

    def write(self, array: Any, values: Array) -> None:
        if (count := math.prod(array.shape)) == 0:
            return
        nbytes = count * values.itemsize
        staged = self._staged(nbytes).view(values.dtype)
        staged[...] = values
        self._copy(self._arrays.address(array), staged.ctypes.data, nbytes)

    def read(self, array: Any, dtype: np.dtype[Any]) -> Array:
        count = math.prod(array.shape)
        staged = self._staged(count * dtype.itemsize)
        if count:
            self._copy(staged.ctypes.data, self._arrays.address(array), staged.nbytes)
        return staged.view(dtype).copy()

    def _staged(self, nbytes: int) -> Array:
        """Pinned memory of the host, the same for every array."""
        if nbytes > self._room:
            with self._driver.on(self._ordinal):
                if self._room:
                    self._driver.free_host(self._pinned)
                self._pinned, self._room = self._driver.allocate_host(nbytes), nbytes
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self._pinned))

    def _copy(self, target: int, source: int, nbytes: int) -> None:
        self.mean_time(partial(self._driver.copy, target, source, nbytes, self._arrays.stream), 1)

    # -- the clock

    def mean_time(self, call: Call, iterations: int) -> float:
        return self._moments(call, iterations, iterations)[0] / iterations

    def each_time(self, call: Call, iterations: int) -> list[float]:
        return self._moments(call, iterations, 1)

    def _moments(self, call: Call, iterations: int, step: int) -> list[float]:
        """Seconds of every `step` calls in a row."""
        found, stream = self._driver, self._arrays.stream
        with found.on(self._ordinal):
            while len(self._events) <= iterations // step:
                self._events.append(found.event(timing=True))
            events = self._events[: iterations // step + 1]
            found.record(events[0], stream)
            for event in events[1:]:
                for _ in range(step):
                    call()
                found.record(event, stream)
            while not found.done(events[-1]):
                time.sleep(0)
            return [found.elapsed(before, after) for before, after in pairwise(events)]
