"""A sample of the random mismatches that `make mismatches` runs, and what it found."""

from __future__ import annotations

import functools
import random
import threading
import time

import numpy as np
import pytest

import collx
from collx import Communicator, Work, calls
from collx.agreement import unheard
from collx.errors import CollxError, MismatchError
from collx.planner import make_plan
from tests.failures import mismatches


def test_a_random_sample() -> None:
    found = mismatches.run(150, seed=random.randrange(10**9))
    assert not found.failures, "\n".join(found.failures)


@pytest.mark.parametrize(("elements", "silent"), [(0, [0]), (1, [])])
def test_empty_blocks_tell_nothing_of_who_is_behind_them(elements: int, silent: list[int]) -> None:
    """Rank 1 may pass on nothing before nothing has come from rank 0."""
    call = calls.exscan(2, 3, np.zeros(elements), "sum", algorithm="doubling")
    plan, _ = make_plan(call.request, 2, 3, capacity=1 << 16, window=2)
    assert unheard(plan) == silent


def ended(works: list[Work]) -> None:
    for work in works:
        work.wait(10)


def queued_behind(world: Communicator) -> None:
    """Rank 1 expects an element more than rank 0 sends it, and has its next call queued when that comes."""
    for _ in range(30):
        comm = world.split(0)
        assert comm is not None
        if comm.rank == 0:
            world.recv(np.zeros(1), 1)
        send, receive = ([28, 5], [29, 5]) if comm.rank else ([0, 28], [0, 28])
        x = np.ones(sum(send))
        works = [comm.all_to_all(x, send_counts=send, recv_counts=receive, async_op=True)]
        works.append(comm.exscan(np.ones(1), async_op=True))
        if comm.rank == 1:
            world.send(np.zeros(1), 0)
        with pytest.raises(MismatchError, match="count"):
            ended(works)
        comm.close()


def test_a_call_behind_one_that_failed_does_not_begin() -> None:
    """To rank 0, which hears nobody in exscan, it would say that all agreed until then."""
    collx.spawn(queued_behind, 2)


FURTHER, ODD = 14, 20  # calls that a root may be ahead of a rank on another host; the one that differs


def hears_nothing(comm: Communicator) -> int:
    """Rank 0 sends, and nothing comes back; rank 1 makes another call once. In which call this rank raises."""
    for call in range(1, 10 * ODD):
        x = np.ones(4, "float32" if (comm.rank, call) != (1, ODD) else "int32")
        try:
            comm.broadcast(x)
        except MismatchError:
            return call
    return 0


def test_a_root_without_shared_memory_learns_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLX_TRANSPORT", "tcp")
    root, leaf = collx.spawn(hears_nothing, 2)
    assert leaf == ODD
    assert ODD <= root <= ODD + FURTHER


# -- different communicators --------------------------------------------------------------------------


def crosswise(world: Communicator, threads: bool) -> str:
    """The last rank calls on another communicator than the others; what every rank's call raises."""
    first, second = world.split(0), world.split(0)
    assert first is not None
    assert second is not None
    stop = threading.Event()
    if threads:
        threading.Thread(target=stop.wait).start()  # it might make the calls that are waited for
    try:
        comm = second if world.rank == world.size - 1 else first
        for _ in range(2):
            comm.broadcast(np.ones(3), timeout=0.5 if threads and comm is first else 30.0)
    except CollxError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        stop.set()
    return ""


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_in_different_communicators_raise(size: int) -> None:
    for told in collx.spawn(crosswise, size, False):
        assert told.startswith(MismatchError.__name__)
        assert "communicator differs: " in told
        assert "communicator world/1.0" in told
        assert "communicator world/2.0" in told


def crosswise_with_loans(world: Communicator) -> str:
    """Ranks that lend to each other wait for one another too, and all of them for the one that is elsewhere."""
    first, second = world.split(0), world.split(0)
    assert first is not None
    assert second is not None
    counts = [27_342, 13_371, 42_679, 820]
    x = first.empty(sum(counts), np.uint8)
    x[:] = 1
    there = functools.partial(second.broadcast, np.ones(2), 1)
    with pytest.raises(MismatchError, match="communicator differs") as caught:
        there() if world.rank == 3 else first.reduce_scatter(x, counts=counts)
    first.close()
    second.close()
    return str(caught.value)


def test_who_waits_for_many_names_the_one_that_is_elsewhere() -> None:
    assert all("rank 3" in told for told in collx.spawn(crosswise_with_loans, 4))


def late_among_loans(world: Communicator) -> str:
    if world.rank == 3:
        with pytest.raises(CollxError):
            world.recv(np.zeros(1), 0, timeout=30)
        return "rank 3"
    x = world.empty(4 * 20_000, np.uint8)
    with pytest.raises(CollxError) as caught:
        world.reduce_scatter(x, timeout=0.3)
    return str(caught.value)


def test_a_timeout_names_who_is_late_among_many_that_wait() -> None:
    assert all("rank 3" in told for told in collx.spawn(late_among_loans, 4))


def crosswise_and_gone(world: Communicator) -> list[str]:
    """Who learns of it first closes both communicators at once."""
    raised = []
    for _ in range(100):
        first, second = world.split(0), world.split(0)
        assert first is not None
        assert second is not None
        try:
            (second if world.rank == 1 else first).all_gather(np.ones(2))
        except CollxError as error:
            raised.append(type(error).__name__)
        first.close()
        second.close()
    return raised


def test_who_leaves_after_a_mismatch_of_communicators_has_told_the_others() -> None:
    assert collx.spawn(crosswise_and_gone, 4) == [[MismatchError.__name__] * 100] * 4


def test_a_timeout_tells_in_which_communicator_a_rank_is() -> None:
    told = collx.spawn(crosswise, 2, True)
    assert any("is in broadcast #1 of communicator world/2.0" in text for text in told)


def in_one_order(world: Communicator, seed: int) -> None:
    """Calls on several communicators, as all ranks make them, by ranks that are late or have others under way."""
    groups = [world, world.split(0), world.split(world.rank // 2), world.split(0, -world.rank)]
    order, own = random.Random(seed), random.Random(f"{seed}/{world.rank}")
    works: list[collx.Work] = []
    for _ in range(300):
        comm, collective, apart = (
            order.choice(groups),
            order.choice(("broadcast", "all_reduce", "scan")),
            order.random(),
        )
        assert comm is not None
        if own.random() < 0.2:
            time.sleep(own.expovariate(500))  # so that others fall asleep in their waits
        if apart < 0.3:
            works.append(getattr(comm, collective)(np.ones(500), async_op=True))
        else:
            getattr(comm, collective)(np.ones(500))
        while works and own.random() < 0.3:
            works.pop(own.randrange(len(works))).wait()
    for work in works:
        work.wait()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_calls_on_many_communicators_are_no_mismatch(size: int) -> None:
    collx.spawn(in_one_order, size, random.randrange(10**6))


def revoked_elsewhere(world: Communicator) -> None:
    """One rank waits in a communicator that the other revokes before it comes to the next call."""
    group = world.split(0)
    assert group is not None
    for _ in range(20):
        if world.rank == 0:
            with pytest.raises(CollxError, match="revoked"):
                group.barrier()
        else:
            time.sleep(0.005)  # until it sleeps
            group.revoke()
        world.barrier()
        group = world.split(0)
        assert group is not None


def test_a_wait_that_was_revoked_is_no_mismatch() -> None:
    collx.spawn(revoked_elsewhere, 2)
