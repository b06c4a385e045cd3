"""What the variables of launchers tell of a process's place."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator

import pytest

import collx
from collx.bootstrap import LONE, UNKNOWN, find_place

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
    "SLURM_STEP_NODELIST": "node[07-09]",
}
TORCH = {"RANK": "5", "WORLD_SIZE": "6", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}
TORCHRUN = TORCH | {
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
KUBERNETES = {"JOB_COMPLETION_INDEX": "5", "COLLX_SIZE": "6", "COLLX_RENDEZVOUS": "tcp://job-0.pods:29400"}
BY_HAND = {"COLLX_RANK": "5", "COLLX_SIZE": "6", "COLLX_RENDEZVOUS": "[fd77::1]:29400"}


@pytest.fixture
def hydra() -> Iterator[dict[str, str]]:
    """Hydra's variables, with this process as the launcher at the other end of PMI_FD."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield HYDRA | {"PMI_FD": str(theirs.fileno())}


LAUNCHED = {
    "open-mpi": OPEN_MPI,
    "hydra": HYDRA,
    "slurm": SLURM,
    "torch": TORCH,
    "torchrun": TORCHRUN,
    "kubernetes": KUBERNETES,
    "by-hand": BY_HAND,
}


@pytest.fixture(params=LAUNCHED)
def environ(request: pytest.FixtureRequest, hydra: dict[str, str]) -> dict[str, str]:
    return hydra if request.param == "hydra" else LAUNCHED[request.param]


def test_the_place_and_where_its_host_meets(environ: dict[str, str]) -> None:
    place = find_place(environ)
    told = any(name in environ for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "PMI_RANK", "SLURM_LOCALID", "LOCAL_RANK"))
    assert (place.rank, place.size) == (5, 6)
    assert (place.local_rank, place.local_size) == ((1, 2) if told else (UNKNOWN, UNKNOWN))
    assert place.pmi == int(environ.get("PMI_FD", -1))
    assert find_place(environ) == place


def test_where_ranks_of_several_hosts_meet(hydra: dict[str, str]) -> None:
    assert find_place(OPEN_MPI).rendezvous.startswith("job:/")
    assert find_place(hydra).rendezvous.startswith("job:/")
    assert re.fullmatch(r"tcp://node07:6[1-5]\d\d\d", find_place(SLURM).rendezvous)
    assert find_place(TORCH).rendezvous == "tcp://head:29500"
    assert find_place(TORCH | {"MASTER_ADDR": "fd77::1"}).rendezvous == "tcp://[fd77::1]:29500"
    assert find_place(TORCHRUN).rendezvous == "torch://head:29500/3"
    assert find_place(KUBERNETES).rendezvous == "tcp://job-0.pods:29400"
    assert find_place(BY_HAND).rendezvous == "tcp://[fd77::1]:29400"


@pytest.mark.parametrize("meeting", ["tcp://other:1", "other:1"])
def test_a_meeting_place_that_is_given_comes_before_the_launchers(environ: dict[str, str], meeting: str) -> None:
    assert find_place(environ | {"COLLX_RENDEZVOUS": meeting}).rendezvous == "tcp://other:1"


@pytest.mark.parametrize(
    ("environ", "alone"),
    [
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "6", "SLURM_NODEID": "0"}),
        (TORCH, {"MASTER_ADDR": "localhost"}),
        (TORCHRUN, {"LOCAL_WORLD_SIZE": "6", "LOCAL_RANK": "5"}),
        (BY_HAND, {"COLLX_LOCAL_SIZE": "6"}),
        (BY_HAND, {"COLLX_RENDEZVOUS": "tcp://127.0.0.1:29400"}),
        (BY_HAND, {"COLLX_RENDEZVOUS": "[::1]:29400"}),
    ],
)
def test_ranks_of_one_host_meet_in_a_directory(environ: dict[str, str], alone: dict[str, str]) -> None:
    """Whatever address is given, nobody listens there."""
    place = find_place(environ | alone)
    assert place.rendezvous.startswith("job:/")
    assert place.local_size == 6


def test_who_says_that_others_are_elsewhere_is_believed() -> None:
    """As of two `collx run` on one host, which have a part of the job each."""
    place = find_place(BY_HAND | {"COLLX_RENDEZVOUS": "127.0.0.1:1", "COLLX_LOCAL_RANK": "1", "COLLX_LOCAL_SIZE": "2"})
    assert (place.rendezvous, place.local_rank, place.local_size) == ("tcp://127.0.0.1:1", 1, 2)


def test_a_half_set_environment_names_what_is_missing(environ: dict[str, str]) -> None:
    spare = ("SLURM_STEP_ID", "PMIX_SERVER_URI4", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in environ:
        if name not in spare and not name.startswith("TORCHELASTIC") and name != "JOB_COMPLETION_INDEX":
            with pytest.raises(collx.BootstrapError, match=f"but {name} is not; start the p"):
                find_place({other: value for other, value in environ.items() if other != name})


@pytest.mark.parametrize(
    "name",
    [
        "RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "JOB_COMPLETION_INDEX",
        "COLLX_RENDEZVOUS",
        "COLLX_LOCAL_SIZE",
    ],
)
def test_one_variable_is_half_an_environment(name: str) -> None:
    """A world of one in each of its processes would not be what was meant."""
    with pytest.raises(collx.BootstrapError, match=f"{name} is set, as by"):
        find_place({name: "1"})


def test_a_world_of_one_meets_nobody(environ: dict[str, str]) -> None:
    counts = ("SIZE", "NRANKS", "NUM_TASKS", "PER_NODE", "PORT")
    alone = {name: "1" if name.endswith(counts) else "0" for name in environ} | {"COLLX_RENDEZVOUS": "there:1"}
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
        ("SLURM_STEP_NODELIST", ",", "SLURM_STEP_NODELIST is ',', which names no host"),
        ("MASTER_PORT", "x", "MASTER_ADDR and MASTER_PORT are 'head' and 'x', but must be"),
        ("LOCAL_RANK", "2", "LOCAL_RANK is 2, but it goes from 0 to 1"),
        ("JOB_COMPLETION_INDEX", "6", "JOB_COMPLETION_INDEX is 6, but it goes from 0 to 5"),
        ("COLLX_RENDEZVOUS", "there", "COLLX_RENDEZVOUS is 'there', but must be tcp://HOST:PORT, file:///PATH or"),
        ("COLLX_RENDEZVOUS", "tcp://there:65536", "COLLX_RENDEZVOUS is 'tcp://there:65536', but must be"),
        ("COLLX_RENDEZVOUS", "file://there", "COLLX_RENDEZVOUS is 'file://there', but must be"),
    ],
)
def test_impossible_values_name_the_variable(hydra: dict[str, str], name: str, value: str, said: str) -> None:
    launched = (OPEN_MPI, hydra, SLURM, TORCHRUN, KUBERNETES)
    environ = next(variables for variables in launched if name in variables)
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
    pod = KUBERNETES | {"COLLX_LOCAL_RANK": "0", "COLLX_LOCAL_SIZE": "1"}
    assert find_place(OPEN_MPI | hydra | SLURM | TORCHRUN) == find_place(TORCHRUN)
    assert find_place(OPEN_MPI | TORCH) == find_place(OPEN_MPI)
    assert find_place(SLURM | TORCH) == find_place(TORCH)
    assert find_place(SLURM | {"JOB_COMPLETION_INDEX": "1"}) == find_place(SLURM)
    assert find_place(TORCHRUN | {"JOB_COMPLETION_INDEX": "1"}) == find_place(TORCHRUN)
    run = {"COLLX_RANK": "0", "COLLX_SIZE": "2", "COLLX_RENDEZVOUS": "unix:/d"}
    told = {"COLLX_LOCAL_RANK": "0", "COLLX_LOCAL_SIZE": "2"}
    assert find_place(OPEN_MPI | hydra | SLURM | TORCHRUN | run) == find_place(run)
    assert find_place(pod | run | told) == find_place(run)


def test_an_unknown_launcher_that_speaks_pmi_is_refused() -> None:
    with pytest.raises(collx.BootstrapError, match="PMI_RANK is set, as by Hydra"):
        find_place({"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": "3"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("alone", "alone"),
        ("n1,n2", "n1"),
        ("n[3,5-9]", "n3"),
        ("n[003-120],m[1-2]", "n003"),
        ("rack[2-3]-n[07,09]-ib,x", "rack2-n07-ib"),
        ("a.b.c,d", "a.b.c"),
    ],
)
def test_slurm_names_the_first_host(nodes: str, first: str) -> None:
    assert find_place(SLURM | {"SLURM_STEP_NODELIST": nodes}).rendezvous.startswith(f"tcp://{first}:6")


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
    ours = find_place(OPEN_MPI).rendezvous
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert find_place(OPEN_MPI).rendezvous != ours
