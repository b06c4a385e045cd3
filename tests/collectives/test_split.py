"""Communicators of some of the ranks."""

from __future__ import annotations

import numpy as np
import pytest

from collx import Communicator
from tests.collectives.numbers import same
from tests.ranks import ranks


def halves(comm: Communicator) -> None:
    for _ in range(2):  # labels are used once, so splitting again must work
        half = comm.split(comm.rank % 2)
        assert half is not None
        members = list(range(comm.rank % 2, comm.size, 2))
        assert (half.rank, half.size) == (members.index(comm.rank), len(members))
        assert half.hosts == tuple(comm.hosts[member] for member in members)
        assert half.transports == comm.transports
        assert half.local_rank == half.rank  # on one host
        same(half.all_gather(np.array([comm.rank])), np.array(members))
        same(half.all_reduce(np.array([1.0])), np.array([float(half.size)]))
        comm.barrier()
        half.close()
    comm.barrier()


def backwards_and_without_some(comm: Communicator) -> None:
    assert (comm.split(None) is None) is True
    out = comm.split(None if comm.rank == 0 else -7, key=-comm.rank)
    if comm.rank == 0:
        assert out is None
    else:
        assert out is not None
        assert out.rank == comm.size - 1 - comm.rank
        same(out.all_gather(np.array([comm.rank])), np.arange(comm.size - 1, 0, -1))
    alone = comm.split(comm.rank)
    assert alone is not None
    assert (alone.rank, alone.size) == (0, 1)
    same(alone.scan(np.array([3.0])), np.array([3.0]))


def nested(comm: Communicator) -> None:
    """A grid: rows and columns of a 2 x n arrangement, and a split of a split."""
    row, column = divmod(comm.rank, comm.size // 2)
    across, down = comm.split(row, key=column), comm.split(column, key=row)
    assert across is not None
    assert down is not None
    total = down.all_reduce(across.all_reduce(np.array([float(comm.rank)])))
    same(total, np.array([float(sum(range(comm.size)))]))
    again = across.split(column % 2)
    assert again is not None
    mine = [
        r
        for r in range(row * (comm.size // 2), (row + 1) * (comm.size // 2))
        if (r % (comm.size // 2)) % 2 == column % 2
    ]
    same(again.all_gather(np.array([comm.rank])), np.array(mine))
    works = [c.all_reduce(np.ones(10), async_op=True) for c in (comm, across, down, again)]
    assert [int(work.wait()[0]) for work in works] == [comm.size, across.size, down.size, again.size]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_split(kind: str, size: int) -> None:
    if size > 1:
        ranks(kind, size, halves)
    ranks(kind, size, backwards_and_without_some)


@pytest.mark.parametrize("size", [4, 8])
def test_grids(kind: str, size: int) -> None:
    ranks(kind, size, nested)


def closed_at_once(comm: Communicator) -> None:
    for _ in range(60):
        part = comm.split(0)
        assert part is not None
        same(part.all_reduce(np.ones(10), async_op=True).wait(), np.full(10, float(comm.size)))
        part.close()


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_may_close_while_others_still_take_in_its_last_message(kind: str, size: int) -> None:
    ranks(kind, size, closed_at_once)


def wrong_arguments(comm: Communicator) -> None:
    for color, key in ((1.5, 0), ("a", 0), (True, 0), (0, 0.5), (0, None)):
        with pytest.raises(TypeError, match="must be an integer"):
            comm.split(color, key)  # type: ignore[arg-type]
    far = comm.split(-(2**63), key=2**63 - 1 - comm.rank)
    assert far is not None
    assert (far.rank, far.size) == (comm.size - 1 - comm.rank, comm.size)
    comm.barrier()


def test_color_and_key_are_integers(kind: str) -> None:
    ranks(kind, 2, wrong_arguments)


def by_their_members_alone(comm: Communicator) -> None:
    """Rank 0 takes no part, and the others make two of the same ranks in different orders."""
    if comm.rank > 0:
        there = comm.subgroup(range(1, comm.size), "there")
        back = comm.subgroup(range(comm.size - 1, 0, -1), "back")
        assert there.rank == comm.rank - 1
        same(there.all_gather(np.array([comm.rank])), np.arange(1, comm.size))
        same(back.all_gather(np.array([comm.rank])), np.arange(comm.size - 1, 0, -1))
        same(back.subgroup([back.rank], f"{comm.rank}").scan(np.array([3.0])), np.array([3.0]))
    for wrong in ([], [comm.rank] * 2, [(comm.rank + 1) % comm.size], [-1], [comm.size]):
        with pytest.raises(ValueError, match="rank"):
            comm.subgroup(wrong, "wrong")
    comm.barrier()


@pytest.mark.parametrize("size", [2, 4])
def test_subgroups_are_made_by_their_members_alone(kind: str, size: int) -> None:
    ranks(kind, size, by_their_members_alone)
