"""A rank that is killed, raises or is interrupted under mpirun: the job ends soon, says which rank it was, and leaves
nothing behind."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

SOON = 2.0  # seconds from the end of a rank to that of the job
TRIES = 3  # the quickest counts: this is about jobs that hang, not about a busy machine

ENDING = """
comm = collx.init()
comm.barrier()
if comm.rank == 1:
    print(time.monotonic(), flush=True)
    %s
while True:
    %s
"""
KILLED, RAISES, EXITS = "os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError('lost my way')", "sys.exit(3)"
COLLECTIVE, MESSAGE = "comm.all_reduce(np.ones(1000))", "comm.recv(np.ones(1), 1)"

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)


@each_mpi
@pytest.mark.parametrize("transport", ["shm", "mpi"])
@pytest.mark.parametrize(
    ("ending", "call"), [(KILLED, COLLECTIVE), (KILLED, MESSAGE), (RAISES, COLLECTIVE), (EXITS, COLLECTIVE)]
)
def test_the_end_of_a_rank_ends_the_job(mpi: Launcher, tmp_path: Path, transport: str, ending: str, call: str) -> None:
    path = jobs.program(tmp_path, ENDING % (ending, call))
    took: list[float] = []
    while len(took) < TRIES and min(took, default=SOON) >= SOON:
        with jobs.nothing_left_behind(str(path)):
            done = mpi.run(3, path, COLLX_TRANSPORT=transport)
            took.append(time.monotonic() - float(done.stdout.split()[0]))
        assert done.returncode != 0
        assert re.search(r"\brank 1\b", done.stdout + done.stderr), done.stderr
        assert ending != RAISES or "ValueError: lost my way" in done.stderr
    assert min(took) < SOON


INTERRUPTED = """
comm = collx.init()
comm.barrier()
if comm.rank == 1:
    print("waiting", flush=True)
    time.sleep(600)
comm.barrier()
"""


@each_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_ends_the_job(mpi: Launcher, tmp_path: Path, number: signal.Signals) -> None:
    path = jobs.program(tmp_path, INTERRUPTED)
    with jobs.nothing_left_behind(str(path)):
        job = mpi.start(3, path)
        assert job.stdout is not None
        assert job.stdout.readline() == "waiting\n"
        job.send_signal(number)
        job.communicate(timeout=jobs.DEADLINE)
    assert job.returncode != 0
