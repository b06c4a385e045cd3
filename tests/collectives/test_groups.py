"""Groups: what many calls give when they are made together."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx import AbortedError, CollxError, Communicator, MismatchError, ReduceOp, TimeoutError, Work
from collx.fusion import Fusion
from collx.group import End
from collx.transports.conformance import run_threads
from collx.types import Array
from tests.ranks import ranks

DTYPES = ("int64", "float32", "int8", "bfloat16")
PER_RANK = ("reduce_scatter", "all_to_all", "scatter")
REDUCING = ("all_reduce", "reduce_scatter", "reduce", "scan", "exscan")
ROOTED = ("broadcast", "reduce", "gather", "scatter")
COUNTED = ("reduce_scatter", "all_gather", "gather", "scatter")


@dataclass(frozen=True)
class Case:
    """A call or a message around the ring; `how`: into out, in place of x, or into a new array."""

    what: str
    dtype: str
    length: int
    op: str
    root: int
    how: str
    uneven: bool
    async_op: bool
    strided: bool


def numbers(case: Case, rank: int, length: int) -> Array:
    values = (np.arange(length) * 3 + 5 * rank + case.root) % 4
    made = np.empty(2 * length if case.strided else length, np.dtype(case.dtype))[:: 2 if case.strided else 1]
    made[...] = values
    return made


def make(comm: Communicator, case: Case, x: Array, grouped: bool) -> Any:
    """The call: what it returns."""
    size, rank = comm.size, comm.rank
    more: dict[str, Any] = {"async_op": case.async_op}
    if case.what == "exchange":
        inbox = np.zeros(case.length, case.dtype)
        send = comm.send(x, (rank + 1) % size, case.root, async_op=case.async_op or not grouped)
        got = comm.recv(inbox, (rank - 1) % size, case.root, **more)
        return got if send is None or grouped else (send.wait(), got)[1]
    if case.what == "barrier":
        return comm.barrier()
    if case.what in REDUCING:
        more["op"] = case.op
    if case.what in ROOTED:
        more["root"] = case.root
    if case.uneven and case.what in COUNTED:
        more["counts"] = [case.length + r for r in range(size)]
    elif case.uneven and case.what == "all_to_all":
        more["send_counts"] = more["recv_counts"] = [case.length] * size
    if case.how == "inplace" and case.what in ("all_reduce", "reduce", "scan", "exscan", "all_to_all"):
        x = np.ascontiguousarray(x)
        more["out"] = x
    return getattr(comm, case.what)(x, **more)


def given_of(case: Case, rank: int, size: int) -> Array:
    rows = case.length
    if case.uneven and case.what in COUNTED:
        rows = sum(case.length + r for r in range(size)) if case.what in PER_RANK else case.length + rank
    elif case.what in PER_RANK:
        rows = case.length * size
    x = numbers(case, rank, rows)
    return np.ascontiguousarray(x) if case.what == "broadcast" else x


def settled(result: Any) -> Any:
    return result.wait() if isinstance(result, Work) else result


def perform(comm: Communicator, groups: Sequence[Sequence[Case]]) -> None:
    """Every group one by one, as a group twice, and as an asynchronous one."""
    for cases in groups:
        alone = [settled(make(comm, case, given_of(case, comm.rank, comm.size), False)) for case in cases]
        for async_op in (False, False, True):
            with comm.group(async_op=async_op) as group:
                found = [make(comm, case, given_of(case, comm.rank, comm.size), True) for case in cases]
            if async_op:
                assert group.work is not None
                assert group.work.wait() is None
            for case, one, together in zip(cases, alone, found, strict=True):
                assert isinstance(together, Work) == (case.async_op and case.what != "barrier"), case
                result = settled(together)
                assert (one is None) == (result is None), case
                if one is not None:
                    assert result.dtype == one.dtype, case
                    assert result.tobytes() == one.tobytes(), case


@st.composite
def cases(draw: st.DrawFn, size: int) -> Case:
    every = (*REDUCING, "all_gather", "all_to_all", "broadcast", "gather", "scatter", "exchange", "barrier")
    return Case(
        draw(st.sampled_from(every)),
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(0, 20) | st.sampled_from([511, 3000, 9000, 40_000])),
        draw(st.sampled_from(["sum", "max"])),
        draw(st.integers(0, size - 1)),
        draw(st.sampled_from(["new", "inplace"])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data(), size=st.integers(1, 4))
def test_a_group_gives_what_its_calls_give_one_by_one(data: st.DataObject, size: int) -> None:
    ranks("memory", size, perform, [data.draw(st.lists(cases(size), min_size=2, max_size=16))])


@pytest.mark.parametrize(("kind", "size"), [("shm", 3), ("tcp", 2)])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_and_between_processes(data: st.DataObject, kind: str, size: int) -> None:
    groups = st.lists(st.lists(cases(size), min_size=1, max_size=16), min_size=5, max_size=12)
    ranks(kind, size, perform, data.draw(groups))


def gradients(comm: Communicator) -> list[bytes]:
    """Results whose bits depend on the order of additions."""
    rng = np.random.default_rng(comm.rank)
    grads = [rng.standard_normal(length).astype(np.float32) for length in rng.permuted([0, 1, 700, 5000, 30_000] * 9)]
    grads = [np.asarray(x) for x in sorted(grads, key=len)]
    halves = [x[:50].astype(ml_dtypes.bfloat16) for x in grads]
    with comm.group():
        for x in (*grads, *halves):
            comm.all_reduce(x, "avg", out=x)
    return [x.tobytes() for x in (*grads, *halves)]


def test_all_ranks_get_the_same_bits(kind: str) -> None:
    first, *others = ranks(kind, 3, gradients)
    assert all(other == first for other in others)


def refusals(comm: Communicator) -> None:
    """What is wrong harms neither the group nor the communicator."""
    x = np.full(8, comm.rank + 1)
    with comm.group():
        result = comm.all_reduce(x)
        with pytest.raises(ValueError, match="unknown op"):
            comm.all_reduce(x, "som")
        with pytest.raises(ValueError, match="has no algorithm"):
            comm.all_reduce(x, algorithm="rung")
        with pytest.raises(ValueError, match="too short"):
            comm.all_reduce(x, out=np.empty(3, x.dtype))
        with pytest.raises(ValueError, match="to is 9"):
            comm.send(x, 9)
        with pytest.raises(ValueError, match="timeout"):
            comm.all_reduce(x, timeout=-1.0)
        with pytest.raises(ValueError, match="leave its block first"):
            comm.split(0)
        with pytest.raises(ValueError, match="leave its block first"), comm.group():
            raise AssertionError
        with pytest.raises(ValueError, match="wait after that"):
            comm.broadcast(x.copy(), async_op=True).wait()
    assert (result == sum(range(1, comm.size + 1))).all()


def drops(comm: Communicator) -> None:
    """A block that an exception leaves, or whose calls overlap, sends nothing."""
    x, y = np.full(8, comm.rank + 1), np.zeros(8, np.int64)
    work = None
    with contextlib.suppress(KeyError), comm.group():
        comm.all_reduce(x, out=y)
        comm.send(x, comm.rank)
        work = comm.all_reduce(x, async_op=True)
        raise KeyError
    assert work is not None
    assert work.done()
    with pytest.raises(ValueError, match="dropped with its group: KeyError"):
        work.wait()
    assert (y == 0).all()
    clashes: list[Callable[[], object]] = [
        lambda: (comm.all_reduce(x, out=x), comm.all_gather(x[7:])),
        lambda: (comm.all_reduce(x, out=y), comm.all_reduce(x, out=y)),
        lambda: (comm.scan(x, out=y), comm.recv(x[1:2], 0)),
    ]
    for clash in clashes:
        with pytest.raises(ValueError, match="calls of a group overlap"), comm.group():
            clash()
    with comm.group():  # one input may be read by many
        a, b = comm.all_reduce(x), comm.all_reduce(x, "max")
    assert (a == sum(range(1, comm.size + 1))).all()
    assert (b == comm.size).all()


def extras(comm: Communicator) -> None:
    """Handles, ops of the user's, buffers that are no arrays, several groups under way."""
    rank, size = comm.rank, comm.size
    x = np.full(5, rank)
    again = comm.plan("all_reduce", x, "max")
    again()
    first = ReduceOp.custom(lambda a, b: a)
    words = bytearray([rank] * 4)
    for turn in range(3):
        x[...] = rank + turn
        with comm.group() as group:
            handled = again()
            mine = comm.all_reduce(x, first)
            everybody = comm.all_gather(words)
            planned = comm.plan("barrier")
        planned()
        assert group.work is None
        assert (handled == size - 1 + turn).all()
        assert (mine == turn).all()
        assert everybody.tolist() == [r for r in range(size) for _ in range(4)]
    groups, results = [], []
    for turn in range(6):
        with comm.group(async_op=True) as group:
            results.append([comm.all_reduce(np.full(100 * length, turn + rank)) for length in range(5)])
        groups.append(group)
    comm.barrier()
    for turn, group in reversed(list(enumerate(groups))):
        assert group.work is not None
        group.work.wait(30.0)
        assert all((result == size * turn + sum(range(size))).all() for result in results[turn])


def own(comm: Communicator) -> None:
    refusals(comm)
    drops(comm)
    extras(comm)


def test_what_else_may_be_in_a_group(kind: str) -> None:
    ranks(kind, 2, own)


def late(comm: Communicator) -> None:
    x = np.ones(8)
    with comm.group():
        a, b = comm.all_reduce(x, timeout=40.0), comm.all_reduce(x, timeout=30.0)
    assert (a == 2).all()
    assert (b == 2).all()
    if comm.rank == 1:
        with pytest.raises(CollxError):
            comm.recv(x, 0)
        return
    group = comm.group(timeout=40.0)
    group.__enter__()
    comm.all_reduce(x)
    comm.all_reduce(x, timeout=0.2)
    with pytest.raises(TimeoutError, match=r"all_reduce #2.*0\.2"):
        group.__exit__(None, None, None)


def test_the_shortest_timeout_is_the_group_s(kind: str) -> None:
    ranks(kind, 2, late)


def differing(comm: Communicator, case: str) -> None:
    def zeros(*lengths: int) -> list[Array]:
        return [np.zeros(length) for length in lengths]

    rank = comm.rank
    lengths = {
        "order": ((5, 3), (3, 5)),
        "total": ((4, 6), (5, 5)),
        "number": ((3, 3), (3, 3, 3)),
        "mixed": ((3, 3),) * 2,
    }
    with comm.group():
        for at, x in enumerate(zeros(*lengths[case][rank])):
            comm.all_reduce(x)
            if case == "mixed" and at == rank:
                comm.broadcast(np.zeros(2))
    comm.barrier()


@pytest.mark.parametrize("case", ["order", "total", "number", "mixed"])
@pytest.mark.parametrize("kind", ["memory"])
def test_groups_that_differ_are_found(kind: str, case: str) -> None:
    with pytest.raises((MismatchError, AbortedError), match=r"differs: 2 calls|differs: 3 calls"):
        ranks(kind, 2, differing, case)


def test_a_buffer_is_lent_to_one_at_a_time() -> None:
    """Threads borrow and give back at once: those that complete asynchronous groups, and the caller's."""
    fusion = Fusion(0, 2, False, lambda nbytes: np.empty(nbytes, np.uint8))
    lent, switch = set[int](), sys.getswitchinterval()

    def use(rank: int) -> None:
        for turn in range(2000):
            buffer = fusion.borrow(1 << 16 + (turn + rank) % 3)
            assert buffer.nbytes == 1 << 16 + (turn + rank) % 3
            assert id(buffer) not in lent
            lent.add(id(buffer))
            lent.remove(id(buffer))
            fusion.give_back(buffer)

    sys.setswitchinterval(1e-6)
    try:
        run_threads(4, use)
    finally:
        sys.setswitchinterval(switch)


def test_a_wait_that_was_interrupted_unpacks_again() -> None:
    end, finished = End(), list[str]()

    def finish() -> None:
        with pytest.raises(ValueError, match="signal handler"):
            end.wait(1.0)
        finished.append("once")
        if len(finished) == 1:
            raise KeyboardInterrupt

    end.begin((), finish)
    with pytest.raises(KeyboardInterrupt):
        end.wait(1.0)
    for _ in range(2):
        end.wait(1.0)
    assert len(finished) == 2
