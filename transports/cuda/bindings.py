"""The driver itself, by the cuda-bindings package, versions 12 and 13."""

from __future__ import annotations

import ctypes
import threading
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from collx.errors import TransportError
from collx.transports.cuda.compiler import compiled
from collx.transports.cuda.interface import Allocation, CudaError, Device, Program

# Flags and attributes by their numbers, which are the driver's ABI: names have changed between releases.
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
MOST_URGENT = -100  # a stream's priority; the driver takes the next one that the device has
DISABLE_TIMING, INTERPROCESS = 2, 4  # CU_EVENT_...
PORTABLE, DEVICE_MAPPED = 1, 2  # CU_MEMHOSTALLOC_...
LAZY_PEER_ACCESS = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
GREATER_OR_EQUAL = 0  # CU_STREAM_WAIT_VALUE_GEQ
HOST_MEMORY = 1  # CU_MEMORYTYPE_HOST
HANDLE = 64  # bytes
# The driver shares the whole block that an allocation is cut from, so one that is to be shared fills its blocks.
BLOCK = 2 << 20
MOST_ARGUMENTS = 4096  # bytes of a kernel's parameters
LOADS_FUNCTIONS = 12040  # the CUDA from which on there is cuFuncLoad
NO_EVENTS = "events between processes need one /dev/shm: start containers with --ipc=host, or set COLLX_CUDA_SYNC=memop"
NO_PACKAGE = "GPU arrays need the cuda-bindings package: pip install 'collx[cuda13]', or [cuda12] for older drivers"
NO_DRIVER = "no NVIDIA driver: libcuda.so.1 cannot be loaded; install it, or start the container with --gpus all"
FORKED = "no GPU after a fork: the parent had used CUDA; fork before it does, or start processes by spawn"
NO_GPU = "no GPU: the NVIDIA driver is there, but this process sees no device; is CUDA_VISIBLE_DEVICES too narrow?"


class Bindings:
    """The driver on primary contexts, as CuPy and torch have them."""

    def __init__(self, cuda: Any = None) -> None:
        """`cuda` stands in for `cuda.bindings.driver`, in tests."""
        if cuda is None:
            try:
                from cuda.bindings import driver
            except ImportError:
                raise TransportError(NO_PACKAGE) from None
            cuda = driver
        self._cuda: Any = cuda
        try:
            outcome = self._cuda.cuInit(0)[0]
        except Exception:  # cuda-bindings looks for the library at its first call, and each release has its own error
            raise TransportError(NO_DRIVER) from None
        for name, sentence in (("CUDA_ERROR_NO_DEVICE", NO_GPU), ("CUDA_ERROR_NOT_INITIALIZED", FORKED)):
            if getattr(outcome, "name", "") == name:
                raise TransportError(sentence)
        _check("cuInit", outcome)
        if not self.devices():
            raise TransportError(NO_GPU)
        self._contexts: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._launches = _Launches()
        self._programs: dict[tuple[int, str, tuple[str, ...]], Program] = {}

    def _do(self, call: str, *arguments: Any, remedy: str = "") -> Any:
        """One call; its result, where it has one."""
        found = getattr(self._cuda, call)(*arguments)
        _check(call, found[0], remedy)
        return found[1] if len(found) == 2 else found[1:]

    # -- devices
    def version(self) -> int:
        return int(self._do("cuDriverGetVersion"))

    def devices(self) -> int:
        return int(self._do("cuDeviceGetCount"))

    def device(self, ordinal: int) -> Device:
        handle = self._do("cuDeviceGet", ordinal)
        # In bindings 12 the plain name means the call that does not tell the instances of a GPU apart.
        call = "cuDeviceGetUuid_v2" if hasattr(self._cuda, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
        name = self._do("cuDeviceGetName", 128, handle).split(b"\0")[0].decode()

        def attribute(which: str) -> int:
            kind = getattr(self._cuda.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{which}")
            return int(self._do("cuDeviceGetAttribute", kind, handle))

        return Device(
            ordinal,
            f"GPU-{uuid.UUID(bytes=bytes(self._do(call, handle).bytes))}",
            name,
            (attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
            attribute("MULTIPROCESSOR_COUNT"),
            self._under_mps(handle),
        )

    def _under_mps(self, device: Any) -> bool:
        kind = getattr(self._cuda.CUdevice_attribute, "CU_DEVICE_ATTRIBUTE_MPS_ENABLED", None)
        if kind is None:
            return False
        outcome, enabled = self._cuda.cuDeviceGetAttribute(kind, device)
        return not int(outcome) and bool(enabled)  # old drivers do not know it: no MPS is the safe guess

    def device_at(self, address: int) -> int | None:
        kinds = self._cuda.CUpointer_attribute
        outcome, kind = self._asked(kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        if outcome in ("CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_INVALID_CONTEXT") or kind == HOST_MEMORY:
            return None
        outcome, ordinal = self._asked(kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)
        if outcome:
            raise CudaError("cuPointerGetAttribute", outcome)
        return ordinal

    def _asked(self, kind: Any, address: int) -> tuple[str, int]:
        """An attribute of a pointer, or the error's name. The driver wants some context to be in use for that; one is
        where the thread has used CuPy or torch; else any does, and where there is none there is no memory."""
        outcome, found = self._cuda.cuPointerGetAttribute(kind, address)
        if getattr(outcome, "name", "") == "CUDA_ERROR_INVALID_CONTEXT":
            for ordinal in range(self.devices()):
                _, active = self._do("cuDevicePrimaryCtxGetState", self._do("cuDeviceGet", ordinal))
                if active:
                    with self.on(ordinal):
                        outcome, found = self._cuda.cuPointerGetAttribute(kind, address)
                    break
        return (outcome.name, 0) if int(outcome) else ("", int(found))

    def on(self, ordinal: int) -> AbstractContextManager[None]:
        return _On(self._cuda, self._contexts.get(ordinal) or self._retained(ordinal))

    def _retained(self, ordinal: int) -> Any:
        """The device's primary context, kept until the process ends, as CuPy and torch do."""
        with self._lock:
            if ordinal not in self._contexts:
                device = self._do("cuDeviceGet", ordinal)
                self._contexts[ordinal] = self._do("cuDevicePrimaryCtxRetain", device)
            return self._contexts[ordinal]

    # -- memory
    def allocate(self, nbytes: int) -> int:
        size = -(-nbytes // BLOCK) * BLOCK
        address = int(self._do("cuMemAlloc", size))
        self._do("cuMemsetD8", address, 0, size)
        self._do("cuStreamSynchronize", 0)  # setting device memory returns before it is done
        return address

    def free(self, address: int) -> None:
        self._do("cuMemFree", address)

    def allocation(self, address: int) -> Allocation:
        kind = self._cuda.CUpointer_attribute.CU_POINTER_ATTRIBUTE_BUFFER_ID
        base, nbytes = self._do("cuMemGetAddressRange", address)
        return Allocation(int(base), int(nbytes), int(self._do("cuPointerGetAttribute", kind, address)))

    def export(self, base: int) -> bytes:
        return _bytes(self._do("cuIpcGetMemHandle", base))

    def open(self, handle: bytes) -> int:
        found = self._cuda.CUipcMemHandle()
        ctypes.memmove(found.getPtr(), handle, HANDLE)
        return int(self._do("cuIpcOpenMemHandle", found, LAZY_PEER_ACCESS))

    def close(self, base: int) -> None:
        self._do("cuIpcCloseMemHandle", base)

    def allocate_host(self, nbytes: int) -> int:
        return int(self._do("cuMemHostAlloc", nbytes, PORTABLE | DEVICE_MAPPED))

    def free_host(self, address: int) -> None:
        self._do("cuMemFreeHost", address)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._do("cuMemcpyAsync", target, source, nbytes, stream)

    # -- streams and events
    def stream(self, *, urgent: bool = False) -> int:
        return int(self._do("cuStreamCreateWithPriority", NON_BLOCKING, MOST_URGENT if urgent else 0))

    def destroy_stream(self, stream: int) -> None:
        self._do("cuStreamDestroy", stream)

    def event(self, *, interprocess: bool = False, timing: bool = False) -> int:
        return int(self._do("cuEventCreate", (not timing) * DISABLE_TIMING | interprocess * INTERPROCESS))

    def destroy_event(self, event: int) -> None:
        self._do("cuEventDestroy", event)

    def export_event(self, event: int) -> bytes:
        return _bytes(self._do("cuIpcGetEventHandle", event))

    def open_event(self, handle: bytes) -> int:
        found = self._cuda.CUipcEventHandle()
        ctypes.memmove(found.getPtr(), handle, HANDLE)
        return int(self._do("cuIpcOpenEventHandle", found, remedy=NO_EVENTS))

    def record(self, event: int, stream: int) -> None:
        self._do("cuEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        self._do("cuStreamWaitEvent", stream, event, 0)

    def done(self, event: int) -> bool:
        (outcome,) = self._cuda.cuEventQuery(event)
        if getattr(outcome, "name", "") == "CUDA_ERROR_NOT_READY":
            return False
        _check("cuEventQuery", outcome)
        return True

    def elapsed(self, begun: int, ended: int) -> float:
        return float(self._do("cuEventElapsedTime", begun, ended)) / 1e3

    def capturing(self, stream: int) -> bool:
        return bool(int(self._do("cuStreamIsCapturing", stream)))

    def beside_captures(self) -> None:
        relaxed = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._do("cuThreadExchangeStreamCaptureMode", relaxed)

    # -- stream memory operations
    def write_value(self, stream: int, address: int, value: int) -> None:
        self._do("cuStreamWriteValue64", stream, address, value, 0)

    def wait_value(self, stream: int, address: int, value: int) -> None:
        self._do("cuStreamWaitValue64", stream, address, value, GREATER_OR_EQUAL)

    # -- kernels
    def program(self, source: str, kernels: Sequence[str]) -> Program:
        device = self.device(int(self._do("cuCtxGetDevice")))
        key = device.ordinal, source, tuple(kernels)  # every communicator asks for the same ones
        if key not in self._programs:
            self._programs[key] = self._loaded(source, kernels, device)
        return self._programs[key]

    def _loaded(self, source: str, kernels: Sequence[str], device: Device) -> Program:
        code = compiled(source, "sm_{}{}".format(*device.capability))
        module = self._do("cuModuleLoadData", code)
        functions = {}
        for name in kernels:
            functions[name] = self._do("cuModuleGetFunction", module, name.encode())
            # Or else the driver loads it at its first launch, for which it waits for streams that may wait for a peer.
            if self.version() >= LOADS_FUNCTIONS:
                self._do("cuFuncLoad", functions[name])
        return _Loaded(self._cuda, module, functions, self._launches)


def _bytes(handle: Any) -> bytes:
    """What is in a struct of the bindings, which only tells its address, and is gone with the object."""
    return ctypes.string_at(handle.getPtr(), HANDLE)


class _On:
    """A block with a context. Every call is made in one or two of these, so they ask the bindings directly."""

    __slots__ = ("_context", "_cuda")

    def __init__(self, cuda: Any, context: Any) -> None:
        self._cuda, self._context = cuda, context

    def __enter__(self) -> None:
        _check("cuCtxPushCurrent", self._cuda.cuCtxPushCurrent(self._context)[0])

    def __exit__(self, *_: object) -> None:
        _check("cuCtxPopCurrent", self._cuda.cuCtxPopCurrent()[0])


def _check(call: str, outcome: Any, remedy: str = "") -> None:
    if outcome:
        raise CudaError(call, getattr(outcome, "name", str(outcome)), remedy)


class _Launches(threading.local):
    """Where a thread's next kernel finds its arguments: the driver copies them when it queues the kernel."""

    def __init__(self) -> None:
        room = (ctypes.c_uint8 * MOST_ARGUMENTS)()
        self.room = memoryview(room).cast("B")
        self.parameters = (ctypes.c_void_p * 1)(ctypes.addressof(room))
        self.pointer = ctypes.addressof(self.parameters)


class _Loaded:
    def __init__(self, cuda: Any, module: Any, functions: dict[str, Any], launches: _Launches) -> None:
        self._cuda, self._module, self._functions, self._launches = cuda, module, functions, launches

    def launch(self, kernel: str, grid: tuple[int, int], block: int, arguments: bytes, stream: int) -> None:
        if len(arguments) > MOST_ARGUMENTS:
            raise ValueError(f"a kernel takes at most {MOST_ARGUMENTS} bytes of arguments, not {len(arguments)}")
        launches = self._launches
        launches.room[: len(arguments)] = arguments
        across, down = grid
        function = self._functions[kernel]
        (outcome,) = self._cuda.cuLaunchKernel(function, across, down, 1, block, 1, 1, 0, stream, launches.pointer, 0)
        if int(outcome):
            raise CudaError(f"cuLaunchKernel of {kernel}", getattr(outcome, "name", str(outcome)))
