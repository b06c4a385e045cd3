"""Whatever the user passes, as memory: address, bytes, element type and shape, without a copy where that can be.

How to read an object depends on its type, so the reader is chosen once per type. NumPy arrays come first; then
PyTorch tensors; what may lie on a GPU (`device_libraries.py`); objects with the buffer protocol (bytes, bytearray,
memoryview, array.array, mmap, ctypes arrays); NumPy scalars, as 0-d inputs; and anything else that speaks DLPack.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from collx.types import DTYPE_CODES, Array, Where


class Kind(Protocol):
    """What is done with the memory of what the user passed, and with more of its kind. `Host` does it on the CPU,
    `device_arrays.Gpu` on a GPU, where an array is a `DeviceArray` and work is queued as `where` says."""

    @property
    def device(self) -> int | None:
        """The GPU that has it; None on the CPU."""
        ...

    def address(self, array: Array) -> int: ...
    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array: ...
    def given(self, array: Array) -> Any:
        """What `empty` made, as an object of the kind that the user passed."""
        ...

    def copy(self, target: Array, source: Array, where: Where | None) -> None: ...
    def fill(self, array: Array, value: Array, where: Where | None) -> None: ...
    def share(self, one: Array, other: Array) -> bool:
        """Whether they have a byte in common."""
        ...

    def where(self, all_of_them: Sequence[Kind]) -> Where | None:
        """The GPU that has the memory of all of them, by the stream that is the caller's now; None on the CPU. Raises
        ValueError where there are two streams, so that nothing orders a call behind what is queued on both."""
        ...


class Host:
    """The Kind of what NumPy reads. `wrap` makes a result of an array."""

    __slots__ = ("_wrap",)

    def __init__(self, wrap: Callable[[Array], Any] | None = None) -> None:
        self._wrap = wrap

    def __str__(self) -> str:
        return "the CPU"

    @property
    def device(self) -> int | None:
        return None

    def address(self, array: Array) -> int:
        return address_of(array)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return np.empty(shape, dtype)

    def given(self, array: Array) -> Any:
        return array if self._wrap is None else self._wrap(array)

    def copy(self, target: Array, source: Array, where: Where | None) -> None:
        np.copyto(target, source)

    def fill(self, array: Array, value: Array, where: Where | None) -> None:
        np.copyto(array, value)

    def share(self, one: Array, other: Array) -> bool:
        return np.shares_memory(one, other)

    def where(self, all_of_them: Sequence[Kind]) -> Where | None:
        return None


Reader = Callable[[Any, str], tuple[Array, Kind]]  # takes the object, and the name of the argument


@dataclass(slots=True)
class Buffer:
    """C-contiguous, aligned memory of a supported dtype. `given` is what the user passed and `original` a view of
    its memory; `array` is that view too, or room for a copy of it."""

    array: Array
    original: Array
    given: Any
    kind: Kind
    address: int

    @property
    def copied(self) -> bool:
        """Whether `array` is a copy, which `load` must fill."""
        return self.array is not self.original

    @property
    def borrowed(self) -> bool:
        """Whether `array` is of memory that the user's object does not keep by itself: a copy, or a loan."""
        return self.copied or getattr(self.array, "owner", self.given) is not self.given

    def load(self, where: Where | None = None) -> None:
        """Copy the user's data to `array`."""
        self.kind.copy(self.array, self.original, where)

    def overlaps(self, other: Buffer) -> bool:
        """Whether the two share a byte."""
        return self.address < other.address + other.array.nbytes and other.address < self.address + self.array.nbytes

    def shares(self, other: Buffer) -> bool:
        """Whether the user's own data has a byte that `other` has."""
        return self.kind.device == other.kind.device and self.kind.share(self.original, other.array)


def for_input(given: Any, name: str = "x", *, private: bool = False) -> Buffer:
    """`given` to read from; to be copied where it is not C-contiguous and aligned, or must be `private`.
    Raises TypeError."""
    array, kind = _read(given, name)
    flags = array.flags
    if flags.c_contiguous and flags.aligned and not private:
        return Buffer(array, array, given, kind, kind.address(array))
    copy = kind.empty(array.shape, array.dtype)
    return Buffer(copy, array, given, kind, kind.address(copy))


def for_output(given: Any, name: str = "out") -> Buffer:
    """`given` to write to. Raises TypeError; BufferError where it is read-only, not C-contiguous or not aligned."""
    array, kind = _read(given, name)
    flags = array.flags
    if not flags.writeable:
        raise BufferError(f"{name} is read-only")
    if not (flags.c_contiguous and flags.aligned):
        raise BufferError(f"{name} is not C-contiguous and aligned: results are written to plain memory only")
    return Buffer(array, array, given, kind, kind.address(array))


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any], kind: Kind) -> Buffer:
    """New memory, for a result of the kind."""
    array = kind.empty(shape, dtype)
    return Buffer(array, array, kind.given(array), kind, kind.address(array))


def together(source: Buffer, target: Buffer) -> None:
    """Raise TypeError unless input and output lie on one device."""
    if source.kind is not target.kind and source.kind.device != target.kind.device:
        raise TypeError(f"x lies on {source.kind}, but out on {target.kind}: both must lie on the same device")


def where_of(buffers: Sequence[Buffer]) -> Where | None:
    """Where a call with these, which lie together, is to be queued. Raises as `Kind.where`."""
    if not buffers or buffers[0].kind is PLAIN:
        return None
    return buffers[0].kind.where([buffer.kind for buffer in buffers])


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

PLAIN = Host()


def _read(given: Any, name: str) -> tuple[Array, Kind]:
    kind = type(given)
    if kind is np.ndarray and given.dtype in DTYPE_CODES:
        return given, PLAIN
    reader = _readers.get(kind)
    if reader is None:
        reader = _readers[kind] = _reader_of(given, name)
    array, memory = reader(given, name)
    if array.dtype not in DTYPE_CODES:
        supported(array.dtype, name)
    return array, memory


def _reader_of(given: Any, name: str) -> Reader:
    kind = type(given)
    if issubclass(kind, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}.filled(value)")
    if issubclass(kind, np.ndarray):
        return lambda array, name: (np.asarray(array), PLAIN)
    if issubclass(kind, np.generic):
        return _read_scalar
    if any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in kind.__mro__):
        return _read_tensor
    if hasattr(kind, "__cuda_array_interface__") or hasattr(kind, "__dlpack_device__"):
        return _anywhere()
    if _has_buffer(given):
        return _read_buffer
    raise TypeError(
        f"{name} is {_called(kind)}; collx takes NumPy arrays, objects with the buffer protocol or DLPack, and"
        " arrays of CuPy, PyTorch, Numba and JAX on GPUs"
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


def _read_buffer(owner: Any, name: str) -> tuple[Array, Kind]:
    return np.asarray(memoryview(owner)), PLAIN


def _read_scalar(scalar: Any, name: str) -> tuple[Array, Kind]:
    array = np.asarray(scalar)
    array.flags.writeable = False
    return array, PLAIN


class _Lent:
    """A tensor's memory, for NumPy. `Tensor.numpy` would keep torch, and so FSDP, from ever resizing it again."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Any, plain: np.dtype[Any]) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": None if tensor.is_contiguous() else tuple(plain.itemsize * step for step in tensor.stride()),
            "typestr": plain.str,
            "version": 3,
        }


# What NumPy has no name for, or another.
_NAMED: dict[str, np.dtype[Any]] = {
    name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
}


@functools.cache
def _element(dtype: Any) -> tuple[np.dtype[Any], np.dtype[Any], Any]:
    """A torch dtype as NumPy has it, with integers of its width in its place if need be, and what wraps a new array."""
    torch: Any = sys.modules["torch"]  # whoever has a tensor has imported it; collx itself never does
    name = str(dtype).removeprefix("torch.")
    if name not in _NAMED:
        plain = np.dtype(name)
        return plain, plain, torch.from_numpy
    bits = np.dtype(f"i{_NAMED[name].itemsize}")
    return _NAMED[name], bits, lambda array: torch.from_numpy(array.view(bits)).view(dtype)


def _read_tensor(tensor: Any, name: str) -> tuple[Array, Kind]:
    if not tensor.is_cpu:
        _on_cpu(tensor.is_cuda, tensor.device)
        return _anywhere()(tensor, name)
    if tensor.is_sparse or tensor.is_conj() or tensor.is_neg():
        raise TypeError(f"{name} is a sparse or a lazily conjugated tensor, whose memory is not its elements")
    dtype, plain, wrap = _element(tensor.dtype)
    array = np.asarray(_Lent(tensor, plain))
    return array if plain is dtype else array.view(dtype), Host(wrap)


def _anywhere() -> Reader:
    """The reader of what may lie on a GPU, or be a library's array on the CPU, which its type does not tell."""
    from collx.device_libraries import read  # which those without GPUs never need

    def read_anywhere(owner: Any, name: str) -> tuple[Array, Kind]:
        found: Any = read(owner, name)
        if found is not None:
            return found  # type: ignore[no-any-return]
        return _read_buffer(owner, name) if _has_buffer(owner) else _read_dlpack(owner)

    return read_anywhere


def _read_dlpack(owner: Any) -> tuple[Array, Kind]:
    _on_cpu(owner.__dlpack_device__()[0] == 1, owner.__dlpack_device__())  # 1: kDLCPU
    try:
        array = np.from_dlpack(owner)
    except (RuntimeError, BufferError) as error:
        raise TypeError(f"NumPy cannot read this {type(owner).__name__} through DLPack: {error}") from error
    library = sys.modules.get(type(owner).__module__.partition(".")[0])
    return array, Host(getattr(library, "from_dlpack", None))


def _on_cpu(there: bool, device: object) -> None:
    if not there:
        raise TypeError(f"an array on device {device}: collx moves memory of the CPU and of CUDA GPUs only")


_readers: dict[type, Reader] = {}
