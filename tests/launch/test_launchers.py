"""What the variables of Open MPI, Hydra and Slurm tell of a process's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

import collx
from collx.bootstrap import LONE, find_place

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "6",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-head-13970@1",
    "PMIX_SERVER_URI4": "prterun-head-13970@0.2;tcp4://10.0.0.3:37719",
}
HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "6", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def hydra() -> Iterator[dict[str, str]]:
    """Hydra's variables, with this process as the launcher at the other end of PMI_FD."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield HYDRA | {"PMI_FD": str(theirs.fileno())}


@pytest.fixture(params=["open-mpi", "hydra", "slurm"])
def environ(request: pytest.FixtureRequest, hydra: dict[str, str]) -> dict[str, str]:
    launched = {"open-mpi": OPEN_MPI, "hydra": hydra, "slurm": SLURM}
    environ: dict[str, str] = launched[request.param]
    return environ


def test_the_place_and_where_its_host_meets(environ: dict[str, str]) -> None:
    place = find_place(environ)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (5, 6, 1, 2)
    assert place.rendezvous.startswith("job:/")
    assert place.pmi == int(environ.get("PMI_FD", -1))
    assert find_place(environ) == place


def test_a_half_set_environment_names_what_is_missing(environ: dict[str, str]) -> None:
    for name in environ:
        if name not in ("SLURM_STEP_ID", "PMIX_SERVER_URI4"):
            with pytest.raises(collx.BootstrapError, match=f"but {name} is not; start the program by"):
                find_place({other: value for other, value in environ.items() if other != name})


def test_a_world_of_one_meets_nobody(environ: dict[str, str]) -> None:
    counts = ("SIZE", "NRANKS", "NUM_TASKS", "PER_NODE")
    alone = {name: "1" if name.endswith(counts) else "0" for name in environ}
    assert find_place(alone) == LONE


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OMPI_COMM_WORLD_RANK", "6", "OMPI_COMM_WORLD_RANK is 6, but it goes from 0 to 5"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "7", "OMPI_COMM_WORLD_LOCAL_SIZE is 7, but the job has 6 ranks"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "2", "OMPI_COMM_WORLD_LOCAL_RANK is 2, but it goes from 0 to 1"),
        ("PMI_SIZE", "many", "PMI_SIZE is 'many', which is not a number"),
        ("PMI_FD", "1000000", "PMI_FD is '1000000', but does not lead to the launcher"),
        ("PMI_FD", "x", "PMI_FD is 'x', which is not a number"),
        ("SLURM_NODEID", "3", "SLURM_NODEID is 3, but it goes from 0 to 2"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x", "is '2(x', which does not list how many"),
    ],
)
def test_impossible_values_name_the_variable(hydra: dict[str, str], name: str, value: str, said: str) -> None:
    environ = next(variables for variables in (OPEN_MPI, hydra, SLURM) if name in variables)
    with pytest.raises(collx.BootstrapError) as caught:
        find_place(environ | {name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "host", "size"), [("4", 0, 4), ("1,3", 1, 3), ("2(x2),1(x3),9", 1, 2), ("2(x2),1(x3),9", 5, 9)]
)
def test_slurm_lists_the_ranks_of_all_hosts(counts: str, host: int, size: int) -> None:
    told = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": counts, "SLURM_NODEID": str(host)}
    assert find_place(SLURM | {"SLURM_LOCALID": "0"} | told).local_size == size


def test_a_batch_script_of_slurm_is_no_rank() -> None:
    batch = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "4"}
    assert find_place(batch) == LONE


def test_the_launcher_that_started_the_ranks_is_taken(hydra: dict[str, str]) -> None:
    """Slurm may have started the servers of another, or speak PMI itself."""
    servers = SLURM | {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "1(x3)"}
    assert find_place(OPEN_MPI | servers) == find_place(OPEN_MPI)
    assert find_place(hydra | servers) == find_place(hydra)
    assert find_place(SLURM | {"PMI_RANK": "5", "PMI_SIZE": "6", "PMI_FD": "3"}) == find_place(SLURM)
    run = {"COLLX_RANK": "0", "COLLX_SIZE": "2", "COLLX_RENDEZVOUS": "unix:/d"}
    assert find_place(OPEN_MPI | hydra | SLURM | run) == find_place(run)


def test_an_unknown_launcher_that_speaks_pmi_is_refused() -> None:
    with pytest.raises(collx.BootstrapError, match="PMI_RANK is set, as by Hydra"):
        find_place({"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": "3"})


@pytest.mark.parametrize(
    ("job", "other"),
    [
        (OPEN_MPI, {"PMIX_NAMESPACE": "prterun-head-13970@2"}),
        (OPEN_MPI, {"PMIX_SERVER_URI4": "prterun-head-13970@0.2;tcp4://10.0.0.3:37720"}),
        (SLURM, {"SLURM_JOB_ID": "78"}),
        (SLURM, {"SLURM_STEP_ID": "1"}),
        (SLURM, {"SLURM_RESTART_COUNT": "1"}),
    ],
)
def test_jobs_meet_in_different_places(job: dict[str, str], other: dict[str, str]) -> None:
    assert find_place(job).rendezvous != find_place(job | other).rendezvous


def test_jobs_of_hydra_meet_in_different_places(hydra: dict[str, str]) -> None:
    """Whatever process is at the other end of PMI_FD: here one, there another."""
    read, write = os.pipe()
    if os.fork() == 0:
        _ours, theirs = socket.socketpair()
        os.write(write, find_place(hydra | {"PMI_FD": str(theirs.fileno())}).rendezvous.encode())
        os._exit(0)
    os.wait()
    assert os.read(read, 1000).decode() not in ("", find_place(hydra).rendezvous)


def test_users_meet_in_different_places(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = find_place(SLURM).rendezvous
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert find_place(SLURM).rendezvous != ours
