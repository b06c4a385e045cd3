"""A collx program under the launchers of Open MPI and MPICH, with neither MPI nor TCP."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

pytestmark = pytest.mark.parametrize("mpi", MPIS, ids=str)
SUM = """
comm = collx.init()
total = comm.all_reduce(np.array([comm.rank]))[0]
os.write(1, f"{comm.rank} {comm.size} {comm.transports} {total}\\n".encode())  # whole, whatever the launcher does
"""


def lines(size: int) -> list[str]:
    transport = ("shm",) if size > 1 else ("memory",)
    return [f"{rank} {size} {transport} {size * (size - 1) // 2}" for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_program_runs_unchanged(mpi: Launcher, size: int, tmp_path: Path) -> None:
    with jobs.nothing_left_behind(str(tmp_path)):
        done = mpi.run(size, jobs.program(tmp_path, SUM))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == lines(size)


def test_neither_mpi_nor_tcp_is_touched(mpi: Launcher, tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        def internet():  # sockets
            known = [line.split() for name in ("tcp", "tcp6", "udp") for line in open(f"/proc/self/net/{name}")]
            inodes = {f"socket:[{words[9]}]" for words in known}
            return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")
                    and os.readlink(f"/proc/self/fd/{fd}") in inodes}

        before = internet()
        comm = collx.init()
        comm.all_reduce(np.ones(100000))
        assert internet() <= before, (internet(), before)
        assert "mpi4py" not in sys.modules
        assert "libmpi" not in open("/proc/self/maps").read()
        """,
    )
    done = mpi.run(2, path)
    assert done.returncode == 0, done.stderr


def test_programs_one_after_another_in_one_job(mpi: Launcher, tmp_path: Path) -> None:
    """Ranks that are quick meet in the next program while others still end the one before."""
    path = jobs.program(tmp_path, SUM + "time.sleep(0.05 * comm.rank * (comm.size - 1 - comm.rank))")
    *launch, python = mpi.line(3)
    script = " && ".join([f"{python} {path}"] * 3)
    with jobs.nothing_left_behind(str(tmp_path)):
        done = jobs.finished([*launch, "sh", "-c", script])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(lines(3) * 3)


def test_two_jobs_at_a_time(mpi: Launcher, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, SUM)
    both = [mpi.start(2, path) for _ in range(2)]
    assert [sorted(job.communicate(timeout=jobs.DEADLINE)[0].splitlines()) for job in both] == [lines(2)] * 2


def test_a_rank_that_never_comes_is_named(mpi: Launcher, tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
        if rank != "1":
            collx.init(timeout=1)
        """,
    )
    with jobs.nothing_left_behind(str(tmp_path)):
        done = mpi.run(3, path)
    assert done.returncode != 0
    assert "rank 1 of 3 did not come within the timeout of init" in done.stderr


def test_what_is_killed_while_it_meets_leaves_nothing(mpi: Launcher, tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
        if rank == "2":
            while not [name for name in os.listdir(os.environ["TMPDIR"]) if name.startswith("collx-")]:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        collx.init()
        """,
    )
    with jobs.nothing_left_behind(str(tmp_path)):
        done = mpi.run(3, path)
    assert done.returncode != 0


ENDING = """
comm = collx.init()
comm.barrier()
if comm.rank == 1:
    %s
while True:
    time.sleep(1)  # nobody hears of it by collx
"""


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_a_rank_that_is_killed_is_named(mpi: Launcher, transport: str, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, ENDING % "os.kill(os.getpid(), signal.SIGKILL)")
    with jobs.nothing_left_behind(str(tmp_path)):
        done = mpi.run(3, path, COLLX_TRANSPORT=transport, MARK=str(tmp_path))
    assert done.returncode != 0
    assert re.search(r"rank 1 (of 3|with PID)", done.stderr), done.stderr


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_an_exception_ends_the_job(mpi: Launcher, transport: str, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, ENDING % "print('unwritten', end=''); raise ValueError('lost my way')")
    with jobs.nothing_left_behind(str(tmp_path)):
        done = mpi.run(3, path, COLLX_TRANSPORT=transport, MARK=str(tmp_path))
    assert done.returncode != 0
    assert "ValueError: lost my way" in done.stderr
    assert done.stdout == "unwritten"


BEFORE = """
failing = (os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]) == "1"
{imported}
if failing:
    raise ValueError("lost my way")
collx.init()
"""
HALFWAY = """
import mpi4py.MPI
if failing:
    del sys.modules["mpi4py.MPI"]  # as where a signal's handler raises while MPI is initialised
"""


@pytest.mark.parametrize("imported", ["", "import mpi4py.MPI", HALFWAY], ids=["no MPI", "MPI", "half of MPI"])
def test_an_exception_before_init_ends_the_job(mpi: Launcher, imported: str, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, BEFORE.format(imported=imported))
    with jobs.nothing_left_behind(str(path)):
        done = mpi.run(3, path)
    assert done.returncode != 0
    assert "ValueError: lost my way" in done.stderr
    if imported or mpi.name == "mpich":
        assert re.search(r"collx: rank 1 of 3 \(pid \d+\) ended by ValueError: lost my way", done.stderr), done.stderr


def test_who_ends_well_is_not_said_to_be_killed(mpi: Launcher, tmp_path: Path) -> None:
    """At whatever time, and whatever the next program of the job does there."""
    path = jobs.program(tmp_path, SUM + "comm.close(); time.sleep(0.1 * comm.rank)")
    *launch, python = mpi.line(3)
    with jobs.nothing_left_behind(str(tmp_path)):
        done = jobs.finished([*launch, "sh", "-c", f"{python} {path} && {python} {path}"], MARK=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
