"""Objects as memory: MPI.buffer, addresses, and how arrays of any kind are read without a copy."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np

from collx.buffers import address_of
from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.layout import Bytes
from collx.dlpack import CPU, CUDA, tensor_of
from collx.errors import CollxError

_FOREIGN = ">" if sys.byteorder == "little" else "<"


class Constant:
    """BOTTOM, IN_PLACE and BUFFER_AUTOMATIC: what stands in the place of a buffer."""

    def __init__(self, name: str, value: int) -> None:
        self._name, self._value = name, value

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, int) and other == self._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


BOTTOM, IN_PLACE, BUFFER_AUTOMATIC = Constant("BOTTOM", 0), Constant("IN_PLACE", -1), Constant("BUFFER_AUTOMATIC", -2)


def in_place(given: Any) -> bool:
    """Whether it stands for the buffer beside it; None does too."""
    return given is None or given is IN_PLACE


class buffer(np.ndarray[Any, np.dtype[np.uint8]]):
    """Bytes in memory, as MPI.buffer of mpi4py; a NumPy array, so that it has Python's buffer protocol."""

    def __new__(cls, buf: Any = b"", /) -> buffer:
        return cls.frombuffer(buf)

    @staticmethod
    def allocate(nbytes: int, clear: bool = False) -> buffer:
        if not isinstance(nbytes, int):
            raise TypeError(f"nbytes must be an integer, not {type(nbytes).__name__}")
        if nbytes < 0:
            raise ValueError(f"there cannot be {nbytes} bytes")
        return (np.zeros if clear else np.empty)(nbytes, np.uint8).view(buffer)

    @staticmethod
    def frombuffer(obj: Any, readonly: bool = False) -> buffer:
        made = np.asarray(memoryview(obj).cast("B")).view(buffer)
        if readonly:
            made.flags.writeable = False
        return made

    @staticmethod
    def fromaddress(address: int, nbytes: int, readonly: bool = False) -> buffer:
        if nbytes < 0 or (nbytes and not address):
            raise ValueError(f"there are no {nbytes} bytes at {address:#x}")
        return at(address, nbytes, None, readonly).view(buffer)

    @property
    def address(self) -> int:
        return address_of(self) if self.size else 0

    @property
    def obj(self) -> Any:
        base: Any = self.base
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        return base.obj if isinstance(base, memoryview) else base

    @property
    def readonly(self) -> bool:
        return not self.flags.writeable

    format = "B"

    def __bool__(self) -> bool:
        return self.size > 0

    def __setitem__(self, where: Any, value: Any) -> None:
        if not self.flags.writeable:
            raise TypeError("the buffer is read-only")
        plain = value if isinstance(value, int) else np.frombuffer(value, np.uint8)
        if isinstance(where, slice) and not isinstance(plain, int) and len(plain) != len(self[where]):
            raise ValueError("slice and value have different lengths")
        np.ndarray.__setitem__(self, where, plain)

    def __getitem__(self, where: Any) -> Any:
        found = np.ndarray.__getitem__(self, where)
        return found if isinstance(found, np.ndarray) else int(found)

    def cast(self, format: str, shape: Any = None) -> memoryview:
        exported: Any = self
        view: Any = memoryview(exported).cast("B")
        return view.cast(format, *([] if shape is None else [shape]))

    def toreadonly(self) -> buffer:
        made = self.view(buffer)
        made.flags.writeable = False
        return made

    def release(self) -> None:
        """Nothing: memory goes with the last array of it."""


class _At:
    """Memory at an address, for NumPy; `owner` keeps it."""

    def __init__(self, address: int, nbytes: int, owner: object, readonly: bool) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "data": (address, readonly),
            "shape": (nbytes,),
            "typestr": "|u1",
        }


def at(address: int, nbytes: int, owner: object, readonly: bool = False) -> Bytes:
    """The bytes that lie there. Whether any do is the caller's to know."""
    return np.asarray(_At(address, nbytes, owner, readonly))


def read(given: Any, writable: bool) -> tuple[Bytes, str]:
    """The bytes of an object, contiguous in one order or the other, and the code of what they are.

    Raises TypeError for what has none; BufferError where they are not contiguous or, to be written to, read-only.
    """
    if type(given) is np.ndarray:
        return _array(given, writable)
    with contextlib.suppress(TypeError):
        return _view(memoryview(given), writable)
    if hasattr(given, "__dlpack_device__"):
        return _dlpack(given, writable)
    if hasattr(given, "__cuda_array_interface__"):
        return _interface(given, writable)
    raise TypeError(f"expected a buffer, not {type(given).__name__}")


def is_buffer(given: Any) -> bool:
    """Whether `read` takes it."""
    if isinstance(given, np.ndarray) or hasattr(given, "__dlpack_device__"):
        return True
    if isinstance(given, (list, tuple, str)) or given is None:
        return False
    with contextlib.suppress(TypeError):
        memoryview(given).release()
        return True
    return hasattr(given, "__cuda_array_interface__")


def _array(given: np.ndarray[Any, Any], writable: bool) -> tuple[Bytes, str]:
    flags, dtype = given.flags, given.dtype
    if not flags.forc:
        raise BufferError("the array is not contiguous")
    if writable and not flags.writeable:
        raise BufferError("the array is read-only")
    if not dtype.isnative:
        raise BufferError(f"the array has foreign byte order ({dtype.str})")
    if dtype.hasobject:
        raise TypeError("the array is of Python objects, whose addresses mean nothing elsewhere")
    flat = given.reshape(-1) if flags.c_contiguous else given.T.reshape(-1)
    code = dtype.char if dtype.isbuiltin == 1 and dtype.kind not in "SUV" else _named(dtype)
    return flat.view(np.uint8) if dtype.itemsize else np.empty(0, np.uint8), code


def _named(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.name == "bfloat16" else dtype.str.lstrip("<>|=")


def _view(view: memoryview, writable: bool) -> tuple[Bytes, str]:
    if not view.contiguous:
        raise BufferError("the buffer is not contiguous")
    if writable and view.readonly:
        raise BufferError("the buffer is read-only")
    code = view.format or "B"
    if code[0] == _FOREIGN:
        raise BufferError(f"the buffer has foreign byte order ({code})")
    data = np.frombuffer(view, np.uint8) if view.c_contiguous and view.nbytes else _array(np.asarray(view), writable)[0]
    return data, code.lstrip("@=<>")


def _dlpack(given: Any, writable: bool) -> tuple[Bytes, str]:
    device = given.__dlpack_device__()[0]
    if device in CUDA:
        raise NotImplementedError("arrays on GPUs are not in collx's shim of mpi4py: use collx itself, or .cpu()")
    if device != CPU:
        raise BufferError(f"the array is on a device of kind {device}")
    tensor = tensor_of(given, None)
    kind, bits, lanes = tensor.element
    if writable and tensor.read_only:
        raise BufferError("the array is read-only")
    if not _contiguous(tensor.shape, tensor.strides, 1):
        raise BufferError("the array is not contiguous")
    if (kind, lanes) == (2, 2):  # how complex numbers go that DLPack has no code for
        kind, bits, lanes = 5, bits * 2, 1
    if lanes != 1:
        raise BufferError("the array has vectors as elements")
    code = "bfloat16" if kind == 4 else f"{'iuf  c'[kind]}{bits // 8}" if kind in (0, 1, 2, 5) else "b1"
    nbytes = int(np.prod(tensor.shape, dtype=np.int64)) * bits // 8
    return at(tensor.address, nbytes, tensor.capsule, tensor.read_only), code


def _interface(given: Any, writable: bool) -> tuple[Bytes, str]:
    told = given.__cuda_array_interface__
    (address, readonly), shape, letters = told["data"], tuple(told["shape"]), told["typestr"]
    if told.get("mask") is not None:
        raise BufferError("the array is masked, and its mask would be lost")
    if letters[0] == _FOREIGN:
        raise BufferError(f"the array has foreign byte order ({letters})")
    if writable and readonly:
        raise BufferError("the array is read-only")
    itemsize = int(letters[2:])
    if not _contiguous(shape, told.get("strides"), itemsize):
        raise BufferError("the array is not contiguous")
    if address and _on_gpu(address):
        raise NotImplementedError("arrays on GPUs are not in collx's shim of mpi4py: use collx itself, or .cpu()")
    nbytes = int(np.prod(shape, dtype=np.int64)) * itemsize
    return at(address or 0, nbytes, given, readonly), letters[1:]


def _on_gpu(address: int) -> bool:
    from collx.transports.cuda.driver import driver  # which those without GPUs never need

    try:
        return driver().device_at(address) is not None
    except (CollxError, OSError, ImportError):  # there is none
        return False


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> bool:
    """In C's order or in Fortran's."""
    if strides is None or 0 in shape:
        return True
    for order in (1, -1):
        step, fits = itemsize, True
        for length, stride in list(zip(shape, strides, strict=True))[::-order]:
            fits &= length == 1 or stride == step
            step *= length
        if fits:
            return True
    return False


def Get_address(location: Any) -> int:
    """Where in memory a buffer begins."""
    if location is None:
        return 0
    if location is BOTTOM or location is IN_PLACE or location is BUFFER_AUTOMATIC:
        return int(location)
    return address_of(read(location, False)[0])


def Aint_add(base: int, disp: int) -> int:
    return base + disp


def Aint_diff(addr1: int, addr2: int) -> int:
    return addr1 - addr2


def Alloc_mem(size: int, info: object = None) -> buffer:
    return buffer.allocate(size)


def Free_mem(mem: buffer) -> None:
    """Let go of what Alloc_mem made; memory goes with the last array of it."""
    if not isinstance(mem, buffer):
        raise errors.Exception(constants.ERR_ARG, f"Alloc_mem makes a buffer, not a {type(mem).__name__}")
    mem.release()
