"""What works at which thread level of MPI: background progress at MULTIPLE, any thread at SERIALIZED, one below."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)
BELOW = ["single", "funneled", "serialized"]
LEVEL = """
import threading
import mpi4py
mpi4py.rc.thread_level = sys.argv[1]
comm = collx.init(timeout=30)
from mpi4py import MPI
names = {"single": 0, "funneled": 1, "serialized": 2, "multiple": 3}
levels = (MPI.THREAD_SINGLE, MPI.THREAD_FUNNELED, MPI.THREAD_SERIALIZED, MPI.THREAD_MULTIPLE)
assert MPI.Query_thread() == levels[names[sys.argv[1]]]
large = np.ones(1_000_000)

def elsewhere(call):
    raised = []
    def run():
        try:
            call()
        except Exception as error:
            raised.append(error)
    thread = threading.Thread(target=run, name="helper")
    thread.start()
    thread.join()
    return raised
"""

IN_TURN = """
works = [comm.all_reduce(large, async_op=True) for _ in range(3)]
while not works[0].done():
    pass
assert (works[2].wait() == comm.size).all()
assert works[1].done()
got = np.zeros(1)
receive = comm.recv(got, (comm.rank - 1) % comm.size, async_op=True)
comm.send(np.array([comm.rank]) * 1.0, (comm.rank + 1) % comm.size)
while not receive.done():
    pass
assert got == (comm.rank - 1) % comm.size
half = comm.split(comm.rank % 2)
assert half.all_reduce(np.array([1])) == [half.size]
dropped = comm.all_reduce(large, async_op=True)
del dropped
"""

OTHER_THREADS = """
calls = [lambda: comm.all_reduce(large), lambda: comm.send(large, 0), lambda: comm.split(0), comm.barrier, comm.revoke]
if names[sys.argv[1]] < names["serialized"]:
    for call in calls:
        [error] = elsewhere(call)
        assert isinstance(error, collx.TransportError), error
        assert f"rank {comm.rank}: thread helper may not call" in str(error), error
        assert "MPI_THREAD_MULTIPLE" in str(error), error
    work = comm.all_reduce(large, async_op=True)
    [error] = elsewhere(work.wait)
    assert isinstance(error, collx.TransportError), error
    assert (work.wait() == comm.size).all()
else:
    assert elsewhere(comm.barrier) == []
    work = comm.all_reduce(large, async_op=True)
    assert elsewhere(work.wait) == []
    assert work.done()
assert comm.all_reduce(np.array([1])) == [comm.size]
"""

IN_THE_BACKGROUND = """
work = comm.all_reduce(large, async_op=True)
if comm.rank == 0:
    MPI.COMM_WORLD.recv(source=1)  # while nobody calls collx here, the others come to the end of it
else:
    work.wait()
    if comm.rank == 1:
        MPI.COMM_WORLD.send(0, 0)
assert (work.wait() == comm.size).all()
"""

CLOSED_ELSEWHERE = """
import gc
group = comm.split(0)
box = [group]
del group
assert elsewhere(box.clear) == []  # the last that had it
gc.collect()
comm.barrier()
assert comm.split(1).all_reduce(np.array([1])) == [comm.size]
"""


def run(mpi: Launcher, folder: Path, level: str, text: str) -> None:
    done = mpi.run(2, jobs.program(folder, LEVEL + text), level, COLLX_TRANSPORT="mpi")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr


@each_mpi
@pytest.mark.parametrize("level", BELOW)
def test_asynchronous_calls_move_when_they_are_asked(mpi: Launcher, level: str, tmp_path: Path) -> None:
    run(mpi, tmp_path, level, IN_TURN)


@each_mpi
@pytest.mark.parametrize("level", [*BELOW, "multiple"])
def test_other_threads_call_where_they_may(mpi: Launcher, level: str, tmp_path: Path) -> None:
    run(mpi, tmp_path, level, OTHER_THREADS)


@each_mpi
def test_calls_go_on_in_the_background_where_threads_may(mpi: Launcher, tmp_path: Path) -> None:
    run(mpi, tmp_path, "multiple", IN_THE_BACKGROUND)


@each_mpi
def test_a_communicator_may_end_in_any_thread(mpi: Launcher, tmp_path: Path) -> None:
    run(mpi, tmp_path, "funneled", CLOSED_ELSEWHERE)
