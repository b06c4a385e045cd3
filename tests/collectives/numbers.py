"""What ranks contribute, and what NumPy makes of it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from collx.types import DTYPES, Array, ReduceOp, reduce_op, supports

UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum,
    "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor,
    "land": np.logical_and, "lor": np.logical_or, "lxor": np.logical_xor,
}  # fmt: skip
PAIRS = [(dtype, op) for dtype in DTYPES for op in UFUNCS if supports(dtype, reduce_op(op))]


def contribution(rank: int, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0, lowest: int = 0) -> Array:
    """What `rank` gives: `lowest` or one more, so that folding eight of them is exact in float8 too."""
    numbers: Array = np.random.default_rng([seed, rank]).integers(lowest, lowest + 2, shape)
    if dtype.kind == "c":
        return np.asarray(numbers + 1j * (numbers % 2), dtype)
    return numbers.astype(dtype)


def fold(arrays: list[Array], op: str) -> Array:
    """The arrays combined from the left in NumPy; avg divides the sum by how many they are."""
    dtype = arrays[0].dtype
    total = functools.reduce(lambda a, b: np.asarray(UFUNCS[op](a, b)).astype(dtype), arrays)
    if op != "avg":
        return total
    if dtype.kind == "c":
        return np.asarray(total.real / len(arrays) + 1j * (total.imag / len(arrays))).astype(dtype)
    return np.asarray(total / np.asarray(len(arrays), dtype), dtype)


def matrix_product() -> ReduceOp:
    """Not commutative, and defined on the whole array only."""
    return ReduceOp.custom(lambda a, b: a @ b)


def same(got: Any, wanted: Any) -> None:
    """Equal in type, dtype, shape and bits (all zeros alike)."""
    assert type(got) is np.ndarray
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert np.array_equal(got, wanted, equal_nan=got.dtype.kind == "f"), f"got {got!r}, wanted {wanted!r}"
