"""Who ranks are, and what they see of each other's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import collx
from collx.errors import TransportError
from collx.transports.cuda.cards import CARD_BYTES, Card, apart, card, check, sharers, workers
from collx.transports.cuda.handles import SHARED_BYTES, Shared
from collx.transports.cuda.slab import Layout
from collx.transports.cuda_ipc import CudaIpc
from tests.cuda.arrays import array
from tests.cuda.standin import StandIn

LAYOUT = Layout(words=1000, room=4096, stage=2048)
CARD = Card("here", "boot", 1, 10, 100, "GPU-a", "NVIDIA H200", 0, False, 13000)


def cards(*changes: dict[str, object]) -> list[Card]:
    """By rank, the same host and GPU but for the changes; processes of their own."""
    return [
        replace(CARD, **({"pid": 10 + rank, "process": 100 + rank} | change))  # type: ignore[arg-type]
        for rank, change in enumerate(changes)
    ]


def test_cards_are_sent_as_they_are() -> None:
    driver = StandIn(("GPU-a", "GPU-b"), mps=True)
    mine = card(driver, 1)
    assert (mine.gpu, mine.ordinal, mine.mps, mine.driver) == ("GPU-b", 1, True, driver.version())
    record = mine.pack()
    assert len(record) == CARD_BYTES
    assert Card.unpack(record) == mine
    driver.end()


def test_the_same_pid_in_two_containers_is_refused() -> None:
    with pytest.raises(TransportError, match=r"^ranks 1 and 2 are .* containers, both with PID 7, .*--pid=host$"):
        check(cards({}, {"pid": 7, "pid_namespace": 2}, {"pid": 7, "pid_namespace": 3}))
    check(cards({}, {"pid_namespace": 2}))  # other PIDs
    check(cards({"pid": 7}, {"pid": 7, "boot": "other", "pid_namespace": 2}))  # other hosts
    check(cards({"pid": 7}, {"pid": 7}))  # two threads


def test_ranks_of_several_hosts_are_apart() -> None:
    assert apart(cards({}, {"host": "container"})) == ""
    assert "rank 0 is on host here and rank 1 on there" in apart(cards({}, {"host": "there", "boot": "other"}))


def test_one_rank_works_for_all_on_its_gpu() -> None:
    shared = cards({}, {"gpu": "GPU-b"}, {}, {"gpu": "GPU-b"})
    assert workers(shared) == (0, 1, 0, 1)
    assert sharers(shared, 2) == [0, 2]
    assert workers([replace(each, mps=True) for each in shared]) == (0, 1, 2, 3)


def test_parts_of_a_slab_do_not_overlap() -> None:
    for words in (0, 1, 1000, 4096):
        layout = Layout(words, room=4096, stage=512)
        begins = [0, layout.workspace, layout.staged(0), layout.staged(1), layout.nbytes]
        sizes = [right - left for left, right in pairwise(begins)]
        assert sizes[0] >= words
        assert sizes[1:] == [4096, 1024, 1024]


def joined(
    driver: StandIn, rank: int, gather: Callable[[bytes], Sequence[bytes]]
) -> tuple[CudaIpc, Callable[[int, int], list[int]]]:
    """A rank's view, and what finds the same of all ranks in it."""
    found = [Card.unpack(record) for record in gather(card(driver, 0).pack())]
    check(found)
    assert apart(found) == ""
    ipc = CudaIpc(driver, rank, found, LAYOUT)
    assert ipc.map_slabs([Shared.unpack(record) for record in gather(ipc.slab().pack())]) == ""

    def everybody(address: int, nbytes: int) -> list[int]:
        told = [Shared.unpack(record) for record in gather(ipc.describe(address, nbytes).pack())]
        return [ipc.address(peer, shared) for peer, shared in enumerate(told)]

    return ipc, everybody


def _seen_by_all(comm: collx.Communicator) -> None:
    driver = StandIn().install()

    def gather(record: bytes) -> list[bytes]:
        rows = comm.all_gather(np.frombuffer(record, np.uint8)).reshape(comm.size, len(record))
        return [row.tobytes() for row in rows]

    ipc, everybody = joined(driver, comm.rank, gather)
    for turn in range(3):  # each with memory of its own, though it lies where the last one's did
        mine = array(driver, [10 * turn + comm.rank], np.uint8, offset=comm.rank)
        mine.numpy()
        with ipc.using():
            at = everybody(mine.address, 1)
            comm.barrier()
            assert [ctypes.c_uint8.from_address(a).value for a in at] == [10 * turn + r for r in range(comm.size)]
            comm.barrier()
    ctypes.memset(ipc.slabs.workspace(comm.rank), comm.rank + 1, LAYOUT.room)
    ctypes.memset(ipc.slabs.stage(comm.rank, 1)[1], comm.rank + 5, LAYOUT.stage)
    comm.barrier()
    for peer in range(comm.size):
        assert ctypes.string_at(ipc.slabs.workspace(peer), LAYOUT.room) == bytes([peer + 1]) * LAYOUT.room
        assert ctypes.string_at(ipc.slabs.stage(peer, 1)[1], LAYOUT.stage) == bytes([peer + 5]) * LAYOUT.stage
        assert ctypes.string_at(ipc.slabs.begins[peer], LAYOUT.workspace) == bytes(LAYOUT.workspace)
    driver.calls.clear()

    def meet() -> None:
        driver.calls.append("meet")
        comm.barrier()

    ipc.close(meet)
    ipc.close(meet)
    assert driver.mapped == 0
    assert driver.calls == ["close"] * 2 * (comm.size - 1) + ["meet", "free"]


def test_ranks_see_each_others_memory_until_all_have_unmapped_it() -> None:
    collx.spawn(_seen_by_all, 3)


def test_threads_see_each_others_memory_without_handles() -> None:
    driver = StandIn()
    pair = [card(driver, 0)] * 2
    ranks = [CudaIpc(driver, rank, pair, LAYOUT) for rank in range(2)]
    slabs = [rank.slab() for rank in ranks]
    assert [rank.map_slabs(slabs) for rank in ranks] == ["", ""]
    assert ranks[0].slabs.begins == ranks[1].slabs.begins == tuple(rank.slabs.own for rank in ranks)
    hidden = driver.unshareable(64)
    assert ranks[1].address(0, ranks[0].describe(hidden, 64)) == hidden
    for rank in ranks:
        rank.close(None)
    assert driver.calls == ["free", "free"]
    driver.end()


def test_a_slab_that_cannot_be_mapped_is_a_reason() -> None:
    driver = StandIn()
    mine = card(driver, 0)
    ipc = CudaIpc(driver, 0, [mine, replace(mine, process=mine.process ^ 1)], LAYOUT)
    other = ipc.slab()._replace(handle=bytes(64))
    assert "cannot be mapped" in ipc.map_slabs([ipc.slab(), other])
    assert "has 5 bytes" in ipc.map_slabs([ipc.slab(), other._replace(nbytes=5)])
    assert SHARED_BYTES < 512  # two go into a message that fits beside its flag
    ipc.close(None)
    driver.end()
