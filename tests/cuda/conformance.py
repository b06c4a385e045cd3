"""What collx relies on of a driver: checked on the stand-in in every run of the tests, and on the real one where there
is a GPU, so that what passes on the one means something for the other."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from collx.cuda.kernels import Kernels, Move
from collx.transports.cuda.driver import CudaError, Driver

SOON = 20.0  # seconds in which everything here must end


class Bench:
    """A device's memory as bytes, by way of pinned memory."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.stream = driver, driver.stream()
        self._pinned = driver.allocate_host(4096)

    def read(self, address: int, nbytes: int) -> bytes:
        self.driver.copy(self._pinned, address, nbytes, self.stream)
        self.ended(self.stream)
        return ctypes.string_at(self._pinned, nbytes)

    def write(self, address: int, content: bytes) -> None:
        ctypes.memmove(self._pinned, content, len(content))
        self.driver.copy(address, self._pinned, len(content), self.stream)
        self.ended(self.stream)

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def ended(self, stream: int) -> None:
        event = self.driver.event()
        self.driver.record(event, stream)
        until = time.monotonic() + SOON
        while not self.driver.done(event):
            assert time.monotonic() < until, "what a stream has queued does not end"
        self.driver.destroy_event(event)

    def close(self) -> None:
        self.driver.destroy_stream(self.stream)
        self.driver.free_host(self._pinned)


def devices(driver: Driver) -> None:
    assert driver.devices() > 0
    assert driver.version() >= 11000
    device = driver.device(0)
    assert device == driver.device(0)
    assert (device.ordinal, device.uuid[:4]) == (0, "GPU-")
    assert device.multiprocessors > 0
    with driver.on(0), driver.on(0):
        address = driver.allocate(64)
    with driver.on(0):
        driver.free(address)
        host = driver.allocate_host(64)
        assert driver.device_at(host) is None
        driver.free_host(host)
    assert driver.device_at(0) is None
    assert driver.device_at(np.zeros(8).ctypes.data) is None


def memory(driver: Driver) -> None:
    bench, base = Bench(driver), driver.allocate(1000)
    assert driver.device_at(base + 999) == 0
    with ThreadPoolExecutor() as fresh:  # a thread that has used no GPU
        assert fresh.submit(driver.device_at, base).result() == 0
        assert fresh.submit(driver.device_at, np.zeros(8).ctypes.data).result() is None
    found = driver.allocation(base + 999)
    assert found.base == base
    assert found.nbytes >= 1000
    assert found == driver.allocation(base)
    assert bench.read(base, 1000) == bytes(1000)
    bench.write(base + 3, b"abcdefg")
    driver.copy(base + 501, base + 3, 7, bench.stream)
    assert bench.read(base + 500, 9) == b"\0abcdefg\0"
    assert len(driver.export(base)) == 64
    with pytest.raises(CudaError):
        driver.open(driver.export(base))  # in the process that made it
    generations = {found.generation}
    for _ in range(8):  # sooner or later at the same base
        driver.free(base)
        base = driver.allocate(1000)
        generations.add(driver.allocation(base).generation)
        assert bench.read(base, 1000) == bytes(1000)
    assert len(generations) == 9
    driver.free(base)
    bench.close()


def streams(driver: Driver) -> None:
    bench, base = Bench(driver), driver.allocate(64)
    first, second = driver.stream(), driver.stream()
    event = driver.event()
    assert driver.done(event)  # nothing is recorded,
    driver.wait_event(second, event)  # and so nothing is waited for
    driver.wait_value(first, base, 1)
    driver.write_value(first, base + 8, 5)
    driver.record(event, first)
    driver.wait_event(second, event)
    driver.copy(base + 16, base + 8, 8, second)
    assert not driver.done(event)
    assert not driver.capturing(first)
    driver.write_value(bench.stream, base, 2)  # which is 1 or more
    bench.ended(second)
    assert driver.done(event)
    assert [bench.word(base + at) for at in (0, 8, 16)] == [2, 5, 5]
    begun, ended = driver.event(timing=True), driver.event(timing=True)
    driver.record(begun, first)
    driver.copy(base, base + 8, 8, first)
    driver.record(ended, first)
    bench.ended(first)
    assert 0 < driver.elapsed(begun, ended) < SOON
    for used in (event, begun, ended):
        driver.destroy_event(used)
    for stream in (first, second):
        driver.destroy_stream(stream)
    driver.free(base)
    bench.close()


def kernels(driver: Driver) -> None:
    bench, base = Bench(driver), driver.allocate(4096)
    built = Kernels(driver, 0)
    given = [np.arange(100, dtype=np.float32) * factor for factor in (1, 10, 100)]
    sources = tuple(base + 1024 * number for number in range(3))
    for at, values in zip(sources, given, strict=True):
        bench.write(at, values.tobytes())
    built.fold([Move(sources, (base + 3072, base + 3604), 400)], np.dtype(np.float32), "sum", 3, bench.stream)
    expected = (given[0] + given[1] + given[2]).tobytes()
    assert bench.read(base + 3072, 400) == bench.read(base + 3604, 400) == expected
    driver.free(base)
    bench.close()


ALONE: tuple[Callable[[Driver], None], ...] = (devices, memory, streams, kernels)


def between(comm: Any, driver: Driver) -> None:
    """Two ranks, processes of one GPU: the second has what the first one exports."""
    with driver.on(0):
        bench = Bench(driver)
        (_exporting if comm.rank == 0 else _importing)(comm, driver, bench)
        bench.close()


def _exporting(comm: Any, driver: Driver, bench: Bench) -> None:
    base, event = driver.allocate(64), driver.event(interprocess=True)
    bench.write(base, b"memory".ljust(8) + bytes(56))
    comm.send(np.frombuffer(driver.export(base) + driver.export_event(event), np.uint8), 1)
    comm.barrier()  # the other has opened it
    driver.wait_value(bench.stream, base + 8, 9)
    driver.write_value(bench.stream, base + 16, 10)
    driver.record(event, bench.stream)
    comm.barrier()
    bench.ended(bench.stream)
    comm.barrier()  # the other has closed it
    driver.free(base)
    again = driver.allocate(64)
    bench.write(again, b"another".ljust(8))
    comm.send(np.frombuffer(driver.export(again), np.uint8), 1)
    comm.barrier()
    driver.destroy_event(event)
    driver.free(again)


def _importing(comm: Any, driver: Driver, bench: Bench) -> None:
    handles = np.empty(128, np.uint8)
    comm.recv(handles, 0)
    base, event = driver.open(handles[:64].tobytes()), driver.open_event(handles[64:].tobytes())
    assert driver.open(handles[:64].tobytes()) == base  # and so is to be closed twice
    driver.close(base)
    assert bench.read(base, 8) == b"memory".ljust(8)
    assert driver.device_at(base) == 0
    found = driver.allocation(base)
    assert found.base <= base
    assert found.base + found.nbytes >= base + 64
    comm.barrier()
    comm.barrier()  # the other has recorded the event
    stream = driver.stream()
    driver.wait_event(stream, event)
    driver.copy(base + 24, base + 16, 8, stream)
    assert not driver.done(event)
    driver.write_value(bench.stream, base + 8, 9)  # which the other's stream waits for
    bench.ended(stream)
    assert [bench.word(base + at) for at in (16, 24)] == [10, 10]
    driver.destroy_stream(stream)
    driver.destroy_event(event)
    driver.close(base)
    comm.barrier()
    handle = np.empty(64, np.uint8)
    comm.recv(handle, 0)
    base = driver.open(handle.tobytes())
    assert bench.read(base, 8) == b"another".ljust(8)
    driver.close(base)
    comm.barrier()
