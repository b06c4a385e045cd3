"""Arrays on GPUs as calls read them, of libraries that are there in name only."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest

from collx import calls
from collx.buffers import for_input, for_output, fresh, together, where_of
from collx.transports.cuda import driver as interface
from collx.transports.cuda.driver import LEGACY_STREAM
from collx.types import Array, Where
from tests.cuda import arrays
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray
from tests.cuda.standin import StandIn


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    standin = StandIn(("GPU-0", "GPU-1")).install()
    yield standin
    standin.end()
    interface.use(None)


class Foreign:
    """What has the interface and nothing else."""

    def __init__(self, array: FakeArray, **told: Any) -> None:
        self.array = array
        self.__dict__["told"] = {**array.__cuda_array_interface__, **told}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        found: dict[str, Any] = self.__dict__["told"]
        return found


Foreign.__module__ = "somewhere"


def test_what_a_call_sees_of_an_array(cuda: StandIn) -> None:
    x = arrays.array(cuda, np.arange(6.0).reshape(2, 3), ordinal=1)
    found = for_output(x)
    assert found.kind.device == 1
    assert (found.address, found.array.shape, str(found.array.dtype)) == (x.address, (2, 3), "float64")
    assert (found.array.size, found.array.nbytes, found.array.itemsize) == (6, 48, 8)
    assert where_of((found,)) == Where(1, arrays.current(cuda))
    assert for_input(x).given is x


def test_new_results_are_of_the_same_kind_on_the_same_gpu(cuda: StandIn) -> None:
    x = arrays.empty(cuda, 4, np.int16, ordinal=1)
    made = fresh((2, 2), np.dtype(np.int16), for_input(x).kind)
    assert isinstance(made.given, FakeArray)
    assert (made.given.shape, made.kind.device, cuda.device_at(made.address)) == ((2, 2), 1, 1)


def test_what_is_not_contiguous_is_copied_on_its_stream(cuda: StandIn) -> None:
    x = arrays.array(cuda, np.arange(12).reshape(3, 4))[:, 1:3]
    found = for_input(x)
    assert found.copied
    found.load(where_of((found,)))
    cuda.synchronize(arrays.current(cuda))
    owner: Any = found.array
    assert owner.owner.numpy().tolist() == [[1, 2], [5, 6], [9, 10]]
    with pytest.raises(BufferError, match="out is not C-contiguous"):
        for_output(x)


@pytest.mark.parametrize("count", [0, 1, 5, 5000])
@pytest.mark.parametrize("dtype", [np.int8, np.float16, ml_dtypes.bfloat16, np.complex128])
def test_filling_with_a_value(cuda: StandIn, dtype: Any, count: int) -> None:
    x = arrays.empty(cuda, count, dtype)
    found = for_output(x)
    found.kind.fill(found.array, np.asarray(3, dtype), where_of((found,)))
    np.testing.assert_array_equal(x.numpy(), np.full(count, 3, dtype))


def test_exscan_of_the_first_rank(cuda: StandIn) -> None:
    x = arrays.array(cuda, [5, 6], np.int32)
    call = calls.exscan(0, 2, x, out=x)  # in place: what others are sent is a copy
    call.prepare(call.where)
    (source, target) = call.keep
    assert x.numpy().tolist() == [0, 0]
    copied: Any = source.array
    assert copied.owner.numpy().tolist() == [5, 6]
    assert (call.source, call.target) == (source.address, target.address) == (copied.address, x.address)


def test_which_overlaps_work_in_place(cuda: StandIn) -> None:
    x = arrays.empty(cuda, 8)
    assert calls.all_reduce(0, 2, x, out=x).request.inplace
    assert calls.reduce_scatter(1, 2, x, out=x[4:]).request.inplace
    with pytest.raises(ValueError, match="overlap, but not as working in place needs"):
        calls.reduce_scatter(1, 2, x, out=x[:4])
    with pytest.raises(ValueError, match="overlap, and x is not contiguous"):
        calls.all_reduce(0, 2, x[::2], out=x[:4])
    assert not calls.all_reduce(0, 2, x[:0], out=x[4:4]).request.inplace


def test_two_devices_in_one_call_are_refused(cuda: StandIn) -> None:
    x, y = arrays.empty(cuda, 4), arrays.empty(cuda, 4, ordinal=1)
    with pytest.raises(TypeError, match="x lies on GPU 0, but out on GPU 1"):
        calls.all_reduce(0, 2, x, out=y)
    with pytest.raises(TypeError, match="x lies on GPU 0, but out on the CPU"):
        calls.all_reduce(0, 2, x, out=np.empty(4, np.float32))
    with pytest.raises(TypeError, match="x lies on the CPU, but out on GPU 1"):
        calls.all_gather(0, 2, np.ones(2, np.float32), out=y)


def test_read_only_memory_is_not_written_to(cuda: StandIn) -> None:
    x = arrays.array(cuda, [1.0, 2.0])
    x.host.flags.writeable = False
    with pytest.raises(BufferError, match="out is read-only"):
        for_output(x)
    assert calls.broadcast(0, 2, x).before is not None  # the root sends from a copy
    with pytest.raises(BufferError, match="x is read-only"):
        calls.broadcast(1, 2, x)


def test_the_interface_without_a_library(cuda: StandIn) -> None:
    x = arrays.empty(cuda, (2, 2))
    found = for_output(Foreign(x, stream=None))
    assert (found.address, found.array.shape, where_of((found,))) == (x.address, (2, 2), Where(0, LEGACY_STREAM))
    assert where_of((for_input(Foreign(x, stream=1000)),)) == Where(0, 1000)
    assert where_of((for_input(Foreign(x, version=2)),)) == Where(0, LEGACY_STREAM)
    with pytest.raises(TypeError, match="pass out="):
        calls.all_reduce(0, 2, Foreign(x))
    with pytest.raises(TypeError, match="whose mask would be lost"):
        for_input(Foreign(x, mask=x))
    with pytest.raises(TypeError, match="version 1 of __cuda_array_interface__"):
        for_input(Foreign(x, version=1))
    with pytest.raises(TypeError, match="where no GPU of this process has memory"):
        for_input(Foreign(x, data=(4096, False)))
    with pytest.raises(TypeError, match="foreign byte order"):
        for_input(Foreign(x, typestr=">f4"))
    assert for_input(Foreign(x, shape=(0, 3), data=(0, False))).array.size == 0


def test_an_argument_of_another_stream_is_refused(cuda: StandIn) -> None:
    x, out = Foreign(arrays.empty(cuda, 4), stream=7), arrays.empty(cuda, 4)
    call = calls.all_reduce(0, 2, x, out=out)
    with pytest.raises(ValueError, match=r"two streams .* x by .* \(0x7\) and out by Fake's .* current in both"):
        assert call.where
    unordered = calls.all_reduce(0, 2, Foreign(arrays.empty(cuda, 4), stream=None), out=out)
    assert unordered.where == Where(0, arrays.current(cuda))


def test_misaligned_input_is_copied(cuda: StandIn) -> None:
    x = arrays.array(cuda, np.arange(3.0), offset=4)
    found = for_input(x)
    assert found.copied
    found.load(where_of((found,)))
    owner: Any = found.array
    assert owner.owner.numpy().tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(BufferError, match="not C-contiguous and aligned"):
        for_output(x)


class NumbaArray(Foreign):
    """As numba.cuda's device arrays, whose interface names a stream only where it is not the default one."""


NumbaArray.__module__ = "numba.cuda.cudadrv.devicearray"


def test_numba(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpus:
        def __getitem__(self, device: int) -> Any:
            return cuda.on(device)

    numba: Any = types.ModuleType("numba")
    numba.cuda = SimpleNamespace(
        gpus=Gpus(), device_array=lambda shape, dtype: NumbaArray(arrays.empty(cuda, shape, dtype), stream=None)
    )
    monkeypatch.setitem(sys.modules, "numba", numba)
    x = NumbaArray(arrays.empty(cuda, 4, ordinal=1), stream=None)
    call = calls.all_gather(0, 2, x)
    assert isinstance(call.result, NumbaArray)
    assert (call.result.array.shape, call.where) == ((8,), Where(1, LEGACY_STREAM))
    assert for_input(NumbaArray(arrays.empty(cuda, 4), stream=77)).kind.device == 0
    with pytest.raises(TypeError, match="x is not C-contiguous, and Numba copies no such arrays"):
        for_input(NumbaArray(arrays.empty(cuda, 4)[::2]))


# -- DLPack ------------------------------------------------------------------------------------------


class Lent:
    """Host memory that says it is on a GPU: what lends tells addresses, which nobody reads here."""

    def __init__(self, values: Any, kind: int = 2, versions: bool = True) -> None:
        self.values, self.kind, self.versions = values, kind, versions
        self.asked: list[Any] = []

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        if max_version is not None and not self.versions:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append(stream)
        capsule = self.values.__dlpack__(max_version=max_version)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)


Lent.__module__ = "somewhere"


@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize("kind", [2, 13])
def test_dlpack(cuda: StandIn, kind: int, versions: bool) -> None:
    values = np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]
    lent = Lent(values, kind, versions)
    array: Any = for_input_array(lent)
    assert (array.address, array.shape, array.dtype) == (values.ctypes.data, (3, 2), np.int32)
    assert array.strides == values.strides
    assert not array.flags.c_contiguous
    assert lent.asked == [LEGACY_STREAM]


def for_input_array(given: Any) -> Any:
    """As a call would read it, before it is known whether it is to be copied."""
    from collx.device_libraries import read

    found = read(given, "x")
    assert found is not None
    return found[0]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float32, np.complex64, np.complex128])
def test_dlpack_element_types(cuda: StandIn, dtype: Any) -> None:
    assert for_input_array(Lent(np.zeros(3, dtype))).dtype == dtype


def test_lent_memory_is_given_back(cuda: StandIn) -> None:
    values = np.zeros(1000)
    before = sys.getrefcount(values)
    array = for_input_array(Lent(values))
    assert sys.getrefcount(values) > before
    del array
    assert sys.getrefcount(values) == before


def test_immutable_arrays_are_input_only(cuda: StandIn) -> None:
    class Jax(Lent):
        waited = False

        def block_until_ready(self) -> None:
            self.waited = True

    Jax.__module__ = "jaxlib._jax"
    x = Jax(np.arange(4, dtype=np.float32))
    out = arrays.empty(cuda, 4)
    call = calls.all_reduce(0, 2, x, out=out)
    assert x.waited
    assert call.where == Where(0, arrays.current(cuda))
    with pytest.raises(BufferError, match="out is read-only"):
        for_output(x)
    with pytest.raises(TypeError, match="pass out="):
        calls.all_reduce(0, 2, x)


def test_on_the_cpu_they_are_read_as_ever(cuda: StandIn) -> None:
    lent = Lent(np.arange(4), kind=1)
    assert for_input(lent).kind.device is None
    with pytest.raises(TypeError, match="memory of the CPU and of CUDA GPUs only"):
        for_input(Lent(np.arange(4), kind=10))


# -- CuPy and PyTorch, in name only --------------------------------------------------------------------


class Device:
    """cupy.cuda.Device, of which the innermost is `current`."""

    current: ClassVar[list[int]] = [0]

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None:
        self.current.append(self.number)

    def __exit__(self, *_: object) -> None:
        self.current.pop()


class CupyArray:
    __cuda_array_interface__ = "not asked"

    def __init__(self, values: Array, device: int = 1) -> None:
        self.values, self.shape, self.size, self.dtype = values, values.shape, values.size, values.dtype
        self.strides, self.flags = values.strides, SimpleNamespace(c_contiguous=values.flags.c_contiguous)
        self.data, self.device = SimpleNamespace(ptr=values.ctypes.data), SimpleNamespace(id=device)


CupyArray.__module__ = "cupy._core.core"


def test_cupy(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Any] = []
    streams = {0: 0, 1: 99}
    cupy: Any = types.ModuleType("cupy")
    cupy.cuda = SimpleNamespace(Device=Device, get_current_stream=lambda device: SimpleNamespace(ptr=streams[device]))
    cupy.empty = lambda shape, dtype: CupyArray(np.empty(shape, dtype), Device.current[-1])
    cupy.copyto = lambda target, source: copied.append((target, source, Device.current[-1]))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = CupyArray(np.zeros((4, 6), ml_dtypes.bfloat16)[:, :3])
    call = calls.all_reduce(0, 2, x)
    assert isinstance(call.result, CupyArray)
    assert (call.result.shape, call.result.dtype, call.result.device.id) == ((4, 3), ml_dtypes.bfloat16, 1)
    assert call.where == Where(1, 99)
    streams[1] = 0
    assert call.where == Where(1, LEGACY_STREAM)  # the stream is the one that is current then
    call.prepare(call.where)
    assert [(source, device) for _, source, device in copied] == [(x, 1)]


class CudaTensor:
    is_cpu, is_cuda = False, True

    def __init__(self, values: Array, **traits: Any) -> None:
        self.values, self.shape, self.layout = values, values.shape, "strided"
        self.dtype = f"torch.{values.dtype.name}"
        self.device = SimpleNamespace(type="cuda", index=0)
        self.traits = traits
        vars(self).update({name: trait for name, trait in traits.items() if name == "layout"})

    def is_conj(self) -> bool:
        return bool(self.traits.get("conj", False))

    def is_neg(self) -> bool:
        return False

    def is_contiguous(self) -> bool:
        return self.values.flags.c_contiguous

    def stride(self) -> tuple[int, ...]:
        return tuple(step // self.values.itemsize for step in self.values.strides)

    def numel(self) -> int:
        return self.values.size

    def data_ptr(self) -> int:
        return int(self.values.ctypes.data)


CudaTensor.__module__, CudaTensor.__name__ = "torch", "Tensor"


def test_torch(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def empty(shape: Any, dtype: Any, device: str) -> CudaTensor:
        made.append((dtype, device))
        return CudaTensor(np.empty(shape, ml_dtypes.float8_e5m2))

    torch: Any = types.ModuleType("torch")
    torch.strided, torch.float8_e5m2, torch.empty = "strided", "float8_e5m2", empty
    torch.cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=[55][device]))
    monkeypatch.setitem(sys.modules, "torch", torch)
    values = np.zeros((4, 3), ml_dtypes.float8_e5m2)
    call = calls.all_reduce(0, 2, CudaTensor(values))
    assert (call.source, call.where, made) == (values.ctypes.data, Where(0, 55), [("float8_e5m2", "cuda:0")])
    assert call.result.shape == (4, 3)
    assert for_input(CudaTensor(values.T)).copied
    with pytest.raises(TypeError, match=r"sparse tensor .* pass x.to_dense"):
        for_input(CudaTensor(values, layout="torch.sparse_coo"))
    with pytest.raises(TypeError, match="resolve_conj"):
        for_input(CudaTensor(np.zeros(2, np.complex64), conj=True))


def test_both_must_lie_together(cuda: StandIn) -> None:
    x = for_input(arrays.empty(cuda, 3))
    together(x, for_input(arrays.empty(cuda, 4)))
    with pytest.raises(TypeError, match="the same device"):
        together(x, for_input(np.ones(3)))
