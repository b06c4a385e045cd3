"""Arrays of `comm.empty` and ordinary ones, mixed over ranks, arguments and algorithms: nobody can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx import Communicator, Work
from collx.schedule import REGISTER
from collx.types import Array
from tests.ranks import ranks

PLACES = ("plain", "heap", "slice", "one")  # one: input and output side by side in one array of comm.empty
UNORDERED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "gather", "scatter")


@dataclass(frozen=True)
class Case:
    """A call on all ranks: `length` elements per block, and where each rank's input and output lie."""

    collective: str
    algorithm: str | None
    length: int
    root: int
    inplace: bool
    places: tuple[str, ...]
    seed: int


def numbers(case: Case, rank: int, length: int) -> Array:
    return (np.arange(length, dtype=np.int64) * (2 * rank + 3) + 1000 * rank + case.seed) % 1_000_003


def places(comm: Communicator, place: str, given: int, wanted: int) -> tuple[Array, Array]:
    """Room for an input and an output."""
    if place == "plain":
        return np.empty(given, np.int64), np.empty(wanted, np.int64)
    if place == "heap":
        return comm.empty(given, np.int64), comm.empty(wanted, np.int64)
    if place == "slice":
        return comm.empty(given + 9, np.int64)[3 : 3 + given], comm.empty(wanted + 9, np.int64)[5 : 5 + wanted]
    both = comm.empty(given + wanted, np.int64)
    return both[wanted:], both[:wanted]


def before_and_after(case: Case, rank: int, size: int) -> tuple[Array, Array | None]:
    """What a rank gives and, where it gets a result, gets."""
    per_rank = case.collective in ("reduce_scatter", "all_to_all", "scatter")
    length = case.length * (size if per_rank else 1)
    given = [numbers(case, r, length) for r in range(size)]
    mine = slice(rank * case.length, (rank + 1) * case.length)
    at_root = rank == case.root
    after: dict[str, Any] = {
        "all_reduce": lambda: np.sum(given, 0),
        "reduce_scatter": lambda: np.sum(given, 0)[mine],
        "all_gather": lambda: np.concatenate(given),
        "all_to_all": lambda: np.concatenate([part[mine] for part in given]),
        "broadcast": lambda: given[case.root],
        "reduce": lambda: np.sum(given, 0) if at_root else None,
        "gather": lambda: np.concatenate(given) if at_root else None,
        "scatter": lambda: given[case.root][mine],
        "scan": lambda: np.sum(given[: rank + 1], 0),
        "exscan": lambda: np.sum(given[:rank], 0) if rank else np.zeros(length, np.int64),
    }
    return given[rank], after[case.collective]()


def in_one(case: Case, rank: int, x: Array, out: Array) -> tuple[Array, Array]:
    """Input and output as working in place has them, in the larger of the two."""
    mine = slice(rank * case.length, (rank + 1) * case.length)
    if x.size == out.size:
        return out, out
    return (x, x[mine]) if x.size > out.size else (out[mine], out)


def call(comm: Communicator, case: Case) -> tuple[Any, Array, Array | None]:
    """A call: its result or Work, its input, and what it is to give."""
    before, after = before_and_after(case, comm.rank, comm.size)
    x, out = places(comm, case.places[comm.rank], before.size, before.size if after is None else after.size)
    if case.inplace and after is not None:
        x, out = in_one(case, comm.rank, x, out)
    x[...] = before
    more: dict[str, Any] = {"algorithm": case.algorithm, "async_op": case.seed % 2 == 1, "timeout": 40.0}
    method = getattr(comm, case.collective)
    if case.collective == "broadcast":
        return method(x, case.root, **more), x, after
    if case.collective in ("reduce", "gather", "scatter"):
        more["root"] = case.root
    return method(x, out=out if after is not None else None, **more), x, after


def perform(comm: Communicator, cases: Sequence[Case]) -> None:
    """All in a row, then one by one; what was given is overwritten as soon as the call has ended."""
    for calls in (cases, *([case] for case in cases)):
        started = [call(comm, case) for case in calls]
        for case, (work, x, after) in zip(calls, started, strict=True):
            result = work.wait() if isinstance(work, Work) else work
            if after is None:
                assert result is None, case
            else:
                assert np.array_equal(result, after), case
            x[...] = -1


@st.composite
def cases(draw: st.DrawFn, size: int) -> Case:
    collective = draw(st.sampled_from([*UNORDERED, "scan", "exscan"]))
    names = [name for (what, name), one in REGISTER.items() if what == collective and one.sizes(size)]
    return Case(
        collective,
        draw(st.none() | st.sampled_from(names)),
        draw(st.integers(0, 12) | st.sampled_from([511, 512, 513, 3000, 8192, 8200, 40_000, 100_003])),
        draw(st.integers(0, size - 1)),
        draw(st.booleans()),
        tuple(draw(st.lists(st.sampled_from(PLACES), min_size=size, max_size=size))),
        draw(st.integers(0, 1000)),
    )


@settings(max_examples=12, deadline=None)
@given(data=st.data(), size=st.integers(2, 4))
def test_any_mixture_of_arrays(data: st.DataObject, size: int) -> None:
    ranks("shm", size, perform, data.draw(st.lists(cases(size), min_size=1, max_size=12)))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("inplace", [False, True], ids=["apart", "in-place"])
def test_every_algorithm_on_shared_arrays(size: int, inplace: bool) -> None:
    mixed = tuple(PLACES[rank % 2] for rank in range(size))
    every = [
        Case(collective, name, length, size - 1, inplace, where, seed)
        for (collective, name), one in sorted(REGISTER.items())
        if collective != "barrier" and one.sizes(size)
        for where in (("one",) * size, mixed)
        for length in (600, 30_011)
        for seed in (0, 1)  # synchronous and not
    ]
    for at in range(0, len(every), 120):
        ranks("shm", size, perform, every[at : at + 120])


def overlapping(comm: Communicator) -> None:
    """What is refused of ordinary arrays is refused of these, and leaves the communicator as it was."""
    size, rank = comm.size, comm.rank
    for memory in (np.zeros(20_000), comm.empty(20_000, np.float64)):
        memory[...] = rank
        x = memory[:8000]
        kept = memory.copy()
        for out in (memory[1:8001], memory[4000:12_000]):
            for method in (comm.all_reduce, comm.all_to_all, comm.scan, comm.exscan):
                with pytest.raises(ValueError, match="overlap"):
                    method(x, out=out)
                with pytest.raises(ValueError, match="overlap"):
                    method(out, out=x)
        with pytest.raises(ValueError, match="overlap"):
            comm.reduce_scatter(x, out=memory[1 : 1 + 8000 // size])
        with pytest.raises(ValueError, match="overlap"):
            comm.all_gather(x, out=memory[1 : 1 + 8000 * size])
        with pytest.raises(ValueError, match="overlap"):
            comm.all_reduce(memory[0:16_000:2], out=memory[8000:16_000])
        assert np.array_equal(memory, kept)
        result = comm.all_reduce(x, out=memory[8000:16_000])  # neighbours are apart
        assert (result == sum(range(size))).all()
        assert (x == rank).all()


def test_overlapping_parts_of_shared_arrays_are_refused(kind: str) -> None:
    ranks(kind, 2, overlapping)
