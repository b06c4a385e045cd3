"""The mpi transport under both MPIs, and what is said where it cannot serve."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher

SUITE = Path(__file__).with_name("mpi_conformance.py")
each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)
WORLD = """
with collx.init(timeout=30) as comm:
    total = comm.all_reduce(np.arange(9) + comm.rank)
    assert (total == comm.size * np.arange(9) + sum(range(comm.size))).all()
    print(f"{comm!r} {len(comm.hosts)}\\n", end="", flush=True)  # in one piece
"""


@each_mpi
def test_the_suite(mpi: Launcher) -> None:
    command = [str(mpi.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=jobs.CLEAN)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert re.search(r"^\d{2,} passed in", done.stdout, re.MULTILINE)


@each_mpi
@pytest.mark.parametrize("size", [1, 3])
def test_a_world_over_mpi_where_that_is_forced(mpi: Launcher, size: int, tmp_path: Path) -> None:
    done = mpi.run(size, jobs.program(tmp_path, WORLD), COLLX_TRANSPORT="mpi")
    assert done.returncode == 0, done.stderr
    lines = {f"<collx.Communicator rank {rank} of {size} over mpi> {size}" for rank in range(size)}
    assert set(done.stdout.splitlines()) == lines


def test_without_an_mpi_it_is_told_what_is_needed(tmp_path: Path) -> None:
    done = jobs.collx_run("-n", 2, jobs.program(tmp_path, WORLD), COLLX_TRANSPORT="mpi")
    assert done.returncode == 1
    assert "COLLX_TRANSPORT=mpi needs mpi4py and an MPI: pip install 'collx[mpi]'" in done.stderr


@each_mpi
def test_the_launcher_of_another_mpi_is_found_out(mpi: Launcher, tmp_path: Path) -> None:
    program = jobs.program(tmp_path, WORLD)
    command = [*jobs.RUN, "-n", "2", "--", str(mpi.python), str(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=jobs.CLEAN | {"COLLX_TRANSPORT": "mpi"}
    )
    assert done.returncode == 1
    assert re.search("rank [01] of 2 is rank 0 of 1 to its MPI, which another launcher belongs to", done.stderr)
