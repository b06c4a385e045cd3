"""Jobs whose ranks are on two hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import jobs
from tests.hosts import ADDRESSES, PORT, Done, Hosts
from tests.launchers import MPIS, Launcher
from tests.programs import FEW, FEWER, FOLDER, NAMES, passed

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
@pytest.mark.parametrize(
    ("forced", "over"), [("", "shm+mpi"), ("mpi", "mpi"), ("tcp", "tcp, at 10.77.0.1 (cable) on alpha")]
)
def test_all_programs_pass(mpi: Launcher, two_hosts: Hosts, forced: str, over: str) -> None:
    """With shared memory inside a host, and with MPI, or TCP, forced there too."""
    done = two_hosts.across(mpi, (2, 1)).run(3, FOLDER, *FEWER, COLLX_TRANSPORT=forced)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stdout.startswith(f"# <collx.Communicator rank 0 of 3 over {over}> on alpha (2), beta (1);")
    assert passed(done.stdout).keys() == NAMES


def test_hydra_joins_hosts_without_mpi4py(two_hosts: Hosts, tmp_path: Path) -> None:
    """By TCP, addresses and secret told by PMI; the error of a job that asks for nothing says so."""
    path = jobs.program(
        tmp_path,
        """
        sys.modules["mpi4py"] = None  # as if it were not installed
        comm = collx.init()
        assert (comm.all_reduce(np.ones(100_000)) == comm.size).all()
        os.write(1, f"{'+'.join(comm.transports)} {comm.hosts}\\n".encode())
        """,
    )
    mpi = two_hosts.across(MPIS[1], (2, 1))
    done = mpi.run(3, path, COLLX_TRANSPORT="tcp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["tcp ('alpha', 'alpha', 'beta')"] * 3
    done = mpi.run(3, path)
    assert done.returncode != 0
    assert "needs mpi4py and an MPI: pip install 'collx[mpi]', or set COLLX_TRANSPORT=tcp" in done.stderr


def programs_pass(done: list[Done], over: str, ranks: int) -> None:
    for one in done:
        assert one.returncode == 0, one.stdout[-2000:] + one.stderr
    head = rf"# <collx.Communicator rank 0 of {ranks} over {re.escape(over)}, at \S+ \(cable\) on alpha> on "
    assert re.match(head, done[0].stdout)
    assert passed(done[0].stdout).keys() == NAMES


@pytest.mark.parametrize(
    ("over", "at", "few"), [("shm+tcp", "alpha", FEW), ("tcp", ADDRESSES[0], FEWER)], ids=["shm+tcp", "tcp"]
)
def test_all_programs_pass_by_tcp_on_two_hosts(two_hosts: Hosts, over: str, at: str, few: tuple[str, ...]) -> None:
    """With shared memory inside a host, and with TCP forced there too."""
    command, forced = ("--tag", "off", "python", FOLDER, *few), "tcp" if over == "tcp" else ""
    programs_pass(two_hosts.collx_run(2, *command, at=f"{at}:{PORT}", COLLX_TRANSPORT=forced), over, 4)


def test_all_programs_pass_by_tcp_on_four_hosts(four_hosts: Hosts) -> None:
    programs_pass(four_hosts.collx_run(2, "--tag", "off", "python", FOLDER, *FEWER), "shm+tcp", 8)


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
