"""Shapes: nothing at all, fewer elements than ranks, uneven counts, 0-d, in place, `out`, strided input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx import Communicator
from tests.collectives.numbers import contribution, same
from tests.ranks import SIZES, ranks

FLOAT = np.dtype(np.float32)


def few_elements(comm: Communicator) -> None:
    for shape in ((0,), (1,), (2, 0), (3, 1), (), (comm.size - 1,)):
        given = [contribution(rank, shape, FLOAT) for rank in range(comm.size)]
        x = given[comm.rank]
        total = np.asarray(sum(given)).astype(FLOAT)
        same(comm.all_reduce(x), total)
        same(comm.scan(x), np.asarray(sum(given[: comm.rank + 1])).astype(FLOAT))
        same(comm.exscan(x), np.asarray(sum(given[: comm.rank]) + np.zeros(shape)).astype(FLOAT))
        reduced = comm.reduce(x, root=comm.size - 1)
        if comm.rank == comm.size - 1:
            same(reduced, total)
        rows = [array.reshape(1) if shape == () else array for array in given]
        same(comm.all_gather(x), np.concatenate(rows))
        y = x.copy()
        comm.broadcast(y, comm.size - 1)
        same(y, given[-1])
    nothing = np.zeros((0, 3), np.int16)
    same(comm.reduce_scatter(nothing), nothing)
    same(comm.all_to_all(nothing), nothing)
    same(comm.scatter(nothing), nothing)


@pytest.mark.parametrize("size", SIZES)
def test_few_or_no_elements(kind: str, size: int) -> None:
    ranks(kind, size, few_elements)


def uneven(comm: Communicator, counts: list[int], width: int) -> None:
    """Counts of any sizes, along the first axis, in every collective that takes them."""
    size, rank, total = comm.size, comm.rank, sum(counts)
    start, stop = sum(counts[:rank]), sum(counts[: rank + 1])
    given = [contribution(r, (total, width), FLOAT) for r in range(size)]
    everything = np.asarray(sum(given)).astype(FLOAT)
    same(comm.reduce_scatter(given[rank], counts=counts), everything[start:stop])
    same(comm.all_gather(given[0][start:stop], counts=counts), given[0])
    root = total % size
    same(comm.scatter(given[root] if rank == root else given[rank], root, counts=counts), given[root][start:stop])
    gathered = comm.gather(given[0][start:stop], root, counts=np.array(counts))
    if rank == root:
        same(gathered, given[0])
    # Rank i sends counts[(i + j) % size] rows to rank j.
    sent = [[counts[(i + j) % size] for j in range(size)] for i in range(size)]
    parts = [[contribution(i * size + j, (sent[i][j], width), FLOAT) for j in range(size)] for i in range(size)]
    got = comm.all_to_all(
        np.concatenate(parts[rank]), send_counts=sent[rank], recv_counts=[sent[i][rank] for i in range(size)]
    )
    same(got, np.concatenate([parts[i][rank] for i in range(size)]))


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=5), width=st.integers(0, 3))
def test_any_counts_on_threads(counts: list[int], width: int) -> None:
    ranks("memory", len(counts), uneven, counts, width)


def many_counts(comm: Communicator) -> None:
    size = comm.size
    for counts in ([1] * size, [0] * size, [0] * (size - 1) + [5], list(range(size)), [9] + [0] * (size - 1)):
        uneven(comm, counts, 2)
    uneven(comm, [100_000 if rank == size // 2 else 17 for rank in range(size)], 3)  # beyond any slot


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_uneven_counts(kind: str, size: int) -> None:
    ranks(kind, size, many_counts)


def in_place(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    for length in (2, 5000):
        given = [contribution(r, (size * length,), FLOAT) for r in range(size)]
        total, mine = np.asarray(sum(given)).astype(FLOAT), slice(rank * length, (rank + 1) * length)
        x = given[rank].copy()
        assert comm.all_reduce(x, out=x) is x
        same(x, total)
        x = given[rank].copy()
        assert comm.scan(x, out=x) is x
        same(x, np.asarray(sum(given[: rank + 1])).astype(FLOAT))
        x = given[rank].copy()
        assert comm.exscan(x, out=x) is x
        same(x, np.asarray(sum(given[:rank]) + np.zeros(size * length)).astype(FLOAT))
        x = given[rank].copy()
        reduced = comm.reduce(x, root=size - 1, out=x)
        assert (reduced is x) == (rank == size - 1)
        same(x, total if rank == size - 1 else given[rank])
        x = given[rank].copy()
        assert comm.all_to_all(x, out=x) is x
        same(x, np.concatenate([given[i][mine] for i in range(size)]))
        x = given[rank].copy()
        own = x[mine]
        assert comm.reduce_scatter(x, out=own) is own
        same(own, total[mine])
        whole = np.zeros(size * length, FLOAT)
        whole[mine] = given[0][mine]
        assert comm.all_gather(whole[mine], out=whole) is whole
        same(whole, given[0])
        whole[...] = 0
        whole[mine] = given[0][mine]
        gathered = comm.gather(whole[mine], 0, out=whole)
        if rank == 0:
            assert gathered is whole
            same(whole, given[0])
        x = given[0].copy()
        same(comm.scatter(x, 0, out=x[mine]), given[0][mine])


@pytest.mark.parametrize("size", SIZES)
def test_in_place(kind: str, size: int) -> None:
    ranks(kind, size, in_place)


def into_out(comm: Communicator) -> None:
    size, rank = comm.size, comm.rank
    x = np.arange(size, dtype=FLOAT) + rank
    total = np.asarray(sum(np.arange(size) + r for r in range(size))).astype(FLOAT)
    out = np.empty(size, FLOAT)
    for _ in range(3):
        out[...] = -1
        assert comm.all_reduce(x, out=out) is out
        same(out, total)
    one = np.empty((), FLOAT)  # a 0-d array counts as one row
    assert comm.reduce_scatter(x, out=one) is one
    assert one == total[rank]
    big = np.empty(size * size, FLOAT)
    assert comm.all_gather(x, out=big) is big
    same(big, np.concatenate([np.arange(size, dtype=FLOAT) + r for r in range(size)]))
    assert comm.scatter(x if rank == 0 else None, out=one) is one
    assert one == rank
    same(x, np.arange(size, dtype=FLOAT) + rank)


def strided_input(comm: Communicator) -> None:
    base = np.arange(24.0).reshape(4, 6) + comm.rank
    total = np.asarray(sum(np.arange(24.0).reshape(4, 6) + r for r in range(comm.size)))
    for x, wanted in (
        (base.T, total.T),
        (base[:, ::2], total[:, ::2]),
        (base[::-1], total[::-1]),
        (np.broadcast_to(base[0], (3, 6)), np.broadcast_to(total[0], (3, 6))),
        (base[:, 1], total[:, 1]),
    ):
        same(comm.all_reduce(x), np.ascontiguousarray(wanted))
    unaligned = np.zeros(4 * 8 + 1, np.uint8)[1:].view(np.float64)
    unaligned[...] = comm.rank
    same(comm.all_reduce(unaligned, "max"), np.full(4, comm.size - 1.0))
    readonly = np.arange(3.0)
    readonly.flags.writeable = False
    same(comm.all_reduce(readonly), np.arange(3.0) * comm.size)
    root_view = np.arange(6.0)[::2] if comm.rank == 0 else np.zeros(3)
    assert comm.broadcast(root_view) is root_view
    same(np.ascontiguousarray(root_view), np.array([0.0, 2.0, 4.0]))
    same(comm.broadcast(readonly if comm.rank == 0 else np.zeros(3)), np.arange(3.0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_out_and_strided_input(kind: str, size: int) -> None:
    ranks(kind, size, into_out)
    ranks(kind, size, strided_input)
