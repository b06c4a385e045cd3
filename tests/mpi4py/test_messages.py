"""The shim's messages where mpi4py's own tests do not reach, and what ends a wait for one that never comes."""

from __future__ import annotations

from pathlib import Path

from tests import jobs

PROGRAMS = Path(__file__).with_name("programs")

# Ranks 1 and 2 wait for what never comes, each in its way.
WAIT = """
    if world.rank == 1:
        comm.Recv(bytearray(8), MPI.ANY_SOURCE)
    else:
        MPI.Request.Waitany([comm.irecv(source=0, tag=tag) for tag in range(3)])
"""


def run(ranks: int, *program: str | Path) -> tuple[int, str, str]:
    done = jobs.collx_run("--mpi4py", "-n", ranks, "--tag", "off", *program)
    return done.returncode, done.stdout, done.stderr


def test_messages() -> None:
    code, told, errors = run(3, PROGRAMS / "messages.py")
    assert (code, told.count("all is well")) == (0, 3), errors


def test_a_killed_rank_is_told_to_those_that_wait(tmp_path: Path) -> None:
    """An exception of MPI that names it, and no hang."""
    program = tmp_path / "killed.py"
    program.write_text(f"""
import os, signal
from mpi4py import MPI
world = comm = MPI.COMM_WORLD
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which the launcher ends it
try:
    world.Barrier()
    if world.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
{WAIT}
except MPI.Exception as error:
    print(error.Get_error_class() == MPI.ERR_PROC_FAILED and "rank 0 died" in str(error), flush=True)
""")
    code, told, errors = run(3, program)
    assert code != 0
    assert told.count("True") == 2, errors


def test_ctrl_c_ends_a_wait(tmp_path: Path) -> None:
    program = tmp_path / "waiting.py"
    program.write_text(f"""
import os, signal, threading
from mpi4py import MPI
world = MPI.COMM_WORLD
pairs = [world.Create(world.group.Incl([0, other])) for other in (1, 2)]
comm = pairs[world.rank - 1]  # as a rank that is interrupted is told to those that it has a communicator with
if world.rank > 0:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    if world.rank == 0:
        raise KeyboardInterrupt
{WAIT}
except KeyboardInterrupt:
    print("interrupted", flush=True)
""")
    _, told, errors = run(3, program)  # within a deadline that is shorter than collx's
    assert told.count("interrupted") == 3, errors


def test_an_exit_that_failed_aborts_the_job_with_its_code(tmp_path: Path) -> None:
    program = tmp_path / "abort.py"
    program.write_text("""
import sys
from mpi4py import MPI
if MPI.COMM_WORLD.rank == 1:
    sys.exit(7)  # as Abort(7), for `python -m mpi4py`
MPI.COMM_WORLD.Recv(bytearray(1), 1)
""")
    code, _, errors = run(2, "-m", "mpi4py", program)
    assert code == 7, errors
    assert "called Abort(7)" in errors
