"""Ops of the user's: what they see, and what happens when they go wrong."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import collx
from collx import Communicator, ReduceOp
from collx.types import Array
from tests.collectives.numbers import matrix_product, same
from tests.ranks import ranks


def whole_arrays(comm: Communicator) -> None:
    op = matrix_product()
    for side in (2, 3, 60):  # the last lies beyond what goes in one message
        given = [np.random.default_rng(r).integers(-2, 3, (side, side)) for r in range(comm.size)]
        total = functools.reduce(np.matmul, given)
        x = given[comm.rank]
        same(comm.all_reduce(x, op), total)
        same(comm.scan(x, op), functools.reduce(np.matmul, given[: comm.rank + 1]))
        reduced = comm.reduce(x, op, comm.size - 1)
        if comm.rank == comm.size - 1:
            same(reduced, total)
        same(comm.all_reduce(x, op, async_op=True).wait(), total)
        again = comm.plan("all_reduce", x, op)
        same(again(), total)
        same(again(), total)


def rows(comm: Communicator) -> None:
    seen: set[tuple[int, ...]] = set()

    def largest_first_column(a: Array, b: Array) -> Array:
        seen.add(a.shape)
        return np.where(a[:, :1] >= b[:, :1], a, b)

    op = ReduceOp.custom(largest_first_column, commutative=True)
    x = np.random.default_rng(comm.rank).integers(0, 1000, (3 * comm.size, 2))
    everybody = comm.all_gather(x).reshape(comm.size, -1, 2)
    winner = functools.reduce(largest_first_column, list(everybody))
    seen.clear()
    same(comm.reduce_scatter(x, op), winner[3 * comm.rank : 3 * comm.rank + 3])
    assert seen <= {(3, 2)}


class Scaled:
    """An op with settings that compare equal, as a dataclass has them: it cannot be hashed."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scaled)

    def __call__(self, a: Array, b: Array) -> Array:
        return np.asarray((a + b) * self.by)


def objects_without_hash(comm: Communicator) -> None:
    for by in (1.0, 0.0):
        op = ReduceOp.custom(Scaled(by))
        same(comm.all_reduce(np.ones(2), op), np.full(2, by * comm.size))
        same(comm.all_reduce(np.ones(2), op), np.full(2, by * comm.size))


def test_an_op_may_be_an_object_without_hash(kind: str) -> None:
    ranks(kind, 2, objects_without_hash)


def empty_arrays(comm: Communicator) -> None:
    op = ReduceOp.custom(lambda a, b: a + b)
    same(comm.all_reduce(np.zeros((0, 3)), op), np.zeros((0, 3)))
    same(comm.reduce_scatter(np.zeros((0, 3)), op), np.zeros((0, 3)))
    same(comm.all_reduce(np.array(2.0), op), np.array(2.0 * comm.size))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_it_sees_whole_arrays_in_rank_order(kind: str, size: int) -> None:
    ranks(kind, size, whole_arrays)
    ranks(kind, size, rows)
    ranks(kind, size, empty_arrays)


WRONG = {
    "shape": lambda a, b: (a + b)[:1],
    "dtype": lambda a, b: (a + b).astype(np.float32),
    "nothing": lambda a, b: None,
    "list": lambda a, b: [1.0, 2.0, 3.0],
}


def wrong_return(comm: Communicator, what: str) -> None:
    with pytest.raises((TypeError, collx.CollxError)) as caught:
        comm.all_reduce(np.ones(3), ReduceOp.custom(WRONG[what]))
    if isinstance(caught.value, TypeError):
        assert "the custom op must return float64 of shape (3,)" in str(caught.value)
    with pytest.raises(collx.ClosedError):
        comm.barrier()


@pytest.mark.parametrize("what", sorted(WRONG))
def test_a_wrong_return_is_a_type_error(kind: str, what: str) -> None:
    ranks(kind, 2, wrong_return, what)


def raising(comm: Communicator) -> str:
    def op(a: Array, b: Array) -> Array:
        if comm.rank == 1:
            raise ZeroDivisionError("no such luck")
        return np.asarray(a + b)

    def twice() -> None:
        for _ in range(2):  # a rank that has all it needs may notice at its next call only
            comm.all_reduce(np.ones(3), ReduceOp.custom(op))

    with pytest.raises((ZeroDivisionError, collx.CollxError)) as caught:
        twice()
    return f"{type(caught.value).__name__}: {caught.value}"


def test_an_op_that_raises_tells_the_others(kind: str) -> None:
    other, culprit = ranks(kind, 2, raising)
    assert culprit == "ZeroDivisionError: no such luck"
    assert "no such luck" in other
