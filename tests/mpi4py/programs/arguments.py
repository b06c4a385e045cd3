"""What programs hand to MPI and mpi4py's own tests do not, on three ranks."""

import sys
import threading
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

world: Any = MPI.COMM_WORLD  # as a program without types has it
rank, size = world.rank, world.size


def floats_lose_their_fraction() -> None:
    """As in programs that say `size / 2`."""
    part = world.Split(rank / 2, 1.0)
    assert part.size == (1 if rank == 2 else 2)
    part.Free()
    half: Any = size / 2
    if rank == 0:
        world.send("hello", half, tag=7.5)
        world.Send(np.ones(2), 2.0, 0.0)
    elif rank == 1:
        assert world.recv(source=0.0, tag=7.9) == "hello"
    else:
        got = np.zeros(2)
        world.Recv(got, 0.5, 0.5)
        assert got.tolist() == [1, 1]
    assert world.bcast(rank, half) == 1
    assert world.gather(rank, 2.0) == ([0, 1, 2] if rank == 2 else None)
    assert world.scatter([5, 6, 7] if rank == 0 else None, 0.0) == 5 + rank
    x = np.full(2, rank, float)
    world.Bcast(x, half)
    assert x.tolist() == [1, 1]
    out = np.zeros(2) if rank == 2 else None
    world.Reduce(np.ones(2), out, root=2.0)
    assert out is None or out.tolist() == [3, 3]
    assert MPI.Compute_dims(2 * half, 2) == [3, 1]


def texts_are_no_numbers() -> None:
    for call in (lambda: world.send(1, "0"), lambda: world.bcast(1, "0"), lambda: world.Split("0")):
        with pytest.raises(TypeError, match="integer"):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match=r"expected an MPI\.Op"):
        world.Allreduce(np.ones(1), np.ones(1), None)


def none_stands_for_as_many() -> None:
    assert world.scatter(None, 0) is None
    assert world.alltoall(None) == [None] * size


def ops_are_made_by_the_name_of_the_argument() -> None:
    def larger(a: Any, b: Any, _: object) -> Any:
        return max(a, b)

    op = MPI.Op.Create(function=larger, commute=True)
    assert world.allreduce(rank, op) == size - 1
    op.Free()


def grids_take_numbers_of_numpy() -> None:
    ring = world.Create_cart([size], periods=True)
    assert ring.Shift(np.uint8(0), np.uint8(1)) == ((rank - 1) % size, (rank + 1) % size)
    found = ring.Get_cart_rank(np.array([1], np.int8))
    assert (found, type(found)) == (1, int)
    ring.Free()


def grids_are_as_even_as_they_can_be() -> None:
    for wanted in ([5, 2, 2], [7, 3, 2], [7, 4, 3], [7, 5, 3, 2], [4, 4, 4], [8], [1, 1]):
        assert MPI.Compute_dims(int(np.prod(wanted)), len(wanted)) == wanted
    assert MPI.Compute_dims(24, [0, 3, 0]) == [4, 3, 2]


def threads_take_different_messages() -> None:
    """Each of the objects arrives once, though two threads look for any."""
    count, got = 50, []

    def take() -> None:
        while (found := world.recv(source=MPI.ANY_SOURCE, tag=3)) is not None:
            got.append(found)

    if rank == 0:
        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == sorted([(source, n) for source in range(1, size) for n in range(count)])
    else:
        for n in range(count):
            world.ssend((rank, n), 0, 3)
    if rank == 1:
        world.recv(source=2, tag=4)  # all of its have been received
        for _ in range(2):
            world.send(None, 0, 3)
    elif rank == 2:
        world.send("all of them", 1, 4)


def memory_is_true() -> None:
    assert MPI.Alloc_mem(8)
    assert not MPI.Alloc_mem(0)


def modules_that_are_lacking_are_named() -> None:
    with pytest.raises(ImportError, match=r"mpi4py\.futures is not in collx's shim"):
        from mpi4py import futures  # noqa: F401


def mpi_ends_once() -> None:
    MPI.Finalize()
    with pytest.raises(MPI.Exception, match="before"):
        MPI.Finalize()


for check in (
    floats_lose_their_fraction,
    texts_are_no_numbers,
    none_stands_for_as_many,
    ops_are_made_by_the_name_of_the_argument,
    grids_take_numbers_of_numpy,
    grids_are_as_even_as_they_can_be,
    threads_take_different_messages,
    memory_is_true,
    modules_that_are_lacking_are_named,
    mpi_ends_once,
):
    try:
        check()
    except BaseException:
        print(f"rank {rank}: {check.__name__}", file=sys.stderr)
        raise
sys.stdout.write("all is well\n")
