"""The datatypes that MPI has itself: those of C, C++ and Fortran by their names, and the pairs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from collx.compat.mpi4py import layout
from collx.compat.mpi4py.datatype import Datatype
from collx.compat.mpi4py.kind import CODES, CONSTANTS, DTYPES, Kind

__all__ = ["CODES", "CONSTANTS", "Kind"]

# Name in mpi4py: the code of struct and NumPy.
_NUMBERS = {
    "PACKED": "B", "BYTE": "B", "AINT": "p", "OFFSET": "l", "COUNT": "l",
    "CHAR": "c", "WCHAR": "U", "SIGNED_CHAR": "b", "SHORT": "h", "INT": "i", "LONG": "l", "LONG_LONG": "q",
    "UNSIGNED_CHAR": "B", "UNSIGNED_SHORT": "H", "UNSIGNED": "I", "UNSIGNED_LONG": "L", "UNSIGNED_LONG_LONG": "Q",
    "FLOAT": "f", "DOUBLE": "d", "LONG_DOUBLE": "g", "C_BOOL": "?",
    "INT8_T": "b", "INT16_T": "h", "INT32_T": "i", "INT64_T": "l",
    "UINT8_T": "B", "UINT16_T": "H", "UINT32_T": "I", "UINT64_T": "L",
    "FLOAT16_T": "e", "BFLOAT16_T": "bfloat16",
    "C_FLOAT_COMPLEX": "F", "C_DOUBLE_COMPLEX": "D", "C_LONG_DOUBLE_COMPLEX": "G",
    "CXX_BOOL": "?", "CXX_FLOAT_COMPLEX": "F", "CXX_DOUBLE_COMPLEX": "D", "CXX_LONG_DOUBLE_COMPLEX": "G",
    "CHARACTER": "c", "LOGICAL": "i", "INTEGER": "i", "REAL": "f", "DOUBLE_PRECISION": "d", "COMPLEX": "F",
    "DOUBLE_COMPLEX": "D", "LOGICAL1": "b", "LOGICAL2": "h", "LOGICAL4": "i", "LOGICAL8": "l",
    "INTEGER1": "b", "INTEGER2": "h", "INTEGER4": "i", "INTEGER8": "l",
    "REAL2": "e", "REAL4": "f", "REAL8": "d", "REAL16": "g", "COMPLEX8": "F", "COMPLEX16": "D", "COMPLEX32": "G",
}  # fmt: skip
_PAIRS = {"SHORT": "h", "INT": "i", "LONG": "l", "FLOAT": "f", "DOUBLE": "d", "LONG_DOUBLE": "g"}
_ABSENT = ("LOGICAL16", "INTEGER16", "COMPLEX4")  # which no C compiler here has; null, as where an MPI lacks them
_ALIASES = {
    "TWOINT": "INT_INT", "FLOAT32_T": "FLOAT", "FLOAT64_T": "DOUBLE", "C_COMPLEX": "C_FLOAT_COMPLEX",
    "UNSIGNED_INT": "UNSIGNED", "SIGNED_SHORT": "SHORT", "SIGNED_INT": "INT", "SIGNED_LONG": "LONG",
    "SIGNED_LONG_LONG": "LONG_LONG", "BOOL": "C_BOOL", "SINT8_T": "INT8_T", "SINT16_T": "INT16_T",
    "SINT32_T": "INT32_T", "SINT64_T": "INT64_T", "F_BOOL": "LOGICAL", "F_INT": "INTEGER", "F_FLOAT": "REAL",
    "F_DOUBLE": "DOUBLE_PRECISION", "F_COMPLEX": "COMPLEX", "F_FLOAT_COMPLEX": "COMPLEX",
    "F_DOUBLE_COMPLEX": "DOUBLE_COMPLEX",
}  # fmt: skip


def _number(code: str) -> layout.Layout:
    dtype = DTYPES[code]
    return layout.basic(dtype.itemsize, dtype.alignment)


def _pair(dtype: np.dtype[Any], code: str) -> layout.Layout:
    assert dtype.fields is not None
    parts = zip((code, "i"), (dtype.fields[name][1] for name in ("value", "index")), strict=True)
    return layout.joined([layout.repeated(_number(one), [1], [at]) for one, at in parts])


def _define() -> None:
    for name, code in _NUMBERS.items():
        kind = Kind(partial(_number, code), f"MPI_{name}", None if code == "bfloat16" else code)
        kind.dtype = DTYPES[code]
        CONSTANTS[name] = Datatype._of(kind, name)
    for name, code in _PAIRS.items():
        dtype = np.dtype([("value", code), ("index", "i")], align=True)
        called = "MPI_2INT" if name == "INT" else f"MPI_{name}_INT"
        CONSTANTS[f"{name}_INT"] = Datatype._of(
            Kind(partial(_pair, dtype, code), called, arguments={"pair": dtype}), f"{name}_INT"
        )
    for name in ("DATATYPE_NULL", *_ABSENT):
        CONSTANTS[name] = Datatype._of(None, name)
    for name, other in _ALIASES.items():
        CONSTANTS[name] = CONSTANTS[other]


_define()

_BY_CODE = {
    "bfloat16": "BFLOAT16_T",
    "?": "C_BOOL", "b": "SIGNED_CHAR", "h": "SHORT", "i": "INT", "l": "LONG", "q": "LONG_LONG",
    "B": "UNSIGNED_CHAR", "H": "UNSIGNED_SHORT", "I": "UNSIGNED", "L": "UNSIGNED_LONG", "Q": "UNSIGNED_LONG_LONG",
    "e": "FLOAT16_T", "f": "FLOAT", "d": "DOUBLE", "g": "LONG_DOUBLE",
    "F": "C_FLOAT_COMPLEX", "D": "C_DOUBLE_COMPLEX", "G": "C_LONG_DOUBLE_COMPLEX",
    "Zf": "C_FLOAT_COMPLEX", "Zd": "C_DOUBLE_COMPLEX", "Zg": "C_LONG_DOUBLE_COMPLEX",
    "b1": "C_BOOL", "i1": "INT8_T", "i2": "INT16_T", "i4": "INT32_T", "i8": "INT64_T",
    "u1": "UINT8_T", "u2": "UINT16_T", "u4": "UINT32_T", "u8": "UINT64_T", "f2": "FLOAT16_T",
    "f4": "FLOAT", "f8": "DOUBLE", "f16": "LONG_DOUBLE",
    "c8": "C_FLOAT_COMPLEX", "c16": "C_DOUBLE_COMPLEX", "c32": "C_LONG_DOUBLE_COMPLEX",
    "n": "AINT", "N": "UNSIGNED_LONG", "p": "AINT", "P": "UNSIGNED_LONG",
    "c": "CHAR", "a": "CHAR", "S": "CHAR", "S1": "CHAR", "s": "CHAR", "1s": "CHAR",
    "U": "WCHAR", "U1": "WCHAR", "w": "WCHAR", "1w": "WCHAR", "u": "UINT16_T", "1u": "UINT16_T",
    "M": "INT64_T", "M8": "INT64_T", "m": "INT64_T", "m8": "INT64_T",
}  # fmt: skip
CODES.update({code: CONSTANTS[name] for code, name in _BY_CODE.items()})
