"""Ranks of several hosts: shared memory inside a host, MPI between them. The hosts are made up; the ways are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)
HOSTS = """
from mpi4py import MPI
from collx.transports.groups import mpi

world = MPI.COMM_WORLD
host = {"halves": world.rank // 2, "turns": world.rank % 2, "one each": world.rank, "uneven": world.rank // 3}
mpi.machine = lambda: f"host {host[sys.argv[1]]}"
comm = collx.from_mpi(world, timeout=30)

def say(text):
    print(f"{text}{chr(10)}", end="", flush=True)
"""

CALLS = """
for count in (0, 1, 1000, 300_000):
    x = np.arange(count, dtype=float) + comm.rank
    total = comm.size * np.arange(count) + sum(range(comm.size))
    assert (comm.all_reduce(x) == total).all()
    assert (comm.all_reduce(x, async_op=True).wait() == total).all()
    assert (comm.all_gather(x).reshape(comm.size, -1) == np.arange(count) + np.arange(comm.size)[:, None]).all()
    assert comm.broadcast(x, root=comm.size - 1).tolist() == (np.arange(count) + comm.size - 1).tolist()
for peer in range(comm.size):
    to, source = (comm.rank + peer) % comm.size, (comm.rank - peer) % comm.size
    told = comm.sendrecv(np.array([comm.rank]), to, np.zeros(1, int), source)
    assert told == source
near = comm.split(host[sys.argv[1]])
far = comm.split(comm.rank if near.rank else comm.size, comm.rank)
ends = comm.split(None if 0 < comm.rank < comm.size - 1 else 0)
ways = ["+".join(group.transports) if group else "-" for group in (comm, near, far, ends)]
for group in (near, far, ends):
    assert group is None or group.all_reduce(np.array([1])) == [group.size]
say(f"{comm.rank} {' '.join(ways)}")
"""

CLOSED = """
if comm.rank == 3:
    comm.close()
else:
    try:
        comm.recv(np.zeros(1), source=3)
    except (collx.RankFailedError, collx.AbortedError) as error:
        say(f"{comm.rank}: {type(error).__name__} {error}")
world.Barrier()
"""

MISMATCH = """
try:
    comm.all_reduce(np.zeros(5 if comm.rank == 1 else 4), algorithm="recursive_doubling")
    comm.barrier()
except (collx.MismatchError, collx.AbortedError) as error:
    say(f"{comm.rank}: {type(error).__name__} {error}")
world.Barrier()
"""

LATE = """
if comm.rank:
    try:
        comm.recv(np.zeros(1), source=0, timeout=0.2)
    except (collx.CollxError) as error:
        say(f"{comm.rank}: {type(error).__name__} {error}")
world.Barrier()
"""


def run(mpi: Launcher, size: int, folder: Path, text: str, hosts: str) -> list[str]:
    done = mpi.run(size, jobs.program(folder, HOSTS + text), hosts)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(done.stdout.splitlines())


@each_mpi
@pytest.mark.parametrize(
    ("hosts", "ways"),
    [
        ("halves", ["0 shm+mpi shm mpi mpi", "1 shm+mpi shm shm -", "2 shm+mpi shm mpi -", "3 shm+mpi shm shm mpi"]),
        ("turns", ["0 shm+mpi shm mpi mpi", "1 shm+mpi shm mpi -", "2 shm+mpi shm shm -", "3 shm+mpi shm shm mpi"]),
        ("uneven", ["0 shm+mpi shm mpi mpi", "1 shm+mpi shm shm -", "2 shm+mpi shm shm -", "3 shm+mpi shm mpi mpi"]),
        ("one each", [f"{rank} mpi mpi mpi {'-' if rank in (1, 2) else 'mpi'}" for rank in range(4)]),
    ],
)
def test_each_group_is_joined_by_what_reaches_its_ranks(
    mpi: Launcher, hosts: str, ways: list[str], tmp_path: Path
) -> None:
    assert run(mpi, 4, tmp_path, CALLS, hosts) == ways


@each_mpi
@pytest.mark.parametrize("hosts", ["halves", "turns"])
def test_who_left_is_named_by_its_rank_in_the_whole(mpi: Launcher, hosts: str, tmp_path: Path) -> None:
    told = run(mpi, 4, tmp_path, CLOSED, hosts)
    assert [line[:2] for line in told] == ["0:", "1:", "2:"]
    assert all("rank 3" in line for line in told)
    assert all("RankFailedError" in line for line in told)


@each_mpi
def test_a_mismatch_is_told_to_all(mpi: Launcher, tmp_path: Path) -> None:
    told = run(mpi, 4, tmp_path, MISMATCH, "halves")
    assert [line[:2] for line in told] == ["0:", "1:", "2:", "3:"]
    assert any("count differs" in line or "count 4" in line for line in told)


@each_mpi
def test_deadlines_hold_on_both_ways(mpi: Launcher, tmp_path: Path) -> None:
    told = run(mpi, 4, tmp_path, LATE, "halves")
    assert [line[:2] for line in told] == ["1:", "2:", "3:"]
    assert any("TimeoutError" in line for line in told)
