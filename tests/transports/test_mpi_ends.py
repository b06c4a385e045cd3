"""How programs end that use MPI: MPI_Finalize waits for all ranks, and must not wait for one that waits for another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)

PRELUDE = """
from mpi4py import MPI

comm = collx.init(timeout=30)
x = np.ones(1_000_000)
MPI.COMM_WORLD.Barrier()
"""
WELL = {
    "nothing is closed": "",
    "one ends before the others": "if comm.rank != 1: sum(range(10_000_000))",
    "works that nobody waited for": "for _ in range(3): comm.all_reduce(x, async_op=True)",
    "a message that nobody receives": "if comm.rank == 0: comm.send(x, 1, async_op=True)",
    "a small message that nobody receives": "if comm.rank == 0: comm.send(x[:1], 1)",
    "groups in all states": "kept = comm.split(0)\ncomm.split(comm.rank % 2).close()\ncomm.split(1).barrier()",
    "an error that is caught": """
if comm.rank == 1:
    sys.exit()
try:
    comm.all_reduce(x)
except collx.RankFailedError as error:
    assert error.ranks == (1,), error
else:
    raise AssertionError("without rank 1?")
""",
    "an error in a block": """
try:
    with comm:
        if comm.rank == 1:
            raise ValueError("lost my way")
        comm.all_reduce(x)
except (ValueError, collx.AbortedError) as error:
    assert "lost my way" in str(error), error
""",
    "a mismatch that is caught": """
try:
    comm.all_reduce(x[: 5 + comm.rank])
    comm.barrier()
except collx.MismatchError:
    pass
""",
    "a deadline that is caught": """
try:
    comm.recv(x, (comm.rank + 1) % comm.size, timeout=0.1 if comm.rank == 0 else None)
except (collx.TimeoutError, collx.AbortedError) as error:
    pass
""",
    "finalized by the program": "comm.all_reduce(x)\nMPI.Finalize()",
}
BADLY = {
    "where others call collx": "comm.all_reduce(x)",
    "where others call MPI": "MPI.COMM_WORLD.Barrier()",
    "where others have ended": "",
}


INTERRUPTED = """
if comm.rank == 1:
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does
    signal.setitimer(signal.ITIMER_REAL, 0.2)
comm.recv(x, 0 if comm.rank else 1)
"""


@each_mpi
@pytest.mark.parametrize("how", WELL)
def test_a_program_that_ends_well_ends(mpi: Launcher, how: str, tmp_path: Path) -> None:
    done = mpi.run(3, jobs.program(tmp_path, PRELUDE + WELL[how]), COLLX_TRANSPORT="mpi")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@each_mpi
@pytest.mark.parametrize("how", ["nothing is closed", "an error that is caught"])
def test_it_ends_too_where_collx_does_not_use_mpi(mpi: Launcher, how: str, tmp_path: Path) -> None:
    done = mpi.run(3, jobs.program(tmp_path, PRELUDE + WELL[how]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@each_mpi
@pytest.mark.parametrize("forced", [False, True], ids=["shm", "mpi"])
@pytest.mark.parametrize("how", BADLY)
def test_an_exception_in_one_rank_ends_the_job(mpi: Launcher, how: str, forced: bool, tmp_path: Path) -> None:
    text = f"print(f'a line {{comm.rank}}')\nif comm.rank == 1: raise ValueError('lost my way')\n{BADLY[how]}"
    environ = {"COLLX_TRANSPORT": "mpi"} if forced else {}
    done = mpi.run(3, jobs.program(tmp_path, PRELUDE + text), PYTHONUNBUFFERED="", **environ)
    assert done.returncode != 0
    assert "ValueError: lost my way" in done.stderr
    assert re.search(r"\brank 1\b", done.stderr), done.stderr
    assert "a line 1" in done.stdout, "what was printed before is lost"


@each_mpi
def test_an_interrupted_rank_ends_the_job(mpi: Launcher, tmp_path: Path) -> None:
    done = mpi.run(3, jobs.program(tmp_path, PRELUDE + INTERRUPTED), COLLX_TRANSPORT="mpi")
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert re.search(r"\brank 1\b", done.stderr), done.stderr
