"""What the real driver is asked for, where there is none: a recorder in the place of cuda-bindings."""

from __future__ import annotations

import ctypes
import enum
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import driver as installed

from collx.errors import TransportError
from collx.transports.cuda import compiler
from collx.transports.cuda.bindings import Bindings
from collx.transports.cuda.driver import Allocation, CudaError, Device, Driver

HANDLE = bytes(range(64))
KERNEL = 'struct T { unsigned long long word; }; extern "C" __global__ void touch(const __grid_constant__ T t) {}'


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_NOT_INITIALIZED = 3
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NOT_READY = 600


class Buffer:
    """A struct of the bindings, which only gives its address, and whose memory is gone with it."""

    def __init__(self, content: bytes = bytes(64)) -> None:
        self.room = ctypes.create_string_buffer(content, 64)

    def getPtr(self) -> int:
        return ctypes.addressof(self.room)

    def __del__(self) -> None:
        ctypes.memset(self.room, 0xFF, 64)


class Recorder(types.SimpleNamespace):
    """`results` by call, without the status; `refused` calls fail, and `absent` ones this release does not have."""

    CUipcMemHandle = CUipcEventHandle = Buffer
    CUpointer_attribute, CUdevice_attribute = installed.CUpointer_attribute, installed.CUdevice_attribute
    CUstreamCaptureMode = installed.CUstreamCaptureMode

    def __init__(self, **results: Any) -> None:
        super().__init__(calls=[], refused={}, absent=[], results={"cuDeviceGetCount": 1, **results})

    def __getattr__(self, call: str) -> Any:
        if not call.startswith("cu") or call in self.absent:
            raise AttributeError(call)

        def record(*arguments: Any) -> Any:
            self.calls.append((call, *arguments))
            if call in self.refused:
                return (self.refused[call], None) if call in self.results else (self.refused[call],)
            result = self.results.get(call, ())
            result = result(*arguments) if callable(result) else result
            return Result.CUDA_SUCCESS, *(result if isinstance(result, tuple) else (result,))

        return record


def made(**results: Any) -> tuple[Bindings, Recorder]:
    cuda = Recorder(**results)
    bindings = Bindings(cuda)
    cuda.calls.clear()
    return bindings, cuda


def attribute(kind: Any, device: int) -> int:
    names = installed.CUdevice_attribute
    return {
        names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 9,
        names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: 0,
        names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: 132,
        names.CU_DEVICE_ATTRIBUTE_MPS_ENABLED: 1,
    }[kind]


def _argument(parameters: int) -> bytes:
    """The eight bytes that a kernel's only parameter points to."""
    address = ctypes.c_void_p.from_address(parameters).value
    assert address
    return ctypes.string_at(address, 8)


def everything() -> list[tuple[Any, ...]]:
    """The calls behind all of the interface, each with its arguments."""
    seen: list[bytes] = []

    def launch(*arguments: Any) -> tuple[()]:
        seen.append(_argument(arguments[-2]))
        return ()

    bindings, cuda = made(
        cuDeviceGet=lambda ordinal: ordinal,
        cuDeviceGetUuid_v2=types.SimpleNamespace(bytes=bytes(16)),
        cuDeviceGetName=b"NVIDIA H200\0\0\0",
        cuDeviceGetAttribute=attribute,
        cuPointerGetAttribute=lambda kind, address: 7 if kind.name.endswith("BUFFER_ID") else 2,
        cuDevicePrimaryCtxRetain="context",
        cuCtxPopCurrent="context",
        cuCtxGetDevice=0,
        cuDriverGetVersion=13000,
        cuMemAlloc=0x1000,
        cuMemGetAddressRange=(0x1000, 4096),
        cuIpcGetMemHandle=lambda _: Buffer(HANDLE),
        cuIpcOpenMemHandle=0x2000,
        cuMemHostAlloc=0x3000,
        cuStreamCreateWithPriority=11,
        cuEventCreate=12,
        cuIpcGetEventHandle=lambda _: Buffer(HANDLE),
        cuIpcOpenEventHandle=13,
        cuEventElapsedTime=1500.0,
        cuStreamIsCapturing=1,
        cuThreadExchangeStreamCaptureMode=0,
        cuModuleLoadData="module",
        cuModuleGetFunction="function",
        cuLaunchKernel=launch,
    )
    driver: Driver = bindings
    assert driver.version() == 13000
    assert driver.device(0) == Device(0, f"GPU-{'0' * 8}-0000-0000-0000-{'0' * 12}", "NVIDIA H200", (9, 0), 132, True)
    assert driver.device_at(0x1008) == 2
    with driver.on(0), driver.on(0):
        assert driver.allocate(100) == 0x1000
        assert driver.allocation(0x1008) == Allocation(0x1000, 4096, 7)
        assert driver.export(0x1000) == HANDLE
        assert driver.open(HANDLE) == 0x2000
        driver.close(0x2000)
        driver.free(0x1000)
        assert driver.allocate_host(64) == 0x3000
        driver.free_host(0x3000)
        driver.copy(1, 2, 3, 4)
        assert driver.stream() == 11
        driver.destroy_stream(11)
        assert driver.event(interprocess=True) == 12
        driver.event(timing=True)
        assert driver.export_event(12) == HANDLE
        assert driver.open_event(HANDLE) == 13
        driver.record(12, 11)
        driver.wait_event(11, 13)
        assert driver.done(12)
        assert driver.elapsed(12, 13) == 1.5
        driver.destroy_event(12)
        assert driver.capturing(11)
        driver.beside_captures()
        driver.write_value(11, 0x1000, 5)
        driver.wait_value(11, 0x1000, 5)
        driver.program(KERNEL, ["touch"]).launch("touch", (6, 2), 128, b"argument", 11)
    assert seen == [b"argument"]
    return list(cuda.calls)


def test_arguments_in_order() -> None:
    calls = everything()
    called = {call: arguments for call, *arguments in calls}
    assert called["cuMemAlloc"] == [2 << 20]  # whole blocks, which the driver shares as such
    assert called["cuMemsetD8"] == [0x1000, 0, 2 << 20]
    assert called["cuMemcpyAsync"] == [1, 2, 3, 4]
    assert called["cuMemHostAlloc"] == [64, 3]
    assert called["cuStreamCreateWithPriority"] == [1, 0]
    assert [arguments for call, *arguments in calls if call == "cuEventCreate"] == [[2 | 4], [0]]
    assert called["cuEventRecord"] == [12, 11]
    assert called["cuStreamWaitEvent"] == [11, 13, 0]
    assert [mode.name for mode in called["cuThreadExchangeStreamCaptureMode"]] == ["CU_STREAM_CAPTURE_MODE_RELAXED"]
    assert called["cuStreamWriteValue64"] == called["cuStreamWaitValue64"] == [11, 0x1000, 5, 0]
    handle, flags = called["cuIpcOpenMemHandle"]
    assert (handle.room.raw, flags) == (HANDLE, 1)
    assert called["cuModuleLoadData"][0][:4] == b"\x7fELF"
    assert called["cuModuleGetFunction"] == ["module", b"touch"]
    *launched, _, extra = called["cuLaunchKernel"]
    assert launched == ["function", 6, 2, 1, 128, 1, 1, 0, 11]
    assert extra == 0
    names = [call for call, *_ in calls]
    assert names.count("cuCtxPushCurrent") == names.count("cuCtxPopCurrent") == 2
    assert names.count("cuDevicePrimaryCtxRetain") == 1


def test_the_installed_bindings_take_these_calls() -> None:
    for call, *arguments in everything():
        function = getattr(installed, call)
        text = function.__doc__.split("\n")[0]
        taken = text[text.index("(") + 1 : text.rindex(")")]
        while "[" in taken:  # of Optional[...], whose commas part no arguments
            begin = taken.rindex("[")
            taken = taken[:begin] + taken[taken.index("]", begin) + 1 :]
        assert len([each for each in taken.split(",") if each.strip()]) == len(arguments), text


def test_refusals_have_the_drivers_name() -> None:
    bindings, cuda = made(cuMemAlloc=0)
    cuda.refused["cuMemAlloc"] = Result.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(CudaError, match=r"^cuMemAlloc failed with CUDA_ERROR_INVALID_VALUE$") as caught:
        bindings.allocate(8)
    assert caught.value.name == "CUDA_ERROR_INVALID_VALUE"
    cuda.refused["cuEventQuery"] = Result.CUDA_ERROR_NOT_READY
    assert not bindings.done(1)
    cuda.refused["cuEventQuery"] = Result.CUDA_ERROR_INVALID_VALUE
    with pytest.raises(CudaError):
        bindings.done(1)


def test_memory_of_the_host_has_no_device() -> None:
    bindings, cuda = made(cuPointerGetAttribute=1)
    assert bindings.device_at(64) is None
    cuda.refused["cuPointerGetAttribute"] = Result.CUDA_ERROR_INVALID_VALUE  # nobody's
    assert bindings.device_at(64) is None


def test_a_thread_that_has_used_no_gpu_can_ask_where_memory_is() -> None:
    """The driver does not answer without a context: that of a GPU which the process uses is as good as any."""
    bindings, cuda = made(
        cuDevicePrimaryCtxGetState=lambda device: (0, int(device == 1)),
        cuDeviceGet=lambda ordinal: ordinal,
        cuDeviceGetCount=2,
        cuDevicePrimaryCtxRetain=lambda device: f"context {device}",
        cuPointerGetAttribute=lambda kind, address: 1 + ("ORDINAL" not in kind.name),
    )
    lacking = Result.CUDA_ERROR_INVALID_CONTEXT
    cuda.results["cuCtxPushCurrent"] = lambda _: cuda.refused.clear() or ()
    cuda.results["cuCtxPopCurrent"] = lambda: cuda.refused.update(cuPointerGetAttribute=lacking) or ()
    cuda.refused["cuPointerGetAttribute"] = lacking
    assert bindings.device_at(64) == 1
    assert ("cuCtxPushCurrent", "context 1") in cuda.calls
    cuda.results["cuDevicePrimaryCtxGetState"] = (0, 0)
    assert bindings.device_at(64) is None


def test_bindings_13_have_one_uuid() -> None:
    bindings, cuda = made(
        cuDeviceGet=0,
        cuDeviceGetUuid=types.SimpleNamespace(bytes=bytes(16)),
        cuDeviceGetName=b"x",
        cuDeviceGetAttribute=attribute,
    )
    cuda.absent.append("cuDeviceGetUuid_v2")
    assert bindings.device(0).uuid.startswith("GPU-00000000-")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Recorder()
    cuda.refused["cuInit"] = Result.CUDA_ERROR_NO_DEVICE
    with pytest.raises(TransportError, match=r"^no GPU: .* CUDA_VISIBLE_DEVICES"):
        Bindings(cuda)
    cuda.refused["cuInit"] = Result.CUDA_ERROR_NOT_INITIALIZED
    with pytest.raises(TransportError, match=r"^no GPU after a fork: .* by spawn$"):
        Bindings(cuda)
    with pytest.raises(TransportError, match=r"^no GPU: "):
        Bindings(Recorder(cuDeviceGetCount=0))

    def unloadable(*_: object) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    with pytest.raises(TransportError, match=r"^no NVIDIA driver: libcuda"):
        Bindings(types.SimpleNamespace(cuInit=unloadable))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(TransportError, match=r"pip install 'collx\[cuda13\]'"):
        Bindings()
    with pytest.raises(TransportError, match=r"^no NVRTC: install"):
        compiler.compiled(KERNEL, "sm_90")


def test_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = compiler.compiled(KERNEL, "sm_90")
    (kept,) = compiler.folder().iterdir()
    assert compiler.compiled(KERNEL, "sm_80") != code
    monkeypatch.setattr(compiler, "_compile", lambda *_: b"compiled anew")
    assert compiler.compiled(KERNEL, "sm_90") == code
    for content in (b"", b"short", kept.read_bytes()[:-1], bytes(32) + code):
        kept.write_bytes(content)
        assert compiler.compiled(KERNEL, "sm_90") == b"compiled anew"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # kernels are compiled all the same
    assert compiler.compiled(KERNEL, "sm_90") == b"compiled anew"


def test_errors_in_kernels_are_one_line() -> None:
    with pytest.raises(TransportError, match=r"NVRTC 1\d\.\d+ cannot compile .*sm_90: .*error: ") as caught:
        compiler.compiled("not C++", "sm_90")
    assert "\n" not in str(caught.value)
    with pytest.raises(TransportError, match=r"--gpu-architecture=sm_3: .*invalid value"):
        compiler.compiled(KERNEL, "sm_3")
