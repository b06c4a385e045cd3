"""The element types and reduction operations that collx computes with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Where(NamedTuple):
    """Where memory of a GPU is used: the device's number in this process, and the stream on which the caller works."""

    ordinal: int
    stream: int


ANY = -1  # of the ranks as a source, of the tags of users


class Envelope(NamedTuple):
    """What is known of a message: the rank that sent it, its tag, and how many bytes it has."""

    source: int
    tag: int
    nbytes: int


def asking(source: int, tag: int) -> str:
    """Of which messages one is asked for, for people."""
    return f"source={'any' if source == ANY else source}, tag={'any' if tag == ANY else tag}"


@dataclass(frozen=True, slots=True)
class ReduceOp:
    """How two contributions combine. Built-in ones go by name (`op="sum"`); `ReduceOp.custom` makes one's own."""

    name: str
    function: Callable[[Array, Array], Array] | None = None
    commutative: bool = True

    def __post_init__(self) -> None:
        if self.name not in OPS:
            raise ValueError(f"unknown op {self.name!r}: {nearest(str(self.name), BUILT_IN)}")
        if (self.name == "custom") != (self.function is not None):
            raise ValueError("an op of one's own is made by ReduceOp.custom(function), the others have no function")

    @staticmethod
    def custom(function: Callable[[Array, Array], Array], *, commutative: bool = False) -> ReduceOp:
        """An op of the user's: `function(a, b)` combines the contributions of lower ranks, `a`, with those of
        higher ones, `b`, and returns an array of their shape and dtype. It must be associative; unless
        `commutative`, rank order is kept. It must not change its arguments, which are valid during the call only."""
        if not callable(function):
            raise TypeError(f"ReduceOp.custom takes a function of two arrays, not {type(function).__name__}")
        try:
            hash(function)
        except TypeError:  # plans are kept by op, and a bound method can be looked up whatever it is bound to
            bound: Any = function
            function = bound.__call__
        return ReduceOp("custom", function, commutative)

    @property
    def code(self) -> int:
        return OPS.index(self.name)


BUILT_IN: dict[str, ReduceOp] = {name: ReduceOp(name) for name in OPS if name != "custom"}


def reduce_op(op: object) -> ReduceOp:
    """The op that a user names. Raises ValueError with the nearest names, TypeError for what is no op at all."""
    if isinstance(op, ReduceOp):
        return op
    if not isinstance(op, str):
        raise TypeError(f"op must be a name or collx.ReduceOp.custom(function), not {type(op).__name__}")
    if op not in BUILT_IN:
        raise ValueError(f"unknown op {op!r}: {nearest(op, BUILT_IN)}")
    return BUILT_IN[op]


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say of a misspelt word: the known words like it, or all of them."""
    words = list(known)
    close = difflib.get_close_matches(word.lower(), words, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(words)}"


def supports(dtype: np.dtype[Any], op: ReduceOp) -> bool:
    """Whether `op` is defined on `dtype`: bitwise ops on integers and bool, min and max not on complex numbers,
    avg where a quotient is a number of that type; sum, prod, logical and custom ops on all."""
    match op.name:
        case "min" | "max":
            return dtype.kind != "c"
        case "band" | "bor" | "bxor":
            return dtype.kind in "biu"
        case "avg":
            return dtype.kind not in "biu"
    return True


def identity(op: ReduceOp, dtype: np.dtype[Any]) -> Any:
    """The value that changes nothing under `op`: exscan's result on rank 0. Custom ops: zero."""
    match op.name:
        case "prod" | "land":
            return dtype.type(1)
        case "band":
            return dtype.type(True) if dtype.kind == "b" else ~dtype.type(0)
        case "min":
            return _extreme(dtype, highest=True)
        case "max":
            return _extreme(dtype, highest=False)
    return dtype.type(0)


def _extreme(dtype: np.dtype[Any], highest: bool) -> Any:
    if dtype.kind == "b":
        return dtype.type(highest)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return dtype.type(limits.max if highest else limits.min)
    infinity = dtype.type(np.inf if highest else -np.inf)
    if np.isinf(infinity):
        return infinity
    finite: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # float8_e4m3fn has no infinity
    return dtype.type(finite.max if highest else finite.min)
