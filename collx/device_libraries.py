"""Arrays on GPUs of each library that collx knows, and of those that it does not: how each is read, made and copied.

None is imported here: whoever has an array of a library has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from collx.device_arrays import DeviceArray, Gpu, Library
from collx.dlpack import CUDA, Tensor, dtype_of, tensor_of
from collx.transports.cuda.driver import LEGACY_STREAM, driver
from collx.types import DTYPES

_BY_NAME = {dtype.name: dtype for dtype in DTYPES}  # as torch names them too


class CuPy:
    """cupy.ndarray."""

    name = "CuPy"

    def read(self, given: Any, name: str) -> DeviceArray:
        strides = None if given.flags.c_contiguous else given.strides
        address = given.data.ptr if given.size else 0
        return DeviceArray(address, given.shape, np.dtype(given.dtype), given.device.id, given, strides)

    def stream(self, given: Any, device: int) -> int | None:
        return int(_module("cupy").cuda.get_current_stream(device).ptr)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        cupy = _module("cupy")
        with cupy.cuda.Device(device):
            return cupy.empty(shape, dtype)

    def copy(self, target: Any, source: Any, device: int) -> None:
        cupy = _module("cupy")
        with cupy.cuda.Device(device):
            cupy.copyto(target, source)


class Torch:
    """torch.Tensor with device "cuda", bfloat16 and float8 too."""

    name = "PyTorch"

    def read(self, given: Any, name: str) -> DeviceArray:
        torch = _module("torch")
        if given.layout is not torch.strided:
            raise TypeError(f"{name} is a sparse tensor ({given.layout}); pass {name}.to_dense()")
        if given.is_conj() or given.is_neg():
            raise TypeError(f"{name} is conjugated or negated only when read; pass {name}.resolve_conj().resolve_neg()")
        element = str(given.dtype).removeprefix("torch.")
        if element not in _BY_NAME:
            raise TypeError(f"{name} has dtype {given.dtype}; collx takes {', '.join(_BY_NAME)}")
        dtype = _BY_NAME[element]
        strides = None if given.is_contiguous() else tuple(step * dtype.itemsize for step in given.stride())
        address = given.data_ptr() if given.numel() else 0
        return DeviceArray(address, tuple(given.shape), dtype, given.device.index, given, strides)

    def stream(self, given: Any, device: int) -> int | None:
        return int(_module("torch").cuda.current_stream(device).cuda_stream)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        torch = _module("torch")
        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{device}")

    def copy(self, target: Any, source: Any, device: int) -> None:
        target.copy_(source.detach())


class Interface:
    """Whatever else has `__cuda_array_interface__`, versions 2 and 3. Of what it is made by collx knows nothing."""

    name = "__cuda_array_interface__"

    def read(self, given: Any, name: str) -> DeviceArray:
        told = given.__cuda_array_interface__
        if told.get("version", 0) < 2:
            raise TypeError(
                f"{name} has version {told.get('version', 0)} of __cuda_array_interface__; collx reads 2 and 3"
            )
        if told.get("mask") is not None:
            raise TypeError(f"{name} is a masked array, whose mask would be lost")
        letters, dtype = told["typestr"], getattr(given, "dtype", None)
        if not isinstance(dtype, np.dtype) or dtype.str[1:] != letters[1:]:  # bfloat16 and float8 have no letter there
            dtype = np.dtype(letters)
        (address, read_only), shape = told["data"], tuple(told["shape"])
        device = driver().device_at(address) if address else 0
        if device is None:
            raise TypeError(f"{name} lies at {address:#x}, where no GPU of this process has memory")
        return DeviceArray(address or 0, shape, dtype, device, given, told.get("strides"), not read_only)

    def stream(self, given: Any, device: int) -> int | None:
        told = given.__cuda_array_interface__
        stream = told.get("stream")
        return LEGACY_STREAM if told["version"] < 3 else None if stream is None else int(stream)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        raise TypeError(
            f"{name} is of a kind that collx makes no arrays of: pass out=, or {name} as an array of CuPy or PyTorch"
            f" (cupy.asarray({name}) has the same memory)"
        )

    def copy(self, target: Any, source: Any, device: int) -> None:
        raise AssertionError("it makes no array to copy to")


class Numba(Interface):
    """numba.cuda device arrays."""

    name = "Numba"

    def read(self, given: Any, name: str) -> DeviceArray:
        array = super().read(given, name)
        if not array.flags.c_contiguous:
            raise TypeError(f"{name} is not C-contiguous, and Numba copies no such arrays; pass {name} as one of CuPy")
        return array

    def stream(self, given: Any, device: int) -> int | None:
        return super().stream(given, device) or LEGACY_STREAM  # its interface names no stream where it is this one

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int, name: str) -> Any:
        cuda = _module("numba").cuda
        with cuda.gpus[device]:
            return cuda.device_array(shape, dtype)


class Lent(Interface):
    """What speaks DLPack only, and JAX's arrays, which nobody may write to."""

    name = "DLPack"

    def read(self, given: Any, name: str) -> DeviceArray:
        jax = hasattr(given, "block_until_ready")
        if jax:
            given.block_until_ready()  # its streams are its own
        tensor = tensor_of(given, None if jax else LEGACY_STREAM)
        dtype = dtype_of(tensor)
        if dtype is None:
            raise TypeError(f"{name} has a dtype that NumPy and ml_dtypes do not have")
        strides = tensor.strides and tuple(step * dtype.itemsize for step in tensor.strides)
        held = _Held(given, tensor)
        writeable = not (tensor.read_only or jax)
        return DeviceArray(tensor.address, tensor.shape, dtype, tensor.device, held, strides, writeable)

    def stream(self, given: Any, device: int) -> int | None:
        return None if hasattr(given.given, "block_until_ready") else LEGACY_STREAM


class _Held:
    """An object that is lent, with the loan, which ends with this one."""

    __slots__ = ("given", "tensor")

    def __init__(self, given: Any, tensor: Tensor) -> None:
        self.given, self.tensor = given, tensor


_known: dict[type, Library] = {}
LIBRARIES: dict[str, Library] = {"cupy": CuPy(), "torch": Torch(), "numba": Numba(), "jax": Lent(), "jaxlib": Lent()}


def read(given: Any, name: str) -> tuple[DeviceArray, Gpu] | None:
    """An array on a GPU; None where it lies elsewhere. Raises TypeError for what cannot be told by addresses."""
    kind = type(given)
    library = _known.get(kind)
    if library is None:
        library = _known[kind] = _library_of(kind)
    if isinstance(library, Lent) and not _on_gpu(given):
        return None
    array = library.read(given, name)
    return array, Gpu(library, array, name)


def _library_of(kind: type) -> Library:
    for base in kind.__mro__:
        library = LIBRARIES.get(base.__module__.partition(".")[0])
        if library is not None:
            return library
    return Interface() if hasattr(kind, "__cuda_array_interface__") else Lent()


def _on_gpu(given: Any) -> bool:
    return hasattr(type(given), "__dlpack_device__") and given.__dlpack_device__()[0] in CUDA


def _module(name: str) -> Any:
    return sys.modules[name]
