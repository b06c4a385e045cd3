"""Schedules of the user's own: served as the built-in ones are, and refused before anything is sent where wrong."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collx
from collx import AbortedError, Communicator, MismatchError, Recv, ReduceOp, Schedule, ScheduleError, Send
from collx.collectives import COLLECTIVES
from collx.planner import make_plan
from collx.request import Request
from collx.schedule import REGISTER, Builder
from collx.types import reduce_op
from collx.verify import kept
from collx.verify.own import own
from tests.collectives.numbers import same
from tests.collectives.test_algorithms import affine, shape_of, wanted
from tests.ranks import ranks

ALIKE = {"all_reduce": "two_shot", "scan": "doubling", "exscan": "doubling", "barrier": "dissemination"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own.cache_clear()
    yield
    own.cache_clear()


def star(rank: int, size: int) -> Schedule:
    """Rank 0 reduces what everybody sends, and sends everybody the result."""
    schedule = Schedule(1)
    if rank > 0:
        return schedule.round(Send(0, to=0)).round(Recv(0, source=0))
    others = range(1, size)
    schedule.round(*(Recv(0, source=peer, reduce="right") for peer in others))
    return schedule.round(*(Send(0, to=peer) for peer in others))


def forgetful(rank: int, size: int) -> Schedule:
    """The star, but rank 0 forgets to tell its last peer."""
    schedule = star(rank, size)
    if rank == 0:
        schedule.rounds[-1] = schedule.rounds[-1][:-1]
    return schedule


def ring(rank: int, size: int) -> Schedule:
    return REGISTER["all_reduce", "ring"].builder(rank, size)


def of_their_own(collective: str) -> Builder:
    """A user's function of the same shape as a built-in one. One object for all ranks, as a user's would be."""
    builder = REGISTER[collective, ALIKE.get(collective, "direct")].builder
    if "root" in inspect.signature(builder).parameters:
        return lambda rank, size, root: builder(rank, size, root)
    return lambda rank, size: builder(rank, size)


OWN = {collective: of_their_own(collective) for collective in COLLECTIVES}


def every_collective(comm: Communicator) -> None:
    rng = np.random.default_rng(comm.size)
    comm.barrier(algorithm=OWN["barrier"])
    for collective, function in OWN.items():
        if collective == "barrier":
            continue
        for length, root in itertools.product((0, 1, 1000, 60_001), {0, comm.size - 1}):
            count = shape_of(collective, length, comm.size)
            given = [rng.integers(0, 100, count).astype(np.float64) for _ in range(comm.size)]
            keywords = {"root": root} if COLLECTIVES[collective].rooted else {}
            result = getattr(comm, collective)(given[comm.rank].copy(), **keywords, algorithm=function)
            expected = wanted(collective, given, comm.rank, root)
            if expected is None:
                assert result is None
            else:
                same(result, expected)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_collective_takes_a_function(kind: str, size: int) -> None:
    ranks(kind, size, every_collective)


def every_way_to_call(comm: Communicator) -> None:
    x = np.arange(5.0) + comm.rank
    expected = 5 * [0.0] + np.arange(5.0) * comm.size + sum(range(comm.size))
    for _ in range(3):
        same(comm.all_reduce(x, algorithm=star), expected)
    y = x.copy()
    same(comm.all_reduce(y, out=y, algorithm=star), expected)
    same(comm.all_reduce(x, algorithm=star, async_op=True).wait(), expected)
    again = comm.plan("all_reduce", x, algorithm=star)
    same(again(), expected)
    same(again(async_op=True).wait(), expected)
    same(comm.all_reduce(x, algorithm=lambda rank, size: star(rank, size)), expected)  # a new one in every call


def test_every_way_to_call_takes_a_function(kind: str) -> None:
    ranks(kind, 3, every_way_to_call)


@pytest.mark.parametrize("collective", sorted(set(COLLECTIVES) - {"barrier"}))
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_plan_is_that_of_the_built_in_of_the_same_shape(collective: str, size: int) -> None:
    whole = not COLLECTIVES[collective].per_rank
    root = size - 1 if COLLECTIVES[collective].rooted else 0
    for elements, rank in itertools.product((3, 100_000), range(size)):
        request = Request(
            collective, (elements,) if whole else (elements,) * size, np.dtype(np.float32),
            ALIKE.get(collective, "direct"), reduce_op("sum") if COLLECTIVES[collective].reduces else None, root,
            given=(elements,) * size if collective == "all_to_all" else (),
        )  # fmt: skip
        known, _ = make_plan(request, rank, size, 1 << 16, 2)
        mine, _ = make_plan(request._replace(algorithm=OWN[collective]), rank, size, 1 << 16, 2)
        assert mine.algorithm.startswith("<lambda>@")
        assert replace(mine, algorithm=known.algorithm) == known


# -- wrong ones --------------------------------------------------------------------------------------


def raising(rank: int, size: int) -> Schedule:
    raise LookupError(f"no idea\nwhat rank {rank} could do")


def endless(rank: int, size: int) -> Schedule:
    return star(rank, size).round(Recv(0, source=(rank + 1) % size)).round(Send(0, to=(rank - 1) % size))


WRONG: dict[str, tuple[Any, str]] = {
    "incomplete": (forgetful, "rank 2, round 1: rank 0 has no Send for (0,) due from it"),
    "deadlock": (endless, "deadlock"),
    "raises": (raising, "rank 0: the function raised LookupError: no idea what rank 0 could do"),
    "no schedule": (lambda rank, size: [Send(0, to=1)], "rank 0: the function returned no Schedule, but list"),
    "no ops": (lambda rank, size: Schedule(1).round("Send"), "rank 0: 'Send' is not made of blocks and ranks"),  # type: ignore[arg-type]
    "no rounds": (lambda rank, size: Schedule(1, [Send(0, to=1)]), "rank 0: Send((0,), to=1) is not made of"),  # type: ignore[list-item]
    "no blocks": (lambda rank, size: Schedule(0), "cannot be cut into 0 blocks"),
    "half blocks": (lambda rank, size: Schedule(1.5), "rank 0: Schedule(blocks=1.5, rounds=[]) is not made of"),  # type: ignore[arg-type]
    "too many blocks": (lambda rank, size: Schedule(10**6), "1000000 blocks are too many"),
    "unlike blocks": (lambda rank, size: Schedule(1 + rank), "rank 1 cuts the buffer into 2 blocks, rank 0 into 1"),
    "no such rank": (lambda rank, size: Schedule(1).round(Send(0, to=size)), "there is no rank 3 among 3"),
    "no such block": (lambda rank, size: Schedule(1).round(Send(-1, to=1 - rank)), "there is no block -1"),
    "nothing": (lambda rank, size: Schedule(1), "rank 0 ends with block 0 of rank 0 in block 0, expected"),
    "other arguments": (lambda rank: Schedule(1), "rank 0: the function raised TypeError: "),
    "unreduced": (lambda rank, size: REGISTER["all_gather", "ring"].builder(rank, size), "all_reduce by <lambda> on"),
}


def refused(comm: Communicator, function: Any) -> str:
    x = np.ones(4)
    with pytest.raises(ScheduleError) as caught:
        comm.all_reduce(x, algorithm=function)
    with pytest.raises(ScheduleError):
        comm.plan("all_reduce", x, algorithm=function)
    same(comm.all_reduce(x), x * comm.size)  # as good as before
    return str(caught.value)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_schedule_is_refused_alike_on_every_rank(kind: str, what: str) -> None:
    function, message = WRONG[what]
    told = ranks(kind, 3, refused, function)
    assert message in told[0]
    assert told[0].startswith("all_reduce by ")
    assert "on 3 ranks" in told[0]
    assert "\n" not in told[0]
    assert told == told[:1] * 3


def test_what_is_no_algorithm_at_all(kind: str) -> None:
    def body(comm: Communicator) -> None:
        x = np.ones(4)
        for wrong, message in ((5, "not int"), ([star], "not list")):
            with pytest.raises(TypeError, match=message):
                comm.all_reduce(x, algorithm=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be hashable"):
            comm.all_reduce(x, algorithm=Unhashable())
        same(comm.all_reduce(x), x * comm.size)

    ranks(kind, 2, body)


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, rank: int, size: int) -> Schedule:
        return star(rank, size)


def test_a_function_that_changes_its_mind_is_refused() -> None:
    turns = itertools.count()

    def fickle(rank: int, size: int) -> Schedule:
        return star(rank, size) if next(turns) < size else ring(rank, size)

    request = Request("all_reduce", (100,), np.dtype(np.float64), fickle, reduce_op("sum"))
    with pytest.raises(ScheduleError, match=r"all_reduce by fickle on 3 ranks: rank \d has another one each time"):
        make_plan(request, 1, 3, 1 << 16, 2)


def disagreeing(comm: Communicator) -> str:
    with pytest.raises((MismatchError, AbortedError)) as caught:
        comm.all_reduce(np.ones(4), algorithm=(with_a_name_that_is_longer_than_what_records_hold, ring)[comm.rank])
    return f"{type(caught.value).__name__}: {caught.value}"


def with_a_name_that_is_longer_than_what_records_hold(rank: int, size: int) -> Schedule:
    return star(rank, size)


def test_ranks_with_unlike_functions_mismatch(kind: str) -> None:
    told = [text for text in ranks(kind, 2, disagreeing) if text.startswith("MismatchError")]
    assert told
    assert all(re.search(r"with_a_name_that_is_longer\w*@[0-9a-f]{8}\b", text) for text in told)
    assert all(re.search(r"ring@[0-9a-f]{8}\b", text) for text in told)


def depends_on_the_rank_that_asks(comm: Communicator) -> str:
    def own_view(rank: int, size: int) -> Schedule:
        return (star, ring)[comm.rank](rank, size)

    with pytest.raises((MismatchError, AbortedError)) as caught:
        comm.all_reduce(np.ones(4), algorithm=own_view, timeout=20)
    return type(caught.value).__name__


def test_a_function_that_is_another_on_each_rank_mismatches(kind: str) -> None:
    assert "MismatchError" in ranks(kind, 2, depends_on_the_rank_that_asks)


# -- what a proof finds out --------------------------------------------------------------------------


def in_order_or_not_at_all(comm: Communicator) -> None:
    op = ReduceOp.custom(affine)
    given = [np.random.default_rng(r).integers(-3, 4, (6, 2)) for r in range(comm.size)]
    expected = given[0]
    for array in given[1:]:
        expected = affine(expected, array)
    same(comm.all_reduce(given[comm.rank], op, algorithm=star), expected)
    with pytest.raises(ValueError, match="cannot use 'ring' here: it does not keep rank order"):
        comm.all_reduce(given[comm.rank], op, algorithm=ring)
    commutes = ReduceOp.custom(np.maximum, commutative=True)
    same(comm.all_reduce(given[comm.rank], commutes, algorithm=ring), np.maximum.reduce(given))


def test_non_commutative_ops_need_a_function_that_keeps_rank_order(kind: str) -> None:
    ranks(kind, 4, in_order_or_not_at_all)


def counted(comm: Communicator) -> None:
    rank, size = comm.rank, comm.size
    counts = list(range(1, size + 1))
    x = np.full(counts[rank], float(rank))
    same(comm.all_gather(x, counts=counts, algorithm=OWN["all_gather"]), np.repeat(np.arange(size * 1.0), counts))
    bruck = REGISTER["all_to_all", "bruck"].builder
    y, sent, received = np.full(sum(counts), float(rank)), counts, [counts[rank]] * size
    keywords: Any = {"send_counts": sent, "recv_counts": received}
    same(comm.all_to_all(y, **keywords, algorithm=OWN["all_to_all"]), np.repeat(np.arange(size * 1.0), received))
    with pytest.raises(ValueError, match="it needs blocks of one size, and the counts differ"):
        comm.all_to_all(y, **keywords, algorithm=lambda rank, size: bruck(rank, size))
    same(comm.all_to_all(np.arange(size) + rank, algorithm=bruck), rank + np.arange(size))


def test_counts_need_a_function_that_can_serve_them(kind: str) -> None:
    ranks(kind, 4, counted)


def test_all_to_all_by_way_of_scratch_serves_no_counts() -> None:
    def detour(rank: int, size: int) -> Schedule:
        schedule = OWN["all_to_all"](rank, size)
        first = [replace_block(op, 2 * size) for op in schedule.rounds[0]]
        return Schedule(size, [tuple(first)]).round(collx.Copy(2 * size + (rank + 1) % size, (rank + 1) % size))

    def replace_block(op: Any, base: int) -> Any:
        return Recv(base + op.source, source=op.source) if isinstance(op, Recv) else op

    assert own(detour, "all_to_all", 2, 0).uniform
    assert not own(OWN["all_to_all"], "all_to_all", 2, 0).uniform


# -- the proof is kept -------------------------------------------------------------------------------


def no_proof(*_: object, **__: object) -> None:
    raise AssertionError("proved again")


def files() -> list[Path]:
    return sorted(kept.folder().iterdir())


def test_a_proof_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = own(star, "all_reduce", 4, 0)
    own.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr("collx.verify.own.prove_schedules", no_proof)
        second = own(star, "all_reduce", 4, 0)
        assert (second.name, second.ordered, second.uniform) == (first.name, first.ordered, first.uniform)
        assert (second.rounds(4), second.volume(4)) == (2, Fraction(3))
        for other in ((star, "all_reduce", 5, 0), (ring, "all_reduce", 4, 0), (star, "reduce", 4, 0)):
            with pytest.raises(AssertionError):
                own(*other)
        patched.setattr("collx.verify.own.__version__", "0.0.0")
        own.cache_clear()
        with pytest.raises(AssertionError):
            own(star, "all_reduce", 4, 0)
    assert len(files()) == 1


def test_what_is_proved_are_the_schedules_not_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    own(star, "all_reduce", 4, 0)
    monkeypatch.setattr("collx.verify.own.prove_schedules", no_proof)
    own(lambda rank, size: star(rank, size), "all_reduce", 4, 0)
    with pytest.raises(AssertionError):
        own(forgetful, "all_reduce", 4, 0)


def test_a_wrong_schedule_is_not_kept() -> None:
    with pytest.raises(ScheduleError):
        own(forgetful, "all_reduce", 4, 0)
    assert not kept.folder().exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff\x00", b'{"volume": "1/0"}', b"[" * 5000])
def test_a_file_that_cannot_be_read_is_replaced(content: bytes) -> None:
    own(star, "all_reduce", 4, 0)
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(content)
    own.cache_clear()
    assert own(star, "all_reduce", 4, 0).ordered
    assert file.read_bytes() == whole
    assert files() == [file]


@pytest.mark.parametrize("place", ["/dev/null", "/proc", "taken", "key"])
def test_no_cache_is_no_error(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(star, "all_reduce", 4, 0)
    own.cache_clear()
    if place == "key":  # a folder lies where the file would be
        (file,) = files()
        file.unlink()
        file.mkdir()
    else:
        (tmp_path / "taken").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
    assert own(star, "all_reduce", 4, 0).ordered
