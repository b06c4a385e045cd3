"""What a call that cannot succeed does: it raises on every rank, names who and what, and nobody waits on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from collx.engine import Engine, ReferenceEngine
from collx.errors import AbortedError, ClosedError, CollxError, MismatchError, RankFailedError, TimeoutError
from collx.transports.conformance import run_threads
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.types import Array, ReduceOp
from tests.calls import Call, even, registered
from tests.harness import ENGINES, TIMEOUT, engines, make_plan, reference_engines
from tests.oracle import inputs

KINDS = pytest.mark.parametrize("kind", ENGINES)


def attempt(call: Call, rank: int, engine: Engine, sequence: int = 1, timeout: float = TIMEOUT) -> Exception | None:
    """Run the call and return what it raises."""
    plan = make_plan(call, rank, engine.capacity, engine.window)
    given, output = inputs(call)[rank], np.zeros(plan.output_bytes, np.uint8)
    try:
        engine.run(engine.prepare(plan, call.op), given.ctypes.data, output.ctypes.data, sequence, timeout)
    except Exception as error:
        return error
    return None


def failures(kind: str, calls: list[Call]) -> list[Exception | None]:
    """What each rank's own call raises, all ranks being in one communicator."""
    with engines(kind, len(calls)) as ranks:
        return run_threads(len(calls), lambda rank: attempt(calls[rank], rank, ranks[rank]))


RING = even("all_reduce", "ring", 2, 10)


@KINDS
@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("algorithm", even("all_reduce", "recursive_doubling", 2, 10)),
        ("collective", even("reduce_scatter", "ring", 2, 10)),
        ("dtype", even("all_reduce", "ring", 2, 10, dtype=np.dtype(np.float64))),
        ("op", even("all_reduce", "ring", 2, 10, op=ReduceOp("max"))),
        ("count", even("all_reduce", "ring", 2, 20)),
    ],
)
def test_mismatches_are_told(kind: str, what: str, other: Call) -> None:
    errors = failures(kind, [RING, other])
    for error in errors:
        assert isinstance(error, MismatchError)
        assert "rank 0" in str(error)
        assert "rank 1" in str(error)
        assert f"{what} differs: " in str(error)


@pytest.mark.parametrize("rendezvous", [False, True])
def test_a_mismatch_names_both_calls(rendezvous: bool) -> None:
    kind = "reference-rendezvous" if rendezvous else "reference"
    errors = failures(kind, [RING, even("all_to_all", "pairwise", 2, 3)])
    assert all(isinstance(error, MismatchError) for error in errors)
    assert "collective differs: " in str(errors[0])
    assert "all_reduce" in str(errors[0])
    assert "all_to_all" in str(errors[0])


@pytest.mark.parametrize("algorithm", ["direct", "tree"])
@pytest.mark.parametrize("late", [1, 2])
def test_a_root_is_never_two_calls_ahead_of_another_call(algorithm: str, late: int) -> None:
    """It hears nobody; still it raises in the call in which a rank makes another one, or in its next."""
    calls = [even("broadcast", algorithm, 3, 10)] * 3
    calls[late] = even("reduce", "direct", 3, 10, root=2)
    ended = threading.Event()  # never, as it must be; so the late rank does not wait for long

    with engines("native", 3) as ranks:

        def body(rank: int) -> Exception | None:
            if rank == late:
                ended.wait(0.1)
            for sequence in (1, 2):
                error = attempt(calls[rank], rank, ranks[rank], sequence)
                if error is not None:
                    return error
            ended.set()
            return None

        errors = run_threads(3, body)
    for error in errors:
        assert isinstance(error, MismatchError)
        assert "collective differs: " in str(error)


@pytest.mark.parametrize("collective", ["broadcast", "scatter", "reduce", "gather", "scan"])
def test_ranks_that_sleep_until_another_comes_are_woken(collective: str) -> None:
    """Many calls by ranks that must wait for a slow one which they do not hear."""
    algorithm = next(name for kind, name in registered(rooted=collective != "scan") if kind == collective)
    call = even(collective, algorithm, 3, 10, root=0)

    with engines("native", 3) as ranks:

        def body(rank: int) -> Exception | None:
            for sequence in range(1, 30):
                if rank == sequence % 3:
                    time.sleep(0.002)  # the others fall asleep
                error = attempt(call, rank, ranks[rank], sequence)
                if error is not None:
                    return error
            return None

        assert run_threads(3, body) == [None] * 3


@KINDS
def test_a_missing_rank_is_a_timeout(kind: str) -> None:
    with engines(kind, 2) as ranks:
        error = attempt(RING, 0, ranks[0], timeout=0.05)
        assert isinstance(error, TimeoutError)
        assert "rank 1" in str(error)
        assert isinstance(attempt(RING, 0, ranks[0], 2), ClosedError)
        assert isinstance(attempt(RING, 1, ranks[1]), CollxError)


@KINDS
def test_giving_up_reaches_who_waits(kind: str) -> None:
    call = even("all_reduce", "ring", 3, 10)
    with engines(kind, 3) as ranks:

        def body(rank: int) -> Exception | None:
            if rank == 2:
                ranks[2].fail("rank 2: ran out of coffee")
                return None
            return attempt(call, rank, ranks[rank])

        errors = run_threads(3, body)
    assert isinstance(errors[0], AbortedError)
    assert isinstance(errors[1], AbortedError)
    assert "ran out of coffee" in str(errors[0])
    assert "ran out of coffee" in str(errors[1])


@KINDS
def test_a_custom_op_that_raises_fails_everybody(kind: str) -> None:
    def broken(a: Array, b: Array) -> Array:
        raise ZeroDivisionError("on purpose")

    call = Call("all_reduce", "recursive_doubling", 2, counts=(4, 4), op=ReduceOp.custom(broken))
    assert all(isinstance(error, CollxError | ZeroDivisionError) for error in failures(kind, [call, call]))


@KINDS
def test_closing(kind: str) -> None:
    with engines(kind, 2) as ranks:
        room = np.zeros(8, np.uint8)
        work = ranks[0].start_recv(room.ctypes.data, 8, 1, 0, TIMEOUT)
        ranks[0].close()
        ranks[0].close()
        with pytest.raises(ClosedError):
            work.wait(TIMEOUT)
        assert isinstance(attempt(RING, 0, ranks[0]), ClosedError)
        assert isinstance(attempt(RING, 1, ranks[1]), RankFailedError)


@pytest.fixture(params=[False, True], ids=["buffered", "rendezvous"])
def hub(request: pytest.FixtureRequest) -> Iterator[MemoryHub]:
    hub = MemoryHub(4, rendezvous=request.param)
    yield hub
    for rank in range(4):
        hub.close(rank)


def test_a_death_is_named_by_every_survivor(hub: MemoryHub) -> None:
    call = even("all_reduce", "ring", 4, 100)
    ranks = [ReferenceEngine(MemoryTransport(hub, rank)) for rank in range(4)]
    started = threading.Barrier(4)

    def body(rank: int) -> Exception | None:
        started.wait()
        if rank == 2:
            hub.fail(2)
            return None
        return attempt(call, rank, ranks[rank])

    for rank, error in enumerate(run_threads(4, body)):
        if rank != 2:
            assert isinstance(error, RankFailedError), error
            assert error.ranks == (2,)


def test_a_custom_op_must_return_what_it_was_given() -> None:
    call = Call("all_reduce", "recursive_doubling", 2, counts=(4, 4), op=ReduceOp.custom(lambda a, b: (a + b)[:1]))
    errors = failures("reference", [call, call])
    assert any(isinstance(error, TypeError) and "must return what it was given" in str(error) for error in errors)


def test_a_custom_op_cannot_change_its_arguments() -> None:
    def greedy(a: Array, b: Array) -> Array:
        a += b
        return a

    call = Call("all_reduce", "recursive_doubling", 2, counts=(4, 4), op=ReduceOp.custom(greedy))
    errors = failures("reference", [call, call])
    assert any(isinstance(error, ValueError) and "read-only" in str(error) for error in errors)


def test_what_is_found_out_between_calls_is_what_the_next_one_raises() -> None:
    """By the thread that has moved the call before: nobody else could say it."""
    with reference_engines(2, rendezvous=False) as (mine, other):
        other.fail("rank 1 gave up", mismatch=True)
        assert isinstance(mine, ReferenceEngine)
        while mine._progress.over is None:
            mine._progress.turn()
        with pytest.raises(MismatchError, match="rank 1 gave up"):
            mine.send(0, 0, 1, 0, TIMEOUT)
        with pytest.raises(ClosedError, match="rank 1 gave up"):
            mine.send(0, 0, 1, 0, TIMEOUT)
