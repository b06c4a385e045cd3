"""The sweep under the launchers of MPIs, and collx over an MPI beside that MPI alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from collx.perf import on_mpi
from tests.launchers import MPIS, Launcher

SHORT = ("-b", "8", "-e", "64K", "-f", "64", "-w", "1", "--iters", "2")
each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)


@each_mpi
@pytest.mark.parametrize(("transport", "ranks"), [("shm", 2), ("mpi", 3)])
def test_a_sweep_takes_its_ranks_from_the_launcher(mpi: Launcher, transport: str, ranks: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    arguments = ("-m", "collx", "perf", "reduce_scatter", *SHORT, "--json", path)
    done = mpi.run(ranks, *arguments, COLLX_TRANSPORT=transport)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Collective test starting") == 1
    document = json.loads(path.read_text())
    assert document["transports"] == [transport]
    assert document["out_of_bounds"]["count"] == 0
    assert len(re.findall(r"^#  Rank +\d+ Group", done.stdout, re.MULTILINE)) == ranks


@each_mpi
def test_mpis_own_collective_beside_schedules(mpi: Launcher) -> None:
    arguments = ("-m", "collx", "perf", "all_reduce", *SHORT, "--algorithm", "mpi,ring")
    done = mpi.run(2, *arguments, COLLX_TRANSPORT="mpi")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^# +\(B\)", done.stdout, re.MULTILINE)
    assert re.search(r" mpi +ring ", done.stdout)
    refused = mpi.run(2, *arguments)
    assert refused.returncode != 0
    assert "--algorithm mpi needs ranks that MPI joins: COLLX_TRANSPORT=mpi, under mpirun or mpiexec" in refused.stderr


def test_collx_over_an_mpi_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.md"
    arguments = ["--sizes", "8,64K", "--collectives", "all_reduce,broadcast", "--seconds", "0.1", "--output", str(path)]
    assert on_mpi.main(["mpich", *arguments]) == 0, capsys.readouterr().err
    text = path.read_text()
    assert re.search(r"^\| \*\*all\*\* \| \*\*\d+\.\d+\*\* \| \*\*\d+\.\d+\*\* \|$", text, re.MULTILINE)
    for collective in ("all_reduce", "broadcast"):
        assert re.search(rf"^\| {collective} \| 64K \| \d", text, re.MULTILINE)


def test_what_is_no_mpi(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_mpi.main(["gloo"]) == 2
    assert "'gloo' is no MPI; there are openmpi, mpich, intelmpi" in capsys.readouterr().err
