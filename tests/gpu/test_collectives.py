"""On GPUs: all collectives, dtypes and ops, the memory that arrays may lie in, and the ways of calling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.gpu import calls, given, jobs, matrix, memory
from tests.gpu.kits import Cupy, Kit, Torch

SIZES = pytest.mark.parametrize("size", [2, 4, 8])
CAPTURED = ("memop", "spin")


def kits(size: int) -> list[Callable[[int], Kit]]:
    """Torch takes its time to begin, so it is there for one size only."""
    return [Cupy, Torch] if size == 4 else [Cupy]


@SIZES
def test_every_collective(size: int) -> None:
    assert jobs.found(size, lambda mode: [matrix.every_collective], kits(size)) == []


@SIZES
def test_every_dtype_and_op(size: int) -> None:
    checks: list[jobs.Check] = [matrix.every_dtype_and_op, matrix.rounded_once, matrix.unusual_numbers]
    assert jobs.found(size, lambda mode: checks, [Cupy]) == []


@SIZES
def test_every_op_of_dtypes_that_torch_alone_has(size: int) -> None:
    narrow = partial(matrix.every_dtype_and_op, dtypes=("bfloat16", "float8_e4m3fn", "float8_e5m2"))
    checks: list[jobs.Check] = [narrow, matrix.rounded_once, matrix.unusual_numbers]
    assert jobs.found(size, lambda mode: checks, [Torch]) == []


@SIZES
def test_memory(size: int) -> None:
    checks: list[jobs.Check] = [
        memory.offsets,
        memory.small_elements_anywhere,
        memory.memory_comes_and_goes,
        memory.memory_that_cannot_be_shared,
        memory.streams,
    ]
    assert jobs.found(size, lambda mode: checks, kits(size)) == []


@SIZES
def test_what_is_given(size: int) -> None:
    assert jobs.found(size, lambda mode: given.EVERY, kits(size)) == []


@SIZES
def test_calls(size: int) -> None:
    checks: list[jobs.Check] = [
        calls.results, calls.counts, calls.asynchronous, calls.handles, calls.ops_of_the_user, calls.mistakes,
        calls.mismatches,
    ]  # fmt: skip
    assert jobs.found(size, lambda mode: checks, kits(size)) == []


@SIZES
def test_graphs(size: int) -> None:
    graphs = [partial(calls.graphs, captures=captures) for captures in (False, True)]
    assert jobs.found(size, lambda mode: [graphs[mode in CAPTURED]], kits(size)) == []
