"""What NumPy says that a call gives, and contributions on which every op is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from collx.collectives import COLLECTIVES
from collx.types import Array, ReduceOp
from tests.calls import Call


def inputs(call: Call, seed: int = 0) -> list[Array]:
    """What each rank contributes: numbers small enough that every op on up to 8 of them is exact in every dtype. What
    one sends to another in an all_to_all depends on nothing but the count of the two."""
    low, high = (1, 2) if call.op.name == "prod" else (0, 1)

    def numbers(count: int, *of: int) -> Array:
        return np.random.default_rng([seed, call.size, call.root, *of]).integers(low, high + 1, count)

    if call.matrix:
        given = [np.concatenate([numbers(n, i, j) for j, n in enumerate(row)]) for i, row in enumerate(call.matrix)]
    else:
        given = [numbers(call.given(rank), rank) for rank in range(call.size)]
    if np.issubdtype(call.dtype, np.complexfloating):
        return [(a + 1j * (a % 2)).astype(call.dtype) for a in given]
    return [a.astype(call.dtype) for a in given]


def expected(call: Call, given: Sequence[Array]) -> list[Array]:
    """The output of each rank, by NumPy alone."""
    size, root, combine = call.size, call.root, numpy_op(call.op)
    result = COLLECTIVES[call.collective].result
    if result == "heard":
        return [given[rank] for rank in range(size)]
    if result == "prefix":
        shift = call.collective == "exscan"
        return [_folded(combine, given[: rank + 1 - shift] or given[:1], call) for rank in range(size)]
    if result == "exchange":
        return [np.concatenate([_part(given[i], call.matrix[i], j) for i in range(size)]) for j in range(size)]
    if result == "reduction":
        everything = _folded(combine, given, call)
    elif call.collective in ("broadcast", "scatter"):
        everything = given[root]
    else:
        everything = np.concatenate(given)
    if call.collective in ("reduce_scatter", "scatter"):
        return [_part(everything, call.counts, rank) for rank in range(size)]
    if call.collective in ("reduce", "gather"):
        return [everything if rank == root else everything[:0] for rank in range(size)]
    return [everything] * size


def _part(array: Array, counts: Sequence[int], index: int) -> Array:
    return array[sum(counts[:index]) : sum(counts[: index + 1])]


def _folded(combine: Callable[[Array, Array], Array], given: Sequence[Array], call: Call) -> Array:
    total = reduce(combine, given).astype(call.dtype)
    return (total / np.asarray(call.size, call.dtype)).astype(call.dtype) if call.op.name == "avg" else total


def numpy_op(op: ReduceOp) -> Callable[[Array, Array], Array]:
    """What NumPy calls this op."""
    if op.function is not None:
        return op.function
    names = {
        "sum": "add", "avg": "add", "prod": "multiply", "min": "minimum", "max": "maximum",
        "band": "bitwise_and", "bor": "bitwise_or", "bxor": "bitwise_xor",
        "land": "logical_and", "lor": "logical_or", "lxor": "logical_xor",
    }  # fmt: skip
    ufunc: np.ufunc = getattr(np, names[op.name])
    return lambda a, b: np.asarray(ufunc(a, b)).astype(a.dtype)


def ops_of(dtype: np.dtype[Any]) -> list[str]:
    """The built-in ops that a dtype has."""
    ops = ["sum", "prod", "land", "lor", "lxor"]
    exact = dtype.kind in "biu"
    is_complex = dtype.kind == "c"
    ops += [] if is_complex else ["min", "max"]
    ops += ["band", "bor", "bxor"] if exact else ["avg"]
    return ops


def matrix_product() -> ReduceOp:
    """The product of 2x2 matrices laid flat: associative, not commutative, exact on integers (it wraps around)."""

    def multiply(a: Array, b: Array) -> Array:
        return np.asarray(np.matmul(a.reshape(-1, 2, 2), b.reshape(-1, 2, 2))).reshape(a.shape)

    return ReduceOp.custom(multiply)
