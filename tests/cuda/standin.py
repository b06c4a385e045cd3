"""The driver on the host: what collx asks of CUDA, between threads and processes, without a GPU.

As strict as CUDA where that matters: a handle is refused in the process that made it, may lead to other memory after a
free, and opened twice gives the same base; work on a stream comes late; what is freed does not keep its bytes.
Streams are `stream()`s: give each rank that is a thread its own, since the default one belongs to the process.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from collx.transports.cuda import driver as interface
from collx.transports.cuda.driver import LEGACY_STREAM, THREAD_STREAM, Allocation, CudaError, Device
from tests.cuda.host_program import HostProgram, Kernel
from tests.cuda.memory import UNSET, Arena, Block, Pool, poison
from tests.cuda.streams import Event, Graph, Stream, wait_until

HANDLE = struct.Struct("<4s I Q Q Q Q I 20x")  # kind, pid, process, base, bytes, descriptor, device
_generations = itertools.count(1)
_numbers = itertools.count(1000)  # of streams and events


class StandIn:
    """`uuids` are the devices, which processes share by their names; `mps`: kernels of several processes overlap.
    `jitter`: seconds by which work comes late at most, at random. `memops=False`: as a driver without them."""

    def __init__(
        self,
        uuids: Sequence[str] = ("GPU-0",),
        *,
        mps: bool = False,
        jitter: float = 0.0,
        seed: int = 0,
        memops: bool = True,
        driver_version: int = 13000,
    ) -> None:
        self.uuids, self.mps, self.memops, self.driver_version = tuple(uuids), mps, memops, driver_version
        self.process = secrets.randbits(64)
        self.calls: list[str] = []  # what changed mappings, for tests of the order
        self.kernels: dict[str, Kernel] = {}  # by name, where they are not compiled
        self.broken: BaseException | None = None
        self._jitter, self._seed = jitter, seed
        self._lock = threading.RLock()
        self._arena = Arena()
        self._streams: dict[Any, Stream] = {}
        self._events: dict[int, Event] = {}
        self._pools: dict[tuple[int, int], Pool] = {}
        self._local = threading.local()
        self._ended = False
        atexit.register(self.end)

    def install(self) -> StandIn:
        """Be this process's driver from now on."""
        interface.use(self)
        return self

    def end(self) -> None:
        """Streams end, whatever they wait for."""
        self._ended = True
        for stream in self._streams.values():
            stream.end()
        self._arena.end()
        atexit.unregister(self.end)

    # -- devices
    def version(self) -> int:
        return self.driver_version

    def devices(self) -> int:
        return len(self.uuids)

    def device(self, ordinal: int) -> Device:
        if not 0 <= ordinal < len(self.uuids):
            raise CudaError("cuDeviceGet", "CUDA_ERROR_INVALID_DEVICE")
        return Device(ordinal, self.uuids[ordinal], "stand-in", (9, 0), 4, self.mps)

    def device_at(self, address: int) -> int | None:
        block = self._arena.at(address)
        return None if block is None or block.ordinal < 0 else block.ordinal

    @contextmanager
    def on(self, ordinal: int) -> Iterator[None]:
        self.device(ordinal)
        before = getattr(self._local, "ordinal", None)
        self._local.ordinal = ordinal
        try:
            yield
        finally:
            self._local.ordinal = before

    @property
    def ordinal(self) -> int:
        return getattr(self._local, "ordinal", None) or 0

    def _in_use(self, call: str) -> None:
        """Threads that have used no GPU have no context, where collx asks for what belongs to one."""
        if getattr(self._local, "ordinal", None) is None:
            raise CudaError(call, "CUDA_ERROR_INVALID_CONTEXT")

    # -- memory
    def allocate(self, nbytes: int) -> int:
        self._idle("cuMemAlloc")
        if nbytes <= 0:
            raise CudaError("cuMemAlloc", "CUDA_ERROR_INVALID_VALUE")
        return self._new(nbytes, 0).base

    def _new(self, nbytes: int, fill: int, *, shareable: bool = True) -> Block:
        fd = os.memfd_create("device memory")
        os.ftruncate(fd, nbytes)
        with self._lock:
            block = self._arena.add(nbytes, self.ordinal, next(_generations), fd)
            if shareable:
                block.handle = HANDLE.pack(b"mem", os.getpid(), self.process, block.base, nbytes, fd, block.ordinal)
        if fill:  # the file's memory is zero
            ctypes.memset(block.base, fill, nbytes)
        return block

    def unshareable(self, nbytes: int) -> int:
        """Device memory that `export` refuses, as VMM's and async pools'."""
        return self._new(nbytes, UNSET, shareable=False).base

    def free(self, address: int) -> None:
        self._idle("cuMemFree")
        with self._lock:
            block = self._arena.at(address)
            if block is None or block.base != address or block.ordinal < 0 or block.opened:
                raise CudaError("cuMemFree", "CUDA_ERROR_INVALID_VALUE")
        self._drain()
        with self._lock:
            self.calls.append("free")
            poison(block)  # peers that still have it mapped must not rely on it
            self._arena.drop(block)

    def allocation(self, address: int) -> Allocation:
        self._check()
        with self._lock:
            block = self._arena.at(address)
        if block is None or block.ordinal < 0:
            raise CudaError("cuMemGetAddressRange", "CUDA_ERROR_INVALID_VALUE")
        return Allocation(block.base, block.nbytes, block.generation)

    def export(self, base: int) -> bytes:
        self._check()
        with self._lock:
            block = self._arena.at(base)
        if block is None or block.base != base or not block.handle or block.opened:
            raise CudaError("cuIpcGetMemHandle", "CUDA_ERROR_INVALID_VALUE")
        return block.handle

    def open(self, handle: bytes) -> int:
        self._idle("cuIpcOpenMemHandle")
        kind, pid, process, _, nbytes, fd, ordinal = HANDLE.unpack(handle)
        if kind.rstrip(b"\0") != b"mem" or ordinal >= len(self.uuids):
            raise CudaError("cuIpcOpenMemHandle", "CUDA_ERROR_INVALID_VALUE")
        if process == self.process:
            raise CudaError("cuIpcOpenMemHandle", "CUDA_ERROR_INVALID_CONTEXT")
        with self._lock:
            self.calls.append("open")
            block = self._arena.opened(handle)  # which may lead to what the peer has freed since: as CUDA does
            if block is None:
                mine = _opened(pid, fd, "cuIpcOpenMemHandle")
                if os.fstat(mine).st_size != nbytes:
                    os.close(mine)
                    raise CudaError("cuIpcOpenMemHandle", "CUDA_ERROR_INVALID_HANDLE")
                block = self._arena.add(nbytes, ordinal, next(_generations), mine)
                block.handle, block.context = handle, self.ordinal
            block.opened += 1
            return block.base

    def close(self, base: int) -> None:
        self._idle("cuIpcCloseMemHandle")
        with self._lock:
            self.calls.append("close")
            block = self._arena.at(base)
            if block is None or block.base != base or not block.opened or block.context != self.ordinal:
                raise CudaError("cuIpcCloseMemHandle", "CUDA_ERROR_INVALID_VALUE")
            block.opened -= 1
            if not block.opened:
                self._arena.drop(block)

    def allocate_host(self, nbytes: int) -> int:
        self._in_use("cuMemHostAlloc")
        with self._lock:
            return self._arena.add(nbytes, -1, next(_generations)).base

    def free_host(self, address: int) -> None:
        self._in_use("cuMemFreeHost")
        with self._lock:
            block = self._arena.at(address)
            if block is None or block.base != address or block.ordinal >= 0:
                raise CudaError("cuMemFreeHost", "CUDA_ERROR_INVALID_VALUE")
        self._drain()
        with self._lock:
            self._arena.drop(block)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._on(stream).queue(lambda: self._move(target, source, nbytes))

    def _move(self, target: int, source: int, nbytes: int) -> None:
        self.inside(target, nbytes)
        self.inside(source, nbytes)
        ctypes.memmove(target, source, nbytes)

    def inside(self, address: int, nbytes: int) -> None:
        """Fail as a GPU does where these bytes are not all of one block that is mapped here."""
        with self._lock:
            block = self._arena.at(address)
        if nbytes and (block is None or address + nbytes > block.base + block.nbytes):
            raise CudaError("an access", "CUDA_ERROR_ILLEGAL_ADDRESS")

    @property
    def mapped(self) -> int:
        """How many allocations of other processes are mapped here."""
        return sum(block.opened > 0 for block in self._arena.first(*range(len(self.uuids))))

    @property
    def allocated(self) -> int:
        """How many allocations of its own this process has, pools' chunks among them."""
        return len(self._arena.first(-1, *range(len(self.uuids)))) - self.mapped

    def pooled(self, nbytes: int, stream: int) -> tuple[int, Callable[[], None]]:
        """Memory for what is queued on the stream, set to nothing in particular, and what gives it back; pools are by
        stream, as it may still be used by what was queued there before."""
        with self._lock:
            pool = self._pools.setdefault((self.ordinal, stream), Pool())
            address = pool.take(nbytes, lambda size: self._new(size, UNSET).base)
        return address, lambda: pool.give_back(address, nbytes)

    # -- streams and events
    def stream(self, *, urgent: bool = False) -> int:
        number = next(_numbers)
        self._streams[number] = self._made()
        return number

    def _made(self) -> Stream:
        return Stream(self._failed, self._jitter, self._seed + len(self._streams))

    def _failed(self, error: BaseException) -> None:
        self.broken = self.broken or error

    def _on(self, stream: int) -> Stream:
        self._check()
        key: Any = stream
        if stream in (0, LEGACY_STREAM):
            key = (LEGACY_STREAM, self.ordinal)
        elif stream == THREAD_STREAM:
            key = (THREAD_STREAM, self.ordinal, threading.get_ident())
        elif stream not in self._streams:
            raise CudaError("a stream", "CUDA_ERROR_INVALID_HANDLE")
        with self._lock:
            return self._streams.get(key) or self._streams.setdefault(key, self._made())

    def destroy_stream(self, stream: int) -> None:
        self._on(stream).end()
        del self._streams[stream]

    def event(self, *, interprocess: bool = False, timing: bool = False) -> int:
        self._check()
        if interprocess and timing:
            raise CudaError("cuEventCreate", "CUDA_ERROR_INVALID_VALUE")
        number = next(_numbers)
        self._events[number] = Event(timing=timing, interprocess=interprocess)
        return number

    def _event(self, event: int) -> Event:
        self._check()
        if event not in self._events:
            raise CudaError("an event", "CUDA_ERROR_INVALID_HANDLE")
        return self._events[event]

    def destroy_event(self, event: int) -> None:
        self._event(event)
        del self._events[event]

    def export_event(self, event: int) -> bytes:
        found = self._event(event)
        if not found.interprocess:
            raise CudaError("cuIpcGetEventHandle", "CUDA_ERROR_INVALID_HANDLE")
        return HANDLE.pack(b"evt", os.getpid(), self.process, event, 0, found.fd, 0)

    def open_event(self, handle: bytes) -> int:
        self._check()
        kind, pid, process, _, _, fd, _ = HANDLE.unpack(handle)
        if kind.rstrip(b"\0") != b"evt":
            raise CudaError("cuIpcOpenEventHandle", "CUDA_ERROR_INVALID_VALUE")
        if process == self.process:
            raise CudaError("cuIpcOpenEventHandle", "CUDA_ERROR_INVALID_CONTEXT")
        number = next(_numbers)
        theirs = _opened(pid, fd, "cuIpcOpenEventHandle")
        self._events[number] = Event(timing=False, interprocess=True, fd=theirs, pid=pid)
        return number

    def record(self, event: int, stream: int) -> None:
        found, queue = self._event(event), self._on(stream)
        if queue.graph and found.interprocess:
            raise CudaError("cuEventRecord", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        found.record(queue)

    def wait_event(self, stream: int, event: int) -> None:
        found, queue = self._event(event), self._on(stream)
        if queue.graph and not found.graph and found.recorded:
            raise CudaError("cuStreamWaitEvent", "CUDA_ERROR_STREAM_CAPTURE_ISOLATION")
        if found.graph and found.graph.ended:
            raise CudaError("cuStreamWaitEvent", "CUDA_ERROR_CAPTURED_EVENT")
        found.wait(queue, lambda: self._ended)

    def done(self, event: int) -> bool:
        self._idle("cuEventQuery")
        found = self._event(event)
        if found.graph:
            raise CudaError("cuEventQuery", "CUDA_ERROR_CAPTURED_EVENT")
        return found.done

    def elapsed(self, begun: int, ended: int) -> float:
        first, last = self._event(begun), self._event(ended)
        if not (first.timing and last.timing):
            raise CudaError("cuEventElapsedTime", "CUDA_ERROR_INVALID_HANDLE")
        if not (first.done and last.done):
            raise CudaError("cuEventElapsedTime", "CUDA_ERROR_NOT_READY")
        return last.reached_at - first.reached_at

    def synchronize(self, stream: int) -> None:
        """For tests: return when all that is queued on the stream is done."""
        self._on(stream).drained()
        self._check()

    # -- graphs, which the user's library makes: CuPy, torch
    def capturing(self, stream: int) -> bool:
        return self._on(stream).graph is not None

    def begin_capture(self, stream: int, *, strict: bool = False) -> None:
        """What is queued on the stream from now on is captured. `strict`: as torch does it, nobody may wait or
        allocate meanwhile; CuPy is not."""
        self._on(stream).graph = Graph(stream, strict)

    def end_capture(self, stream: int) -> Graph:
        graph = self._on(stream).graph
        assert graph is not None
        assert graph.origin == stream
        for each in self._streams.values():
            each.graph = None if each.graph is graph else each.graph
        graph.ended = True
        if graph.spoiled:
            raise CudaError("cuStreamEndCapture", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        return graph

    def beside_captures(self) -> None:
        self._local.beside = True

    def replay(self, graph: Graph, stream: int) -> None:
        queue = self._on(stream)
        for work in graph.works:
            queue.queue(work)

    # -- stream memory operations
    def write_value(self, stream: int, address: int, value: int) -> None:
        word = self._word("cuStreamWriteValue64", address)

        def write() -> None:
            word.value = value

        self._on(stream).queue(write)

    def wait_value(self, stream: int, address: int, value: int) -> None:
        word = self._word("cuStreamWaitValue64", address)
        self._on(stream).queue(lambda: wait_until(lambda: word.value >= value, lambda: self._ended))

    def _word(self, call: str, address: int) -> ctypes.c_uint64:
        if not self.memops:
            raise CudaError(call, "CUDA_ERROR_NOT_SUPPORTED")
        if address % 8 or self._arena.at(address) is None:
            raise CudaError(call, "CUDA_ERROR_INVALID_VALUE")
        return ctypes.c_uint64.from_address(address)

    # -- kernels
    def program(self, source: str, kernels: Sequence[str]) -> HostProgram:
        self._in_use("cuModuleLoadData")
        return HostProgram(self.kernels, lambda stream, work: self._on(stream).queue(work), source, kernels)

    # -- what every call begins with
    def _check(self) -> None:
        if self.broken:
            raise self.broken

    def _idle(self, call: str) -> None:
        self._check()
        if getattr(self._local, "beside", False):
            return
        strict = [stream.graph for stream in list(self._streams.values()) if stream.graph and stream.graph.strict]
        for graph in strict:
            graph.spoiled = True
        if strict:
            raise CudaError(call, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _drain(self) -> None:
        for stream in list(self._streams.values()):
            stream.drained()


def _opened(pid: int, fd: int, call: str) -> int:
    try:
        return os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
    except OSError:
        raise CudaError(call, "CUDA_ERROR_INVALID_HANDLE") from None
