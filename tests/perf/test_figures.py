"""Bus bandwidth, times and what is checked, against nccl-tests' published formulas and against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.perf.arguments import parse
from collx.perf.collectives import MEASURED
from collx.perf.contributions import Contributions
from collx.perf.measure import Timing, timed
from collx.perf.points import Sweep
from collx.perf.sweep import run
from collx.types import DTYPES

World = Callable[..., list[Any]]

# nccl-tests doc/PERFORMANCE.md, "Summary"; gather, scatter and sendrecv from their sources.
PUBLISHED: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1,
    "reduce": lambda n: 1,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "sendrecv": lambda n: 1,
}
FOLDS = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
CHECKED = [name for name in MEASURED if name != "barrier"]


def swept(world: World, argv: list[str], size: int, corrupt: Callable[..., None] | None = None) -> Sweep:
    """Rank 0's sweep; every rank must have found the same."""
    options = parse([*argv, "-w", "1", "--iters", "3"])
    sweeps: list[Sweep] = world(size, lambda comm: run(comm, options), *([corrupt] if corrupt else []))
    assert len({sweep.wrong for sweep in sweeps}) == 1
    return sweeps[0]


@given(st.integers(1, 4096))
def test_the_factors_are_nccl_tests(size: int) -> None:
    for name, factor in PUBLISHED.items():
        assert MEASURED[name].busbw(size) == pytest.approx(factor(size), abs=1e-12)


@pytest.mark.parametrize("name", CHECKED)
def test_bandwidths_follow_from_size_and_time(name: str, world: World) -> None:
    sweep = swept(world, [name, "-b", "1K", "-e", "4K"], 4)
    for point in sweep.points:
        for cell in point.cells:
            assert cell.algbw == pytest.approx(point.nbytes / (cell.microseconds * 1e-6) / 1e9)
            assert cell.busbw == pytest.approx(cell.algbw * MEASURED[name].busbw(4))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("name", CHECKED)
def test_a_right_library_has_nothing_wrong(name: str, size: int, world: World) -> None:
    sweep = swept(world, [name, "-b", "4", "-e", "2K", "--check", "2"], size)
    assert sweep.points
    assert [cell.wrong for point in sweep.points for cell in point.cells] == [0] * len(
        [cell for point in sweep.points for cell in point.cells]
    )


@pytest.mark.parametrize("name", CHECKED)
def test_every_corrupted_element_is_counted(name: str, world: World) -> None:
    size, victim = 4, 0 if MEASURED[name].at_root == "receives" else 3
    random = np.random.default_rng(7)

    def corrupt(collective: str, rank: int, result: Any) -> None:
        if collective == name and rank == victim and result.dtype == np.float32:
            places = random.choice(len(result), 3, replace=False)
            result[places] += 1  # the float64 calls are the sweep's own agreement on times

    sweep = swept(world, [name, "-b", "4K", "-e", "4K"], size, corrupt)
    assert [cell.wrong for cell in sweep.points[0].cells] == [3] * len(sweep.points[0].cells)


def test_what_was_there_before_does_not_pass_for_a_result(world: World) -> None:
    options = parse(["all_reduce", "-b", "1K", "-e", "1K", "-w", "0", "--iters", "1"])

    def lazy(comm: Any) -> Sweep:
        honest = comm.all_reduce
        comm.all_reduce = lambda x, op, **more: honest(x, op, **more) if x.dtype != np.float32 else None
        return run(comm, options)

    cells = world(2, lazy)[0].points[0].cells
    assert all(cell.wrong > 0 for cell in cells)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("op", ["sum", "prod", "min", "max", "avg"])
@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_results_are_exact_in_any_order(op: str, dtype: np.dtype[Any], size: int) -> None:
    if (op == "avg" and dtype.kind in "biu") or (op in ("min", "max") and dtype.kind == "c"):
        return
    forward = Contributions(op, dtype, size, 3)
    expected = forward.expected(MEASURED["all_reduce"], 0, 0, 64, 64 // size)
    total = _in_pairs([forward.of(rank, 64) for rank in reversed(range(size))], FOLDS[op])
    assert expected is not None
    if op == "avg":
        real = np.dtype(total.real.dtype) if dtype.kind == "c" else dtype
        total = (total.view(real).astype(np.float64) / size).astype(real).view(dtype)
    np.testing.assert_array_equal(expected, total)


def _in_pairs(arrays: list[Any], fold: Callable[[Any, Any], Any]) -> Any:
    """The fold as a tree would do it, from the last rank to the first."""
    with np.errstate(all="ignore"):
        while len(arrays) > 1:
            odd = arrays[-1:] if len(arrays) % 2 else []
            arrays = [fold(a, b) for a, b in zip(arrays[::2], arrays[1::2], strict=False)] + odd
    return arrays[0]


def test_contributions_differ_by_rank_and_by_seed() -> None:
    first, second = (Contributions("sum", np.dtype(np.float32), 4, seed) for seed in (1, 2))
    assert not np.array_equal(first.of(0, 100), first.of(1, 100))
    assert not np.array_equal(first.of(0, 100), second.of(0, 100))
    np.testing.assert_array_equal(first.of(2, 100), Contributions("sum", np.dtype(np.float32), 4, 1).of(2, 100))


def test_the_time_is_the_slowest_rank_s(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from collx.perf import measure

    def measured(comm: Any) -> Timing:
        return timed(comm, lambda: None, 0, 5, 1.0)

    # Every rank's clock says that its calls take rank + 1 ms.
    import threading

    local = threading.local()
    monkeypatch.setattr(measure, "mean_time", lambda call, iterations: local.step)
    monkeypatch.setattr(measure, "each_time", lambda call, iterations: [local.step] * iterations)

    def ranked(comm: Any) -> Timing:
        local.step = (comm.rank + 1) * 1e-3
        return measured(comm)

    for timing in world(3, ranked):
        assert timing.mean == pytest.approx(3e-3)
        assert timing.each == pytest.approx((3e-3,) * 5)


def test_slow_calls_are_made_less_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from collx.perf import measure

    monkeypatch.setattr(measure, "mean_time", lambda call, iterations: 1.0)
    monkeypatch.setattr(measure, "each_time", lambda call, iterations: [1.0] * iterations)
    assert [len(t.each) for t in world(2, lambda comm: timed(comm, lambda: None, 5, 20, 5.0))] == [4, 4]
    assert [len(t.each) for t in world(2, lambda comm: timed(comm, lambda: None, 5, 20, 0.1))] == [2, 2]
    assert [len(t.each) for t in world(2, lambda comm: timed(comm, lambda: None, 5, 20, 50.0))] == [20, 20]


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300))
def test_percentiles_are_by_nearest_rank(times: list[float]) -> None:
    timing = Timing(0.0, tuple(times))
    ninety_nine = timing.percentile(99)
    assert ninety_nine in times
    assert sum(t <= ninety_nine for t in times) >= 0.99 * len(times)
    assert timing.percentile(50) == sorted(times)[len(times) // 2]
