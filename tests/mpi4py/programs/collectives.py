"""What mpi4py's own tests do not ask of collectives, on three ranks: datatypes with gaps, signatures, errors, order."""

import sys
from typing import Any

import mpi4py
import numpy as np
import pytest

mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

world = MPI.COMM_WORLD
rank, size = world.rank, world.size


def a_column_becomes_a_row() -> None:
    """Ranks may name other datatypes, if as many bytes travel."""
    table = np.arange(12.0).reshape(3, 4) if rank == 0 else np.zeros((3, 4))
    column = MPI.DOUBLE.Create_vector(3, 1, 4).Commit()
    got = np.zeros(3)
    world.Bcast([table[0, 1:2], 1, column] if rank == 0 else got, 0)
    assert rank == 0 or got.tolist() == [1, 5, 9], got
    column = column.Create_resized(0, 8)  # so that the next column is the next element
    everything = np.zeros((3, 3))
    world.Allgather(
        np.array([rank, rank + 10.0, rank + 20]),
        [everything, 1, MPI.DOUBLE.Create_vector(3, 1, 3).Create_resized(0, 8)],
    )
    assert everything.tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]], everything


def records_at_absolute_addresses() -> None:
    number, text = np.array([rank + 1], np.int32), bytearray(b"rank %d!!" % rank)
    record = MPI.Datatype.Create_struct(
        [1, 8], [MPI.Get_address(number), MPI.Get_address(text)], [MPI.INT, MPI.CHAR]
    ).Commit()
    world.Bcast([MPI.BOTTOM, 1, record], 2)
    assert (number[0], bytes(text)) == (3, b"rank 2!!")


def only_the_root_knows_the_counts() -> None:
    mine = np.full(rank + 1, rank, np.int16)
    got = np.full(8, -1, np.int16)
    for request in (None, "I"):
        got[:] = -1
        where = [got, ([1, 2, 3], [7, 0, 3]), MPI.SHORT] if rank == 1 else None
        if request is None:
            world.Gatherv(mine, where, 1)
        else:
            world.Igatherv(mine, where, 1).Wait()
        assert rank != 1 or got.tolist() == [1, 1, -1, 2, 2, 2, -1, 0], got
    back = np.zeros(rank + 1, np.int16)
    world.Scatterv([got, ([1, 2, 3], [7, 0, 3]), MPI.SHORT] if rank == 1 else None, back, 1)
    assert back.tolist() == mine.tolist()


def ops_of_ones_own_keep_rank_order() -> None:
    def digits(lower: Any, upper: Any, datatype: MPI.Datatype) -> None:
        assert datatype == MPI.LONG
        one, other = np.frombuffer(lower, "l"), np.frombuffer(upper, "l")
        other[:] = one * 10 ** len(str(other[0])) + other

    op = MPI.Op.Create(digits, commute=False)
    got = np.zeros(2, "l")
    for name in ("Allreduce", "Scan", "Exscan"):
        getattr(world, name)(np.full(2, rank + 1), got, op)
        here = {"Allreduce": 123, "Scan": (1, 12, 123)[rank], "Exscan": (123, 1, 12)[rank]}[name]
        assert got.tolist() == [here, here], (name, got)
        got[:] = 123
    world.Ireduce(np.full(2, rank + 1), got if rank == 2 else None, op, 2).wait()
    assert rank != 2 or got.tolist() == [123, 123]
    op.Free()


def places_of_extremes() -> None:
    pairs = np.array([(rank % 2, rank), (-rank, rank)], [("value", "f8"), ("index", "i4")])
    padded = np.zeros(2, np.dtype([("value", "f8"), ("index", "i4")], align=True))
    padded[:] = pairs
    got = np.zeros_like(padded)
    world.Allreduce([padded, MPI.DOUBLE_INT], [got, MPI.DOUBLE_INT], MPI.MAXLOC)
    assert got.tolist() == [(1, 1), (0, 0)], got
    assert world.allreduce((rank % 2, rank), MPI.MINLOC) == (0, 0)


def numbers_that_collx_has_not() -> None:
    third = np.array([1, 2], np.longdouble) / 3
    got = np.zeros_like(third)
    world.Iallreduce(third, got).Wait()
    assert (got == third * 2 + third).all()
    world.Reduce_scatter_block(np.repeat(third, size), got)
    assert got.shape == (2,)


def halos_come_from_the_side_they_were_sent_from() -> None:
    """A grid's lower and upper neighbour may be one and the same rank, as a graph's neighbours may."""
    for length in (1, 2):
        grid = world.Create_cart([length], periods=[True])
        if not grid:
            continue
        other = (grid.rank + 1) % length
        assert grid.neighbor_alltoall([(grid.rank, "down"), (grid.rank, "up")]) == [(other, "up"), (other, "down")]
        got = np.zeros(2, int)
        grid.Neighbor_alltoall(np.array([1, 2]) + 10 * grid.rank, got)
        assert got.tolist() == [10 * other + 2, 10 * other + 1], got
        counts = ([1, 2], [0, 1])
        grid.Ineighbor_alltoallv([np.array([1, 2, 2]), counts], [wide := np.zeros(3, int), ([2, 1], [0, 2])]).Wait()
        assert wide.tolist() == [2, 2, 1], wide
    itself: Any = np.array([0, 0])  # which need not be a list
    graph = MPI.COMM_SELF.Create_dist_graph_adjacent(itself, itself)
    assert graph.neighbor_alltoall(["first", "second"]) == ["first", "second"]


def in_the_background() -> None:
    """Nobody waits, and still it is done: rank 0 asks only whether it is."""
    got = np.zeros((4, 2))
    column = MPI.DOUBLE.Create_vector(4, 1, 2)
    requests = [
        world.Ibcast([got[0, :1], 1, column], 0),
        world.Iallreduce(MPI.IN_PLACE, np.ones(1 << 18)),
        world.Ibarrier(),
    ]
    while not MPI.Request.Testall(requests):
        pass
    again = world.Allreduce_init(np.ones(3), total := np.zeros(3))
    for _ in range(3):
        again.Start()
        again.Wait()
    assert total.tolist() == [3] * 3
    parted = world.Reduce_scatter_init(np.arange(6.0), part := np.zeros(rank + 1))
    if rank > 0:
        world.recv(source=rank - 1)
    parted.Start()  # one rank after the other: it waits for nobody
    if rank + 1 < size:
        world.send("started", rank + 1)
    parted.Wait()
    assert part.tolist() == [[0], [3, 6], [9, 12, 15]][rank]


def what_is_wrong_is_said() -> None:
    small, more = np.zeros(2), np.zeros(3)
    with pytest.raises(ValueError, match="send count 2 and receive count 3"):
        world.Allreduce(small, more)
    with pytest.raises(ValueError, match="mismatch in send and receive MPI datatypes"):
        world.Allreduce(small, small.astype("f4"))
    with pytest.raises(ValueError, match="4 elements are 32 bytes"):
        world.Bcast([small, 4, MPI.DOUBLE], 0)
    with pytest.raises(ValueError, match="cannot infer count, 2 elements do not divide into 3 blocks"):
        world.Alltoall(small, small)
    with pytest.raises(BufferError, match="read-only"):
        world.Allgather(small, b"123456" * size)
    with pytest.raises(BufferError, match="not contiguous"):
        world.Allreduce(MPI.IN_PLACE, np.zeros((2, 2))[:, 0])
    with pytest.raises(MPI.Exception, match="root 3 is no rank of 3") as caught:
        world.Bcast(small, 3)
    assert caught.value.Get_error_class() == MPI.ERR_ROOT
    with pytest.raises(KeyError, match="cannot map"):
        world.Bcast([small, "no such"])
    with pytest.raises(MPI.Exception, match="COMM_NULL"):
        MPI.COMM_NULL.Get_size()
    for lacking in ("Win.Create", "File.Open", "Open_port"):
        with pytest.raises(NotImplementedError, match=lacking.split(".")[0]):
            eval(f"MPI.{lacking}")
    assert not hasattr(MPI, "Register_datarep")


def unlike_calls_are_found() -> None:
    """The last: a communicator on which this happened is of no use any more."""
    apart = world.Dup()

    def both() -> None:
        apart.Bcast(np.zeros(2 + (rank == 1)), 0)
        apart.Barrier()  # a root may be done before anybody can tell it

    with pytest.raises(MPI.Exception) as caught:
        both()
    assert type(caught.value.__cause__).__name__ in ("MismatchError", "AbortedError")


for check in (
    a_column_becomes_a_row,
    records_at_absolute_addresses,
    only_the_root_knows_the_counts,
    ops_of_ones_own_keep_rank_order,
    places_of_extremes,
    numbers_that_collx_has_not,
    halos_come_from_the_side_they_were_sent_from,
    in_the_background,
    what_is_wrong_is_said,
    unlike_calls_are_found,
):
    try:
        check()
    except BaseException:
        print(f"rank {rank}: {check.__name__}", file=sys.stderr)
        raise
key = MPI.Comm.Create_keyval(delete_fn=lambda *_: print("finalised", flush=True))
MPI.COMM_SELF.Set_attr(key, "which nothing drops")
sys.stdout.write("all is well\n")
sys.stdout.flush()
world.Barrier()
