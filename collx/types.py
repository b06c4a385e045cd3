"""The element types and reduction operations that collx computes with."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

# The position in this tuple is the type's code in the native engine (csrc/dtype.hpp).
DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(t)
    for t in (
        np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64,
        np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
        np.float32, np.float64, np.complex64, np.complex128,
    )
)  # fmt: skip
DTYPE_CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in enumerate(DTYPES)}

# The position is the op's code in the native engine. "avg" is a sum whose result is divided by the size.
OPS = ("sum", "prod", "min", "max", "band", "bor", "bxor", "land", "lor", "lxor", "custom", "avg")

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ReduceOp:
    """How two contributions combine. Built-in ones go by name (`op="sum"`); `ReduceOp.custom` makes one's own."""

    name: str
    function: Callable[[Array, Array], Array] | None = None
    commutative: bool = True

    @staticmethod
    def custom(function: Callable[[Array, Array], Array], *, commutative: bool = False) -> ReduceOp:
        """An op of the user's: `function(a, b)` combines the contributions of lower ranks, `a`, with those of
        higher ones, `b`, and returns an array of their shape and dtype. It must be associative; unless
        `commutative`, rank order is kept. It must not change its arguments, which are valid during the call only."""
        return ReduceOp("custom", function, commutative)

    @property
    def code(self) -> int:
        return OPS.index(self.name)
