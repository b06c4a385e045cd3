"""Elements that are hard to compute with, of every dtype, and what NumPy makes of them, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from collx.types import DTYPES, OPS, Array, ReduceOp, supports

KERNEL_OPS = [name for name in OPS if name != "custom"]
PAIRS = [(dtype, op) for dtype in DTYPES for op in KERNEL_OPS if supports(dtype, ReduceOp(op))]
PAIR_IDS = [f"{dtype.name}-{op}" for dtype, op in PAIRS]
FLOATS = [dtype for dtype in DTYPES if dtype.kind not in "biu"]
SPECIAL = (0.0, -0.0, 1.0, -1.0, 3.5, np.inf, -np.inf, np.nan)
ROUNDED = (448.0, 464.0, 57344.0, 65504.0, 1e-45, 1e-40, -2e-8, 1e-7, 3e38)  # near the ends of some dtype
BITWISE = {"band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
LOGICAL = {"land": np.logical_and, "lor": np.logical_or, "lxor": np.logical_xor}


def address(array: Array) -> int:
    return array.ctypes.data


def random_bits(dtype: np.dtype[Any], count: int, seed: int = 0) -> Array:
    """Any bits that the dtype can have: NaNs, infinities and subnormals among them; a bool is 0 or 1."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).copy()


def operands(dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """All pairs of an 8-bit type; of wider ones all of 16 bits, special pairs and random bits."""
    if dtype.kind == "b":
        return np.array([0, 0, 1, 1], bool).repeat(33), np.tile([False, True], 66)
    if dtype.itemsize == 1:
        every = np.arange(256, dtype=np.uint8).view(dtype)
        return every.repeat(256), np.tile(every, 256)
    firsts, seconds = [random_bits(dtype, 10_000, seed=1)], [random_bits(dtype, 10_000, seed=2)]
    if dtype.itemsize == 2:
        every = np.arange(65536, dtype=np.uint16).view(dtype)
        firsts += [every, every]
        seconds += [np.zeros_like(every), np.random.default_rng(3).permutation(every)]
    special = special_values(dtype)
    firsts += [special.repeat(special.size), ordinary(dtype, seed=4)]
    seconds += [np.tile(special, special.size), ordinary(dtype, seed=5)]
    return np.concatenate(firsts), np.concatenate(seconds)


def special_values(dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([limits.min, limits.max, 0, 1, 2, limits.max - 1, limits.max // 2], dtype)
    if dtype.kind == "c":
        return np.array([complex(re, im) for re in SPECIAL for im in SPECIAL], dtype)
    with np.errstate(all="ignore"):
        return np.array(SPECIAL + ROUNDED).astype(dtype)


def ordinary(dtype: np.dtype[Any], seed: int) -> Array:
    """Values of common size, whose sums and products round."""
    values = np.random.default_rng(seed).normal(size=(2, 5_001)) * 3
    return np.asarray((values[0] + 1j * values[1]).astype(dtype) if dtype.kind == "c" else values[0].astype(dtype))


def parts(array: Array) -> Array:
    return array.view(array.real.dtype) if array.dtype.kind == "c" else array


def expected(op: str, a: Array, b: Array) -> Array:
    """NumPy's result, with the sign of zero and the complex product as kernels.hpp has them."""
    with np.errstate(all="ignore"):
        match op:
            case "sum" | "avg":
                return np.asarray(np.add(a, b))
            case "prod" if a.dtype.kind == "c":
                out = np.empty_like(a)
                out.real = a.real * b.real - a.imag * b.imag
                out.imag = a.real * b.imag + a.imag * b.real
                return out
            case "prod":
                return np.asarray(np.multiply(a, b))
            case "min" | "max":
                return extreme(op, a, b)
            case "band" | "bor" | "bxor":
                return np.asarray(BITWISE[op](a, b))
        return np.asarray(LOGICAL[op](a, b)).astype(a.dtype)


def extreme(op: str, a: Array, b: Array) -> Array:
    out = np.asarray(np.minimum(a, b) if op == "min" else np.maximum(a, b))
    if a.dtype.kind not in "biu":
        negative = np.signbit(a) | np.signbit(b) if op == "min" else np.signbit(a) & np.signbit(b)
        zeros = (a == 0) & (b == 0)
        out[zeros] = np.where(negative[zeros], a.dtype.type(-0.0), a.dtype.type(0.0))
    return out


def assert_same_bits(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    got, want = parts(got), parts(want)
    word = f"u{want.dtype.itemsize}"
    different = got.view(word) != want.view(word)
    if want.dtype.kind not in "biu":
        with np.errstate(invalid="ignore"):
            different &= ~(np.isnan(got) & np.isnan(want))
    different = np.flatnonzero(different)
    assert different.size == 0, f"{different.size} differ: {got[different][:5]}, not {want[different][:5]}"


class Guarded:
    """An array at a chosen offset from alignment, between bytes that must not change."""

    def __init__(self, values: Array, offset: int) -> None:
        self.room = np.full(values.nbytes + 192, 0xA5, np.uint8)
        start = -address(self.room) % 64 + offset
        self.array: Array = np.ndarray(values.shape, values.dtype, self.room, start)
        self.array[...] = values
        self.around = np.ones(self.room.size, bool)
        self.around[start : start + values.nbytes] = False

    def intact(self) -> bool:
        return bool((self.room[self.around] == 0xA5).all())
