"""Every registered algorithm, lowered and run by every engine, gives what NumPy gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.engine import Engine
from collx.schedule import REGISTER
from collx.types import DTYPES, Array, ReduceOp
from tests.calls import Call, even, registered, sizes_of
from tests.harness import ENGINES, engines, on_every, perform
from tests.oracle import expected, inputs, matrix_product, ops_of

KINDS = pytest.mark.parametrize("kind", ENGINES)
Case = tuple[str, str]


def named(case: Any) -> str:
    return "-".join(case) if isinstance(case, tuple) else str(case)


def algorithms(**traits: bool) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", registered(**traits), ids=named)


def check(kind: str, size: int, calls: Sequence[Call], seed: int = 0) -> list[list[Array]]:
    """Run the calls one after the other on all ranks; compare each with NumPy; return outputs[call][rank]."""
    contributions = [inputs(call, seed) for call in calls]

    def body(rank: int, engine: Engine) -> list[Array]:
        return [perform(call, rank, engine, contributions[i][rank], i) for i, call in enumerate(calls)]

    with engines(kind, size) as ranks:
        outputs = on_every(ranks, body)
    for i, call in enumerate(calls):
        for rank, wanted in enumerate(expected(call, contributions[i])):
            if (call.collective, rank) != ("exscan", 0):
                assert outputs[rank][i].tobytes() == wanted.tobytes(), f"{call} on rank {rank}"
    return [[outputs[rank][i] for rank in range(size)] for i in range(len(calls))]


def _one(call: Call, given: Sequence[Array], rank: int, engine: Engine) -> Array:
    return perform(call, rank, engine, given[rank], 0)


def usual_counts(size: int) -> list[int]:
    """None at all, fewer than ranks, one each, numbers that do not divide, more than a cache line."""
    return sorted({0, 1, size - 1, size, 3 * size + 2, 257})


@KINDS
@algorithms()
def test_every_size_and_count(case: Case, kind: str) -> None:
    for size in sizes_of(*case):
        check(kind, size, [even(*case, size, count) for count in usual_counts(size)])


@KINDS
@algorithms()
def test_in_place(case: Case, kind: str) -> None:
    for size in sizes_of(*case, largest=5):
        calls = [even(*case, size, count, inplace=True) for count in usual_counts(size)]
        check(kind, size, [call for call in calls if any(map(call.placed, range(size)))])


@KINDS
@algorithms(rooted=True)
def test_every_root(case: Case, kind: str) -> None:
    for size in sizes_of(*case, largest=5):
        check(kind, size, [even(*case, size, 41, root=root) for root in range(size)])


@KINDS
@algorithms(per_rank=True, uniform=False)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_uneven_counts(case: Case, kind: str, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(sizes_of(*case)))
    row = st.lists(st.sampled_from([0, 0, 1, 2, 5, 33]), min_size=size, max_size=size).map(tuple)
    root = data.draw(st.integers(0, size - 1)) if (case in registered(rooted=True)) else 0
    if case[0] == "all_to_all":
        call = Call(*case, size, matrix=tuple(data.draw(row) for _ in range(size)))
    else:
        call = Call(*case, size, counts=data.draw(row), root=root)
    check(kind, size, [call])


@KINDS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_op(dtype: np.dtype[Any], kind: str) -> None:
    pairs = {"all_reduce": ("ring", "recursive_doubling", "direct"), "reduce_scatter": ("ring",), "scan": ("doubling",)}
    cases = [(collective, name) for collective, names in pairs.items() for name in names]
    calls = [even(*case, 4, 37, dtype=dtype, op=ReduceOp(op)) for op in ops_of(dtype) for case in cases]
    check(kind, 4, calls)


@KINDS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_moves(dtype: np.dtype[Any], kind: str) -> None:
    names = {"all_gather": "ring", "all_to_all": "pairwise", "broadcast": "tree", "gather": "tree", "scatter": "tree"}
    check(kind, 3, [even(*case, 3, 20, dtype=dtype) for case in names.items()])


@KINDS
@pytest.mark.parametrize("case", [case for case in registered() if case[0] == "all_reduce"], ids=named)
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_floats_are_the_same_bits_on_all_ranks(case: Case, kind: str, dtype: str) -> None:
    for size in sizes_of(*case):
        call = even(*case, size, 203, dtype=np.dtype(dtype))
        rng = np.random.default_rng(size)
        given = [(rng.standard_normal(203) * 10.0 ** rng.integers(-2, 3, 203)).astype(dtype) for _ in range(size)]
        with engines(kind, size) as ranks:
            outputs = on_every(ranks, partial(_one, call, given))
        assert len({output.tobytes() for output in outputs}) == 1
        wide = np.sum([a.astype(np.complex128) for a in given], axis=0)
        scale = np.sum([np.abs(a).astype(np.float64) for a in given], axis=0)
        assert (np.abs(outputs[0] - wide) <= scale * size * np.finfo(dtype).eps).all()


@KINDS
@algorithms(reduces=True, ordered=True)
def test_custom_ops_keep_rank_order(case: Case, kind: str) -> None:
    for size in sizes_of(*case):
        roots = range(size) if case in registered(rooted=True) else range(1)
        op = matrix_product()
        whole = [Call(*case, size, counts=(n,) * size, unit=4, op=op, root=root) for n in (0, 4, 12) for root in roots]
        check(kind, size, whole)


@KINDS
@algorithms(reduces=True)
def test_custom_ops_that_commute(case: Case, kind: str) -> None:
    op = ReduceOp.custom(lambda a, b: a + b, commutative=True)
    for size in sizes_of(*case, largest=5):
        check(kind, size, [even(*case, size, 29, op=op)])


@KINDS
@algorithms()
def test_segments(case: Case, kind: str) -> None:
    """Plans cut into several segments; an engine is free to run them whole."""
    for size in sizes_of(*case, largest=5):
        calls = [even(*case, size, 300 * size, segments=segments, inplace=inplace) for segments, inplace in
                 ((2, False), (5, False), (3, True))]  # fmt: skip
        check(kind, size, calls)


def test_the_register_is_full() -> None:
    assert {collective for collective, _ in REGISTER} == {
        "all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "gather", "scatter",
        "scan", "exscan", "barrier",
    }  # fmt: skip
