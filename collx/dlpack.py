"""What a DLPack capsule says, of either layout: the C structs of dlpack.h, versions 0.8 and 1."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

CPU = 1
CUDA = (2, 13)  # device memory, and managed memory, which devices see as well
_READ_ONLY = 1


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    )


class Tensor(NamedTuple):
    """What is lent, until `capsule` goes: it was not consumed, so it gives the loan back itself. Strides are in
    elements, None where it is C-contiguous."""

    address: int
    device: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    element: tuple[int, int, int]  # code, bits, lanes
    read_only: bool
    capsule: object


def tensor_of(given: Any, stream: int | None) -> Tensor:
    """Ask for a loan: of memory that is ready on `stream`, or at once for None."""
    asked = {} if stream is None else {"stream": stream}
    try:
        capsule = given.__dlpack__(max_version=(1, 0), **asked)
    except TypeError:  # from before there were versions
        capsule = given.__dlpack__(**asked)
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        if versioned.major != 1:
            raise TypeError(f"this {type(given).__name__} speaks DLPack {versioned.major}.{versioned.minor}, not 1")
        return _read(versioned.tensor, bool(versioned.flags & _READ_ONLY), capsule)
    return _read(_DLTensor.from_address(_pointer(capsule, b"dltensor")), False, capsule)


def _read(tensor: Any, read_only: bool, capsule: object) -> Tensor:
    ndim = tensor.ndim
    return Tensor(
        (tensor.data or 0) + tensor.byte_offset,
        tensor.device_id,
        tuple(tensor.shape[:ndim]),
        tuple(tensor.strides[:ndim]) if tensor.strides else None,
        (tensor.code, tensor.bits, tensor.lanes),
        read_only,
        capsule,
    )


_CODES: dict[tuple[int, int], np.dtype[Any]] = {
    **{(0, dtype.itemsize * 8): dtype for dtype in map(np.dtype, ("i1", "i2", "i4", "i8"))},
    **{(1, dtype.itemsize * 8): dtype for dtype in map(np.dtype, ("u1", "u2", "u4", "u8"))},
    **{(2, dtype.itemsize * 8): dtype for dtype in map(np.dtype, ("f2", "f4", "f8"))},
    **{(5, dtype.itemsize * 8): dtype for dtype in map(np.dtype, ("c8", "c16"))},
    (4, 16): np.dtype(ml_dtypes.bfloat16),
    (6, 8): np.dtype(np.bool_),
    (10, 8): np.dtype(ml_dtypes.float8_e4m3fn),
    (12, 8): np.dtype(ml_dtypes.float8_e5m2),
}


def dtype_of(tensor: Tensor) -> np.dtype[Any] | None:
    """Its elements' type, None for one that NumPy and ml_dtypes lack."""
    code, bits, lanes = tensor.element
    return _CODES.get((code, bits)) if lanes == 1 else None


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
