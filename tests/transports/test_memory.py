"""What the memory transport adds to the conformance suite: a death, and the two ways of sending."""

from __future__ import annotations

import pytest

from collx.errors import ClosedError, RankFailedError, TransportError
from collx.transports.memory import MemoryHub, MemoryTransport


def test_death_loses_what_was_not_received() -> None:
    hub = MemoryHub(2)
    ends = [MemoryTransport(hub, rank) for rank in range(2)]
    ends[0].send(1, memoryview(b"lost")).wait(1)
    hub.fail(0)
    with pytest.raises(RankFailedError, match="rank 1: rank 0 died") as caught:
        ends[1].recv(0, memoryview(bytearray(4))).wait(1)
    assert caught.value.ranks == (0,)
    with pytest.raises(ClosedError):
        ends[0].send(1, memoryview(b"x"))


@pytest.mark.parametrize("rendezvous", [False, True])
def test_a_send_completes_when_the_flag_says(rendezvous: bool) -> None:
    hub = MemoryHub(2, rendezvous=rendezvous)
    ends = [MemoryTransport(hub, rank) for rank in range(2)]
    data, room = bytearray(b"data"), bytearray(4)
    send = ends[0].send(1, memoryview(data))
    assert send.done() is not rendezvous
    if not rendezvous:
        data[:] = b"gone"
    ends[1].recv(0, memoryview(room)).wait(1)
    assert send.done()
    assert room == b"data"


def test_death_ends_the_sends_that_nobody_receives_any_more() -> None:
    hub = MemoryHub(2, rendezvous=True)
    send = MemoryTransport(hub, 0).send(1, memoryview(b"x"))
    hub.fail(1)
    with pytest.raises(RankFailedError, match="rank 1 died"):
        send.wait(1)


@pytest.mark.parametrize("peer", [-1, 0, 2])
def test_only_others_are_reached(peer: int) -> None:
    end = MemoryTransport(MemoryHub(2), 0)
    assert not end.reaches(peer)
    with pytest.raises(TransportError, match="does not reach"):
        end.send(peer, memoryview(b""))


def test_ranks_must_be_of_the_hub() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MemoryHub(0)
    with pytest.raises(ValueError, match="not in a hub"):
        MemoryTransport(MemoryHub(2), 2)
