"""How the reference engine combines arrays: one NumPy function per op, rounding once per step in the dtype itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collx.types import Array, ReduceOp

Combine = Callable[[Array, Array, Array], Any]  # (left, right, out) -> ignored

_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "avg": np.add,
    "prod": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}
_LOGICAL: dict[str, np.ufunc] = {"land": np.logical_and, "lor": np.logical_or, "lxor": np.logical_xor}


def combine(op: ReduceOp) -> Combine:
    """The function that writes `left op right` to `out`, which may be `left`.

    Logical ops give 0 or 1 in the arrays' dtype; on bool, sum is "or" and prod is "and", as NumPy has it.
    Raises TypeError where a custom op returns another shape or dtype than it was given.
    """
    if op.function is not None:
        return lambda left, right, out: _custom(op, left, right, out)
    if op.name in _LOGICAL:
        logical = _LOGICAL[op.name]
        return lambda left, right, out: np.copyto(out, logical(left != 0, right != 0).astype(out.dtype))
    ufunc = _UFUNCS[op.name]
    return lambda left, right, out: ufunc(left, right, out=out)


def fold(values: Sequence[Array], step: Combine) -> Array:
    """The values combined from the left; the only value itself, or a new array."""
    if len(values) == 1 or not values[0].size:
        return values[0]
    result = np.empty_like(values[0])
    left = values[0]
    with np.errstate(all="ignore"):
        for right in values[1:]:
            step(left, right, result)
            left = result
    return result


def divided(values: Array, size: int) -> Array:
    """The values over `size`, rounded once to their dtype (narrow floats are divided as float32)."""
    if values.dtype.kind == "c":  # by parts: NumPy's division of complex numbers rounds more than once
        parts = np.ascontiguousarray(values).view(values.real.dtype)
        return divided(parts, size).view(values.dtype)
    wide = np.float32 if values.dtype.itemsize < 4 else values.dtype
    return np.asarray((values.astype(wide) / np.asarray(size, wide)).astype(values.dtype))


def _custom(op: ReduceOp, left: Array, right: Array, out: Array) -> None:
    assert op.function is not None
    left, right = left.view(), right.view()
    left.flags.writeable = right.flags.writeable = False
    result = np.asarray(op.function(left, right))
    if result.shape != out.shape or result.dtype != out.dtype:
        given, got = f"{out.dtype}{list(out.shape)}", f"{result.dtype}{list(result.shape)}"
        raise TypeError(f"the custom op was given {given} and returned {got}; it must return what it was given")
    np.copyto(out, result)
