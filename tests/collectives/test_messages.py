"""send, recv, sendrecv, recv_any and probe."""

from __future__ import annotations

import os
import signal
import subprocess

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
    with pytest.raises(collx.TimeoutError, match=f"rank {me}"):
        early[0].wait(timeout=0.01)
    for number in (1.0, 2.0):
        comm.send(np.full(2, number), me, 9)
    for work, number in zip(early, (1.0, 2.0), strict=True):
        same(work.wait(), np.full(2, number))
    with pytest.raises(ValueError, match="nothing with tag 2"):
        comm.recv(np.empty(4), me, 2)
    comm.send(np.arange(4), me)
    with pytest.raises(ValueError, match="32 bytes"):
        comm.recv(np.empty(5), me)


def from_anybody(comm: Communicator) -> None:
    """Everybody sends everybody one message, this rank too: who asks for any gets each of them once."""
    for length in (1, 1000, 100_000):
        sending = [comm.send(np.full(length + i, comm.rank), i, tag=comm.rank, async_op=True) for i in range(comm.size)]
        seen = []
        for _ in range(comm.size):
            out = np.full(length + comm.size, -1)
            source, tag, nbytes = comm.recv_any(out)
            assert nbytes == 8 * (length + comm.rank)
            assert tag == source
            assert (out[: length + comm.rank] == source).all()
            assert (out[length + comm.rank :] == -1).all()
            seen.append(source)
        assert sorted(seen) == list(range(comm.size))
        for work in sending:
            assert work is not None
            work.wait()
        comm.barrier()


def probed(comm: Communicator) -> None:
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    assert comm.probe(wait=False) is None
    comm.barrier()
    for length in (0, 3, 100_000):
        sending = comm.send(np.full(length, comm.rank), right, tag=4, async_op=True)
        assert (
            comm.probe() == comm.probe(tag=4) == comm.probe(left, 4) == comm.probe(wait=False) == (left, 4, 8 * length)
        )
        assert comm.probe(tag=5, wait=False) is None
        out = np.empty(length, np.int64)
        assert comm.recv_any(out, left, async_op=True).wait() == collx.Envelope(left, 4, 8 * length)
        same(out, np.full(length, left))
        assert sending is not None
        sending.wait()
        assert comm.probe(wait=False) is None
        comm.barrier()


def too_long(comm: Communicator) -> None:
    """It is lost, and nothing else is."""
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    works = [comm.send(np.full(length, comm.rank), right, async_op=True) for length in (100_000, 4, 3)]
    with pytest.raises(collx.TruncatedError, match=f"rank {left} sent 800000 bytes with tag 0"):
        comm.recv_any(np.empty(3))
    with pytest.raises(collx.TruncatedError, match=f"rank {left} sent 32 bytes with tag 0"):
        comm.recv_any(np.empty(3), left, async_op=True).wait()
    same(comm.recv(np.empty(3, np.int64), left), np.full(3, left))
    for work in works:
        assert work is not None
        work.wait()
    comm.barrier()


def cancelled(comm: Communicator) -> None:
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    out = np.zeros(3, np.int64)
    works = [comm.recv_any(out, async_op=True), comm.recv(out, left, 7, async_op=True)]
    for work in works:
        assert work.cancel()
        assert work.done()
        assert not work.cancel()
        with pytest.raises(collx.CancelledError):
            work.wait()
    comm.barrier()
    sending = comm.send(np.full(3, comm.rank), right, async_op=True)
    assert sending is not None
    assert not sending.cancel()
    work = comm.recv_any(out, async_op=True)
    while not work.done():
        assert comm.probe(wait=False) is None  # it is that receive's
    assert not work.cancel()
    assert work.wait() == (left, 0, 24)
    same(out, np.full(3, left))
    sending.wait()
    comm.barrier()


def met(comm: Communicator) -> None:
    """A synchronous send ends when it is received, an ordinary one before."""
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    works = [comm.send(np.full(n, comm.rank), right, 1, synchronous=True, async_op=True) for n in (0, 2, 100_000)]
    works.append(comm.send(np.ones(1), right, 2, async_op=True))
    assert comm.probe(left, 2) == (left, 2, 8)
    assert not any(work.done() for work in works[:3] if work)
    comm.barrier()
    for number, length in enumerate((0, 2, 100_000)):
        assert comm.recv_any(np.empty(length, np.int64), tag=1).source == left
        sent = works[number]
        assert sent is not None
        sent.wait()
        comm.barrier()
    comm.recv(np.ones(1), left, 2)
    receiving = comm.recv(np.empty(2), left, async_op=True)
    comm.send(np.ones(2), right, synchronous=True)
    same(receiving.wait(), np.ones(2))
    comm.barrier()


def all_of_them(comm: Communicator) -> None:
    for body in (around, pairs, beside_collectives, from_anybody, probed, too_long, cancelled, met, to_oneself):
        body(comm)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_messages(kind: str, size: int) -> None:
    ranks(kind, size, all_of_them)


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


def leaves_what_it_owes(comm: Communicator) -> None:
    """Many more receipts than there is room for on the way to a rank that reads nothing until the other one closes."""
    if comm.rank == 0:
        comm.send(np.array([os.getpid()]), 1)
        sent = [comm.send(np.array([n]), 1, synchronous=True, async_op=True) for n in range(300)]
        sent.append(comm.send(np.array([300]), 1, tag=2, async_op=True))
        for work in sent:
            assert work is not None
            work.wait()
    else:
        process = np.empty(1, np.int64)
        comm.recv(process, 0)
        comm.probe(0, tag=2)
        os.kill(process[0], signal.SIGSTOP)
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -CONT {process[0]}"])  # whatever becomes of this rank
        for _ in range(300):
            comm.recv(process, 0)
        comm.close()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_who_closes_leaves_the_receipts_that_others_wait_for(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLX_TRANSPORT", transport)
    collx.spawn(leaves_what_it_owes, 2)
