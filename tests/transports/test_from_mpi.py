"""Communicators of the ranks of one's own MPI communicator, which goes on being one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)
OWN = """
from mpi4py import MPI

world = MPI.COMM_WORLD
"""

USED_MEANWHILE = """
own = world.Split(world.rank % 2, -world.rank)
before, after = (own.rank - 1) % own.size, (own.rank + 1) % own.size
comm = collx.from_mpi(own, timeout=30)
assert (comm.rank, comm.size, comm.timeout) == (own.rank, own.size, 30)
told = np.zeros(1, int)
request = own.Irecv(told, before)
numbers = comm.all_gather(np.array([world.rank]))
own.Send(np.array([world.rank]), after)
request.Wait()
assert numbers.tolist() == own.allgather(world.rank) == sorted(numbers.tolist(), reverse=True)
assert told[0] == numbers[before]
everybody = collx.from_mpi(world, timeout=30)
work = everybody.all_reduce(np.ones(100_000), async_op=True)
own.Free()
assert comm.all_reduce(np.array([1.0])) == [comm.size]
half = everybody.split(everybody.rank // 2)
assert half.all_reduce(np.array([1])) == [half.size]
assert (work.wait() == world.size).all()
comm.close()
assert everybody.all_reduce(np.array([1])) == [world.size]
print("+".join(everybody.transports) + chr(10), end="", flush=True)
"""

MISUSED = """
for wrong in (None, 3, world.Get_group(), MPI.COMM_NULL):
    try:
        collx.from_mpi(wrong)
    except (TypeError, ValueError) as error:
        assert "from_mpi takes" in str(error), error
    else:
        raise AssertionError(wrong)
sides = world.Split(world.rank % 2)
between = sides.Create_intercomm(0, world, 1 - world.rank % 2)
try:
    collx.from_mpi(between)
except ValueError as error:
    assert "not an intercommunicator" in str(error), error
else:
    raise AssertionError("an intercommunicator is none of ours")
"""

NOBODY_ELSE = """
if world.rank == 0:
    try:
        collx.from_mpi(world, timeout=0.3)
    except collx.BootstrapError as error:
        print(error, flush=True)
        MPI.COMM_WORLD.Abort(0)
import threading
threading.Event().wait()
"""

MANY = """
from collx.transports import mpi

for round in range(30):
    comm = collx.from_mpi(world, timeout=30)
    if round % 10 == 0:
        assert comm.all_reduce(np.array([1])) == [world.size]
    comm.close()
world.Barrier()
mpi.sweep()
assert len(mpi._closed) <= 1, mpi._closed
assert not mpi._retired
"""

FINALIZED = """
comm = collx.from_mpi(world, timeout=30)
comm.barrier()
MPI.Finalize()
try:
    comm.barrier()
except collx.ClosedError as error:
    assert "MPI was finalized" in str(error), error
else:
    raise AssertionError("over what?")
"""


def run(mpi: Launcher, size: int, folder: Path, text: str, **environ: str) -> str:
    done = mpi.run(size, jobs.program(folder, OWN + text), **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@each_mpi
@pytest.mark.parametrize("transport", ["shm", "mpi", "tcp"])
def test_both_are_used_at_once(mpi: Launcher, transport: str, tmp_path: Path) -> None:
    environ = {"COLLX_TRANSPORT": transport} if transport != "shm" else {}
    transports = run(mpi, 4, tmp_path, USED_MEANWHILE, **environ)
    assert transports.splitlines() == [transport] * 4


@each_mpi
def test_what_is_no_intracommunicator(mpi: Launcher, tmp_path: Path) -> None:
    run(mpi, 2, tmp_path, MISUSED)


@each_mpi
def test_a_deadline_holds_where_others_do_not_come(mpi: Launcher, tmp_path: Path) -> None:
    done = mpi.run(2, jobs.program(tmp_path, OWN + NOBODY_ELSE))
    assert "rank 0 of 2: not all ranks came" in done.stdout


@each_mpi
def test_as_many_as_one_likes_one_after_the_other(mpi: Launcher, tmp_path: Path) -> None:
    """MPI has some 2000 communicators at a time at most: what is closed is given back."""
    run(mpi, 2, tmp_path, MANY, COLLX_TRANSPORT="mpi")


@each_mpi
def test_no_call_reaches_an_mpi_that_was_finalized(mpi: Launcher, tmp_path: Path) -> None:
    run(mpi, 2, tmp_path, FINALIZED, COLLX_TRANSPORT="mpi")
