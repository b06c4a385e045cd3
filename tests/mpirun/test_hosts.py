"""Jobs whose ranks are on two hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import jobs
from tests.hosts import Hosts
from tests.launchers import MPIS, Launcher
from tests.programs import FEWER, FOLDER, NAMES, passed

each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)


@each_mpi
def test_ranks_know_their_place_on_each_host(mpi: Launcher, two_hosts: Hosts, tmp_path: Path) -> None:
    """A third of the ranks on one host, the others on the other."""
    path = jobs.program(
        tmp_path,
        """
        from collx.bootstrap import find_place
        from mpi4py import MPI

        place, world = find_place(os.environ), MPI.COMM_WORLD
        assert (place.rank, place.size) == (world.rank, world.size)
        words = world.gather((os.uname().nodename, place.local_rank, place.local_size))
        if words:
            print(sorted(words))
        """,
    )
    done = two_hosts.across(mpi, (1, 2)).run(3, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[('alpha', 0, 1), ('beta', 0, 2), ('beta', 1, 2)]\n"


@each_mpi
@pytest.mark.parametrize("forced", ["", "mpi"])
def test_all_programs_pass(mpi: Launcher, two_hosts: Hosts, forced: str) -> None:
    """With shared memory inside a host, and with MPI forced there too."""
    done = two_hosts.across(mpi, (2, 1)).run(3, FOLDER, *FEWER, COLLX_TRANSPORT=forced)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stdout.startswith(
        f"# <collx.Communicator rank 0 of 3 over {forced or 'shm+mpi'}> on alpha (2), beta (1);"
    )
    assert passed(done.stdout).keys() == NAMES


@each_mpi
def test_a_rank_that_is_killed_on_another_host_is_named(mpi: Launcher, two_hosts: Hosts, tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        comm = collx.init()
        comm.barrier()
        if comm.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """,
    )
    with jobs.nothing_left_behind(str(tmp_path)):
        done = two_hosts.across(mpi, (1, 2)).run(3, path)
    assert done.returncode != 0
    assert re.search(r"rank 2 (of 3|with PID).* on (node )?beta", done.stderr), done.stderr
