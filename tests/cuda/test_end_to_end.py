"""What tests/gpu checks on GPUs, few of a kind, on the stand-in: processes, their communicators, real kernels' text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import collx
from tests.cuda.kit import Fakes
from tests.cuda.standin import StandIn
from tests.gpu import calls, given, jobs, matrix, memory
from tests.gpu.found import Found
from tests.gpu.kits import Kit

Check = Callable[[Any, Kit], Found]


def found(size: int, mode: str, checks: list[Check], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLLX_CUDA_SYNC", mode)

    def rank(comm: Any) -> list[str]:
        driver = StandIn(mps=mode == "spin", jitter=0.0003, seed=comm.rank).install()
        kit = Fakes(driver)
        lines = [line for check in checks for line in jobs.run(comm, kit, check, mode)]
        comm.close()
        driver.end()
        return lines

    return [line for lines in collx.spawn(rank, size) for line in lines]


@pytest.mark.parametrize("mode", ["host", "event", "memop", "spin"])
def test_on_the_stand_in(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[Check] = [
        partial(matrix.every_collective, counts=[1001], dtypes=["bfloat16"]),
        matrix.rounded_once,
        memory.streams,
        memory.memory_that_cannot_be_shared,
        calls.results,
        calls.counts,
        calls.asynchronous,
        calls.handles,
        partial(calls.graphs, captures=mode in ("memop", "spin")),
        calls.ops_of_the_user,
        calls.mistakes,
        calls.mismatches,
        *(given.EVERY if mode == "event" else ()),
    ]
    assert found(3 if mode == "memop" else 2, mode, checks, monkeypatch) == []


def test_dtypes_and_addresses_on_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(matrix.every_dtype_and_op, count=3, dtypes=["bool", "uint16", "float16", "complex128"])
    checks: list[Check] = [few, matrix.unusual_numbers, memory.offsets, memory.small_elements_anywhere]
    assert found(2, "event", checks, monkeypatch) == []
