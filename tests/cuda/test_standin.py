"""The stand-in does what the real driver does, as far as collx relies on it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import collx
from collx.transports.cuda.driver import CudaError
from tests.cuda import conformance
from tests.cuda.arrays import array, current, empty
from tests.cuda.memory import FREED
from tests.cuda.standin import StandIn


@pytest.fixture
def gpu() -> Iterator[StandIn]:
    driver = StandIn(("GPU-a", "GPU-b"), jitter=2e-4)
    yield driver
    driver.end()


@pytest.fixture
def peer() -> Iterator[StandIn]:
    """Another process, as far as handles go."""
    driver = StandIn(("GPU-a", "GPU-b"))
    yield driver
    driver.end()


def word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def test_bases_come_back_with_another_generation(gpu: StandIn) -> None:
    first = gpu.allocate(1000)
    was = gpu.allocation(first + 999)
    assert was == (first, 1000, was.generation)
    gpu.free(first)
    assert gpu.allocate(1000) == first
    assert gpu.allocation(first).generation != was.generation


def test_memory_belongs_to_the_device_in_use(gpu: StandIn) -> None:
    with gpu.on(1):
        address, pinned = gpu.allocate(8), gpu.allocate_host(8)
    assert gpu.device_at(address) == 1
    assert gpu.device_at(gpu.allocate(8)) == 0
    assert gpu.device_at(pinned) is None
    assert gpu.device_at(0) is None
    with pytest.raises(CudaError, match="INVALID_DEVICE"), gpu.on(2):
        pass
    with pytest.raises(CudaError, match="INVALID_CONTEXT"):
        gpu.allocate_host(8)


def test_handles_are_for_other_processes(gpu: StandIn, peer: StandIn) -> None:
    base = gpu.allocate(64)
    handle = gpu.export(base)
    assert len(handle) == 64
    with pytest.raises(CudaError, match="INVALID_CONTEXT"):
        gpu.open(handle)
    mapped = peer.open(handle)
    ctypes.memset(base, 7, 64)
    assert ctypes.string_at(mapped, 64) == bytes([7]) * 64
    with pytest.raises(CudaError):
        peer.export(mapped)
    for wrong in (gpu.unshareable(64), base + 8):
        with pytest.raises(CudaError, match="cuIpcGetMemHandle"):
            gpu.export(wrong)


def test_what_is_opened_twice_is_closed_twice(gpu: StandIn, peer: StandIn) -> None:
    handle = gpu.export(gpu.allocate(64))
    mapped = peer.open(handle)
    assert peer.open(handle) == mapped
    peer.close(mapped)
    assert peer.mapped == 1
    peer.close(mapped)
    assert peer.mapped == 0
    with pytest.raises(CudaError):
        peer.close(mapped)


def test_a_handle_that_repeats_leads_to_the_old_memory_until_it_is_closed(gpu: StandIn, peer: StandIn) -> None:
    base = gpu.allocate(64)
    handle = gpu.export(base)
    mapped = peer.open(handle)
    gpu.free(base)
    assert gpu.export(gpu.allocate(64)) == handle
    assert peer.open(handle) == mapped
    assert ctypes.string_at(mapped, 64) == bytes([FREED]) * 64
    peer.close(mapped)
    peer.close(mapped)
    assert ctypes.string_at(peer.open(handle), 64) == bytes(64)


@pytest.mark.parametrize("check", conformance.ALONE, ids=lambda check: check.__name__)
def test_what_collx_relies_on(gpu: StandIn, check: Callable[[StandIn], None]) -> None:
    with gpu.on(0):
        check(gpu)


def test_work_comes_late(gpu: StandIn) -> None:
    stream, memory = gpu.stream(), gpu.allocate(64)
    gpu.wait_value(stream, memory, 1)
    gpu.write_value(stream, memory + 8, 5)
    assert word(memory + 8) == 0
    gpu.write_value(gpu.stream(), memory, 1)
    gpu.synchronize(stream)
    assert word(memory + 8) == 5


def test_only_events_with_timing_time(gpu: StandIn) -> None:
    with pytest.raises(CudaError, match="INVALID_HANDLE"):
        gpu.elapsed(gpu.event(timing=True), gpu.event())
    with pytest.raises(CudaError, match="INVALID_VALUE"):
        gpu.event(timing=True, interprocess=True)


def test_bytes_outside_of_an_allocation_break_the_device(gpu: StandIn) -> None:
    memory = gpu.allocate(64)
    gpu.copy(memory + 8, memory, 64, 0)
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        gpu.synchronize(0)
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        gpu.allocate(8)


def test_graphs(gpu: StandIn) -> None:
    stream, side, memory = gpu.stream(), gpu.stream(), gpu.allocate(64)
    fork, join = gpu.event(), gpu.event()
    forbidden: list[Callable[[], object]] = [lambda: gpu.allocate(8), lambda: gpu.done(join)]
    for call in forbidden:
        gpu.begin_capture(stream, strict=True)
        with pytest.raises(CudaError, match="CAPTURE"):
            call()
        with pytest.raises(CudaError, match="INVALIDATED"):
            gpu.end_capture(stream)
    gpu.begin_capture(stream, strict=True)
    gpu.record(fork, stream)
    gpu.wait_event(side, fork)
    gpu.write_value(side, memory, 3)
    gpu.record(join, side)
    gpu.wait_event(stream, join)
    gpu.copy(memory + 8, memory, 8, stream)
    assert gpu.capturing(stream)
    assert gpu.capturing(side)
    with pytest.raises(CudaError, match="CAPTURE"):
        gpu.record(gpu.event(interprocess=True), stream)
    with ThreadPoolExecutor(1, initializer=gpu.beside_captures) as others:
        assert others.submit(gpu.done, gpu.event()).result()
    graph = gpu.end_capture(stream)
    assert not gpu.capturing(side)
    gpu.synchronize(stream)
    assert word(memory) == 0
    gpu.replay(graph, stream)
    gpu.synchronize(stream)
    assert word(memory + 8) == 3


def test_arrays(gpu: StandIn) -> None:
    values = np.arange(100, dtype=np.int32)
    given = array(gpu, values, offset=4)
    assert given.address % 8 == 4
    interface = given.__cuda_array_interface__
    assert (interface["shape"], interface["stream"], interface["strides"]) == ((100,), current(gpu), None)
    assert given[10:20].address == given.address + 40
    assert given[::2].__cuda_array_interface__["strides"] == (8,)
    assert (given[::2].copy().numpy() == values[::2]).all()
    address = given.address
    del given, interface
    made = gpu.allocated
    again = empty(gpu, 100, np.int32, offset=4)
    assert gpu.allocated == made
    assert again.address == address
    assert gpu.allocation(address).nbytes > 404


def _between_processes(comm: collx.Communicator) -> None:
    driver = StandIn().install()
    with driver.on(0):
        conformance.between(comm, driver)


def test_between_processes() -> None:
    collx.spawn(_between_processes, 2)
