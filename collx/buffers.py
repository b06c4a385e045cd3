"""Whatever the user passes, as memory: address, bytes, element type and shape, without a copy where that can be.

How to read an object depends on its type alone, so the reader is chosen once per type. NumPy arrays come
first; then PyTorch CPU tensors; objects with the buffer protocol (bytes, bytearray, memoryview, array.array,
mmap, ctypes arrays); NumPy scalars, as 0-d inputs; and anything else that speaks DLPack on the CPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from collx.types import DTYPE_CODES, Array

Wrap = Callable[[Array], Any]  # a NumPy array as an object of the kind that the user passed
Reader = Callable[[Any], tuple[Array, Wrap]]


@dataclass(slots=True)
class Buffer:
    """C-contiguous, aligned memory of a supported dtype. `given` is what the user passed and `original` a view of
    its memory; `array` is that view too, or room for a copy of it. `wrap` makes a result of the same kind."""

    array: Array
    original: Array
    given: Any
    wrap: Wrap
    address: int

    @property
    def copied(self) -> bool:
        """Whether `array` is a copy, which `load` must fill."""
        return self.array is not self.original

    def load(self) -> None:
        """Copy the user's data to `array`."""
        np.copyto(self.array, self.original)

    def overlaps(self, other: Buffer) -> bool:
        """Whether the two share a byte."""
        return self.address < other.address + other.array.nbytes and other.address < self.address + self.array.nbytes


def for_input(given: Any, name: str = "x", *, private: bool = False) -> Buffer:
    """`given` to read from; to be copied where it is not C-contiguous and aligned, or must be `private`.
    Raises TypeError."""
    array, wrap = _read(given, name)
    flags = array.flags
    if flags.c_contiguous and flags.aligned and not private:
        return Buffer(array, array, given, wrap, address_of(array))
    copy = np.empty(array.shape, array.dtype)
    return Buffer(copy, array, given, wrap, address_of(copy))


def for_output(given: Any, name: str = "out") -> Buffer:
    """`given` to write to. Raises TypeError; BufferError where it is read-only, not C-contiguous or not aligned."""
    array, wrap = _read(given, name)
    flags = array.flags
    if not flags.writeable:
        raise BufferError(f"{name} is read-only")
    if not (flags.c_contiguous and flags.aligned):
        raise BufferError(f"{name} is not C-contiguous and aligned: results are written to plain memory only")
    return Buffer(array, array, given, wrap, address_of(array))


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any], wrap: Wrap) -> Buffer:
    """New memory, for a result of the kind that `wrap` makes."""
    array = np.empty(shape, dtype)
    return Buffer(array, array, array if wrap is _as_it_is else wrap(array), wrap, address_of(array))


def supported(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """`dtype`, or TypeError: collx computes with bool, integers, floats and complex numbers of native byte order."""
    if dtype in DTYPE_CODES:
        return dtype
    if dtype.newbyteorder("=") in DTYPE_CODES:
        native = f"{name}.astype({name}.dtype.newbyteorder('='))"
        raise TypeError(f"{name} has foreign byte order ({dtype.str}); pass {native}")
    raise TypeError(f"{name} has dtype {dtype}; collx takes {', '.join(str(d) for d in DTYPE_CODES)}")


# -- addresses ---------------------------------------------------------------------------------------

_HEADER = object.__basicsize__
_pointer = ctypes.c_void_p.from_address


def _address_in_struct(array: Array) -> int:
    # The data pointer follows the object header in NumPy's stable C struct; `array.ctypes` takes 10 times as long.
    return _pointer(id(array) + _HEADER).value or 0


def _address_by_interface(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _chosen() -> Callable[[Array], int]:
    probe = np.zeros(3)
    same = _address_in_struct(probe) == _address_by_interface(probe)
    return _address_in_struct if same else _address_by_interface


address_of = _chosen()

# -- readers -----------------------------------------------------------------------------------------


def _read(given: Any, name: str) -> tuple[Array, Wrap]:
    kind = type(given)
    if kind is np.ndarray and given.dtype in DTYPE_CODES:
        return given, _as_it_is
    reader = _readers.get(kind)
    if reader is None:
        reader = _readers[kind] = _reader_of(given, name)
    array, wrap = reader(given)
    if array.dtype not in DTYPE_CODES:
        supported(array.dtype, name)
    return array, wrap


def _as_it_is(array: Array) -> Any:
    return array


def _reader_of(given: Any, name: str) -> Reader:
    kind = type(given)
    if issubclass(kind, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}.filled(value)")
    if issubclass(kind, np.ndarray):
        return lambda array: (np.asarray(array), _as_it_is)
    if issubclass(kind, np.generic):
        return _read_scalar
    if any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in kind.__mro__):
        return _read_tensor
    if _has_buffer(given):
        return lambda owner: (np.asarray(memoryview(owner)), _as_it_is)
    if hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
        return _read_dlpack
    raise TypeError(
        f"{name} is {_called(kind)}; collx takes NumPy arrays and objects with the buffer protocol or DLPack on the CPU"
        + (f": pass numpy.array({name})" if isinstance(given, (bool, int, float, complex, list, tuple)) else "")
    )


def _called(kind: type) -> str:
    return "None" if kind is type(None) else f"a {kind.__name__}"


def _has_buffer(given: Any) -> bool:
    try:
        memoryview(given).release()
    except TypeError:
        return False
    return True


def _read_scalar(scalar: Any) -> tuple[Array, Wrap]:
    array = np.asarray(scalar)
    array.flags.writeable = False
    return array, _as_it_is


# What NumPy cannot import from torch goes as integers of the same width.
_BITS: dict[str, tuple[str, np.dtype[Any]]] = {
    "torch.bfloat16": ("int16", np.dtype(ml_dtypes.bfloat16)),
    "torch.float8_e4m3fn": ("uint8", np.dtype(ml_dtypes.float8_e4m3fn)),
    "torch.float8_e5m2": ("uint8", np.dtype(ml_dtypes.float8_e5m2)),
}


def _read_tensor(tensor: Any) -> tuple[Array, Wrap]:
    torch: Any = sys.modules["torch"]  # whoever has a tensor has imported it; collx itself never does
    _on_cpu(tensor.device.type == "cpu", tensor.device)
    if str(tensor.dtype) not in _BITS:
        return tensor.detach().numpy(), torch.from_numpy
    bits, dtype = _BITS[str(tensor.dtype)]

    def wrap(array: Array) -> Any:
        return torch.from_numpy(array.view(bits)).view(tensor.dtype)

    return tensor.detach().view(getattr(torch, bits)).numpy().view(dtype), wrap


def _read_dlpack(owner: Any) -> tuple[Array, Wrap]:
    _on_cpu(owner.__dlpack_device__()[0] == 1, owner.__dlpack_device__())  # 1: kDLCPU
    try:
        array = np.from_dlpack(owner)
    except (RuntimeError, BufferError) as error:
        raise TypeError(f"NumPy cannot read this {type(owner).__name__} through DLPack: {error}") from error
    library = sys.modules.get(type(owner).__module__.partition(".")[0])
    return array, getattr(library, "from_dlpack", _as_it_is)


def _on_cpu(there: bool, device: object) -> None:
    if not there:
        raise TypeError(f"an array on device {device}: collx moves CPU memory only as yet; copy it to the CPU first")


_readers: dict[type, Reader] = {}
