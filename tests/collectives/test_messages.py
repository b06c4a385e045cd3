"""send, recv and sendrecv."""

from __future__ import annotations

import numpy as np
import pytest

import collx
from collx import Communicator
from tests.collectives.numbers import same
from tests.ranks import ranks


def around(comm: Communicator) -> None:
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    for length in (0, 1, 1000, 300_000):
        x, out = np.full(length, float(comm.rank)), np.empty(length)
        assert comm.sendrecv(x, right, out, left) is out
        same(out, np.full(length, float(left)))
        assert comm.sendrecv(x, right, x, left, tag=3) is x
        same(x, out)
        work = comm.sendrecv(x, right, out, left, async_op=True)
        assert work.wait() is out
        same(out, np.full(length, float((left - 1) % comm.size)))


def pairs(comm: Communicator) -> None:
    if comm.rank == 0:
        for peer in range(1, comm.size):
            comm.send(np.arange(5) * peer, peer)
            comm.send(np.array(peer, np.int8), peer, tag=7)
        requests = [comm.recv(np.empty(3), peer, async_op=True) for peer in range(1, comm.size)]
        for peer, work in enumerate(requests, start=1):
            same(work.wait(), np.full(3, float(peer)))
    else:
        out = np.empty(5, np.int64)
        assert comm.recv(out, 0) is out
        same(out, np.arange(5) * comm.rank)
        small = np.empty((), np.int8)
        comm.recv(small, 0, tag=7)
        assert small == comm.rank
        assert comm.send(np.full(6, float(comm.rank))[::2], 0) is None
    comm.barrier()


def tags_sort_messages(comm: Communicator) -> None:
    if comm.rank == 0:
        for tag in (5, 1, 3):
            comm.send(np.array([tag]), 1, tag)
        comm.send(np.array([6]), 1, 5)
    elif comm.rank == 1:
        for tag, wanted in ((1, 1), (5, 5), (3, 3), (5, 6)):
            same(comm.recv(np.empty(1, np.int64), 0, tag), np.array([wanted]))
    comm.barrier()


def beside_collectives(comm: Communicator) -> None:
    """A message under way does not hold up collectives, nor they it."""
    peer = comm.size - 1 - comm.rank
    if comm.rank != peer:
        receiving = comm.recv(np.empty(1000), peer, async_op=True)
        comm.barrier()
        same(comm.all_reduce(np.ones(2)), np.full(2, float(comm.size)))
        comm.send(np.full(1000, float(comm.rank)), peer)
        same(receiving.wait(), np.full(1000, float(peer)))
    else:
        comm.barrier()
        comm.all_reduce(np.ones(2))


def to_oneself(comm: Communicator) -> None:
    me = comm.rank
    comm.send(np.arange(4), me, tag=2)
    comm.send(np.arange(4) + 1, me, tag=2)
    same(comm.recv(np.empty(4, np.int64), me, 2), np.arange(4))
    same(comm.recv(np.empty(4, np.int64), me, 2, async_op=True).wait(), np.arange(4) + 1)
    same(comm.sendrecv(np.ones(2), me, np.zeros(2), me), np.ones(2))
    early = [comm.recv(np.empty(2), me, 9, async_op=True) for _ in range(2)]  # as rings that receive first do
    assert not early[0].done()
    with pytest.raises(collx.TimeoutError, match="from itself"):
        early[0].wait(timeout=0.01)
    with pytest.raises(ValueError, match="24 bytes"):
        comm.send(np.ones(3), me, 9)
    for number in (1.0, 2.0):
        comm.send(np.full(2, number), me, 9)
    for work, number in zip(early, (1.0, 2.0), strict=True):
        same(work.wait(), np.full(2, number))
    with pytest.raises(ValueError, match="nothing with tag 2"):
        comm.recv(np.empty(4), me, 2)
    comm.send(np.arange(4), me)
    with pytest.raises(ValueError, match="32 bytes"):
        comm.recv(np.empty(5), me)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_messages(kind: str, size: int) -> None:
    for body in (around, pairs, beside_collectives, to_oneself):
        ranks(kind, size, body)


def test_tags_sort_messages(kind: str) -> None:
    ranks(kind, 2, tags_sort_messages)


def wrong_length(comm: Communicator) -> None:
    if comm.rank == 0:
        comm.send(np.arange(4), 1)
    else:
        with pytest.raises(collx.MismatchError, match="rank 0"):
            comm.recv(np.empty(3, np.int64), 0)


def test_a_message_of_another_length_is_a_mismatch(kind: str) -> None:
    ranks(kind, 2, wrong_length)
