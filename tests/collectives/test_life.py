"""Communicators from the first call to the last: what they tell, how they end, what they survive."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

import collx
from collx import Communicator
from tests.collectives.numbers import same
from tests.ranks import ranks


def attributes(comm: Communicator) -> None:
    text = repr(comm)
    assert f"rank {comm.rank} of {comm.size}" in text
    assert all(name in text for name in comm.transports)
    assert len(comm.hosts) == comm.size
    assert comm.local_rank == comm.rank
    assert not comm.closed
    with comm as same_one:
        assert same_one is comm
        comm.barrier(timeout=30)
    assert comm.closed
    assert "closed" in repr(comm)
    comm.close()
    for call in (
        lambda: comm.all_reduce(np.ones(2)),
        lambda: comm.send(np.ones(2), 0),
        lambda: comm.recv(np.ones(2), 0),
        lambda: comm.split(0),
        lambda: comm.plan("barrier"),
        lambda: comm.empty(3, float),
        comm.barrier,
    ):
        with pytest.raises(collx.ClosedError, match="closed"):
            call()


@pytest.mark.parametrize("size", [1, 3])
def test_attributes_and_closing(kind: str, size: int) -> None:
    ranks(kind, size, attributes)


def cannot_be_copied(comm: Communicator) -> None:
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            call(comm)
    gc.collect()  # a copy would have closed the original's engine
    comm.barrier()


def test_it_cannot_be_pickled_or_copied(kind: str) -> None:
    ranks(kind, 2, cannot_be_copied)


def after_an_error(comm: Communicator) -> None:
    if comm.rank == 0:
        with pytest.raises(collx.TimeoutError):
            comm.all_reduce(np.ones(3), timeout=0.2)
        for _ in range(2):
            with pytest.raises(collx.ClosedError, match=r"all_reduce #1 failed with TimeoutError"):
                comm.all_reduce(np.ones(3))
    else:
        with pytest.raises(collx.CollxError, match=r"waited 0.2 s|TimeoutError"):
            comm.recv(np.ones(3), 0)


def test_a_broken_communicator_names_the_first_error(kind: str) -> None:
    ranks(kind, 2, after_an_error)


def twice(call: Callable[[], object]) -> None:
    """A rank that has all it needs may notice at its next call only."""
    call()
    call()


def mismatched(comm: Communicator) -> None:
    call = comm.all_reduce if comm.rank == 0 else comm.all_gather
    with pytest.raises(collx.CollxError):
        twice(lambda: call(np.ones(3)))
    with pytest.raises(collx.ClosedError):
        comm.barrier()


def test_different_calls_raise_everywhere(kind: str) -> None:
    ranks(kind, 2, mismatched)


def leaving_one_after_the_other(world: Communicator) -> None:
    """A rank that lends waits for many readers, each of which leaves when it has read."""
    for _ in range(60):
        comm = world.split(0)
        assert comm is not None
        x = comm.empty(8192, np.uint8)
        x[:] = comm.rank
        everything = comm.all_gather(x)
        comm.close()
        same(everything[:: x.size], np.arange(world.size, dtype=np.uint8))


def test_ranks_that_leave_after_their_last_call_have_skipped_none() -> None:
    ranks("shm", 7, leaving_one_after_the_other)


def leaving_by_exception(comm: Communicator) -> str:
    if comm.rank == 1:
        with pytest.raises(KeyError), comm:
            raise KeyError("lost in rank 1")
        return ""
    with pytest.raises(collx.CollxError) as caught:
        comm.all_reduce(np.ones(2))
    return str(caught.value)


def test_an_exception_that_leaves_the_block_reaches_the_others(kind: str) -> None:
    assert "lost in rank 1" in ranks(kind, 2, leaving_by_exception)[0]


def forked(comm: Communicator) -> None:
    work = comm.all_reduce(np.ones(1), async_op=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for call in (lambda: comm.all_reduce(np.ones(2)), work.wait):
                with pytest.raises(collx.ClosedError, match="fork"):
                    call()
            text = "refused"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        comm.close()
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, closefd=True) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert text == "refused"
    same(work.wait(), np.ones(1) * comm.size)
    same(comm.all_reduce(np.ones(2)), np.full(2, float(comm.size)))  # the parent's is unharmed


def test_a_fork_does_not_inherit_it() -> None:
    ranks("shm", 2, forked)


PROGRAM = """
import numpy as np, collx
comm = collx.init()
work = comm.all_reduce(np.ones(3), async_op=True)
assert comm.all_reduce(np.arange(3.0)).tolist() == [0.0, 1.0, 2.0]
print(repr(comm))
"""


def test_a_lone_program_needs_no_launcher_and_no_closing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert "rank 0 of 1 over memory" in done.stdout
    assert done.stderr == ""


def test_public_names() -> None:
    for name in collx.__all__:
        assert getattr(collx, name) is not None
    with pytest.raises(AttributeError):
        collx.nonsense  # noqa: B018


def exits_well(comm: Communicator) -> bool:
    try:
        with comm:
            raise SystemExit(0)
    except SystemExit:
        return "SystemExit" not in str(comm._over)


def test_an_exit_without_error_from_a_with_block_is_no_failure() -> None:
    assert all(ranks("memory", 1, exits_well))


def many(comm: Communicator) -> int:
    """How many blocks of memory Python keeps for every communicator that was made, used and closed."""
    rounds, before = 300, 0
    for number in range(2 * rounds):
        if number == rounds:
            gc.collect()
            before = sys.getallocatedblocks()
        group = comm.split(0)
        assert group is not None
        with group:
            group.all_reduce(np.ones(4))
    gc.collect()
    return (sys.getallocatedblocks() - before) // rounds


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_what_is_closed_is_forgotten(kind: str) -> None:
    assert ranks(kind, 2, many) == [0, 0]
