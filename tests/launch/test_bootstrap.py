"""Finding one's place in the environment, and joining the world once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import collx
from collx.bootstrap import LONE, UNKNOWN, Place, choose_place, find_place, find_transport
from collx.environment import COLLX_RUN
from tests import jobs

PLACE = Place(2, 4, 2, "unix:/somewhere", 4)


def test_a_process_without_launcher_is_alone() -> None:
    assert find_place({"PATH": "/bin"}) == LONE


@given(st.integers(2, 1000).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))))
def test_environment_and_back(rank_and_size: tuple[int, int]) -> None:
    rank, size = rank_and_size
    place = Place(rank, size, rank, "unix:/d", size)
    assert find_place(place.environment()) == place


def test_local_rank_and_size_are_optional() -> None:
    environ = PLACE.environment()
    del environ["COLLX_LOCAL_RANK"], environ["COLLX_LOCAL_SIZE"]
    assert find_place(environ) == PLACE


@pytest.mark.parametrize("missing", range(3))
def test_half_set_environment_names_what_is_missing(missing: int) -> None:
    environ = PLACE.environment()
    name = COLLX_RUN.required[missing]
    del environ[name]
    with pytest.raises(collx.BootstrapError, match=f"is set, as by collx run, but {name} is not; start"):
        find_place(environ)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COLLX_RANK", "4", "COLLX_RANK is 4, but it goes from 0 to 3"),
        ("COLLX_RANK", "-1", "COLLX_RANK is -1"),
        ("COLLX_RANK", "one", "COLLX_RANK is 'one', which is not a number"),
        ("COLLX_SIZE", "0", "COLLX_SIZE is 0"),
        ("COLLX_SIZE", "", "COLLX_SIZE is ''"),
        ("COLLX_LOCAL_RANK", "9", "COLLX_LOCAL_RANK is 9"),
        ("COLLX_LOCAL_SIZE", "5", "COLLX_LOCAL_SIZE is 5, but the job has 4 ranks"),
        ("COLLX_LOCAL_SIZE", "0", "COLLX_LOCAL_SIZE is 0"),
    ],
)
def test_impossible_values_name_the_variable(name: str, value: str, said: str) -> None:
    with pytest.raises(collx.BootstrapError, match=said):
        find_place(PLACE.environment() | {name: value})


@pytest.mark.parametrize(
    ("asked", "place", "said"),
    [
        ("shm", replace(PLACE, local_size=UNKNOWN, rendezvous="tcp://a:1"), "an unknown number of 4 .* and TCP joins"),
        ("shm", replace(PLACE, local_size=2), "only 2 of 4 ranks are on this host"),
        ("memory", PLACE, "4 processes; use shm"),
        ("smh", PLACE, "'smh', but the transports are shm, memory, tcp, mpi"),
    ],
)
def test_a_transport_that_cannot_serve_is_refused(asked: str, place: Place, said: str) -> None:
    with pytest.raises(collx.TransportError, match=said):
        find_transport(place, {"COLLX_TRANSPORT": asked})


@pytest.mark.parametrize(
    ("place", "transport"),
    [
        (PLACE, "shm"),
        (replace(PLACE, local_size=2), "shm+mpi"),  # which launchers of MPI leave to it
        (replace(PLACE, local_size=2, rendezvous="tcp://head:1"), "shm+tcp"),
        (replace(PLACE, local_size=UNKNOWN, rendezvous="file:///meet"), "shm+tcp"),
        (replace(PLACE, local_size=2, rendezvous="torch://head:1/0"), "shm+tcp"),
        (LONE, "memory"),
    ],
)
def test_the_usual_transport(place: Place, transport: str) -> None:
    assert find_transport(place, {}) == transport


def alone(text: str, **environ: str) -> str:
    """What a program that no launcher started prints."""
    command = [sys.executable, "-c", jobs.PRELUDE + text]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=jobs.CLEAN | environ).stdout.strip()


@pytest.mark.parametrize("transport", ["", "shm", "memory"])
def test_a_lone_process_is_a_world_of_one(transport: str) -> None:
    text = "with collx.init() as c: print(c.rank, c.size, c.local_rank, c.transports, c.all_reduce(np.arange(3)))"
    expected = f"0 1 0 ('{transport or 'memory'}',) [0 1 2]"
    assert alone(text, COLLX_TRANSPORT=transport) == expected


def test_init_returns_the_open_world_and_a_lone_process_may_open_a_new_one() -> None:
    assert (
        alone("a = collx.init(); b = collx.init(); a.close(); c = collx.init(); print(a is b, c is a)") == "True False"
    )


@pytest.mark.parametrize("method", ["tcp://head:1", "head:1", "file:///shared/meet", "unix:/here"])
def test_a_place_by_arguments(method: str) -> None:
    place = choose_place(method, 1, 2, {"RANK": "7", "PATH": "/bin"})
    known = 2 if method.startswith("unix") else UNKNOWN
    assert (place.rank, place.size, place.local_size) == (1, 2, known)
    assert place.rendezvous == method.replace("head", "tcp://head").replace("tcp://tcp", "tcp")
    assert choose_place("tcp://head:1", 0, 1, {}) == LONE


def test_arguments_and_the_environment() -> None:
    launched = PLACE.environment() | {"COLLX_LOCAL_SIZE": "3"}
    assert choose_place("tcp://head:1", None, None, launched) == replace(PLACE, rendezvous="tcp://head:1", local_size=3)
    assert choose_place("env://", None, None, PLACE.environment()) == PLACE
    assert choose_place("env://", 3, 4, {"COLLX_RENDEZVOUS": "head:1"}).rendezvous == "tcp://head:1"
    torch = {"MASTER_ADDR": "head", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "9"}
    assert choose_place("env://", 3, 4, torch) == Place(3, 4, UNKNOWN, "tcp://head:1", UNKNOWN)


@pytest.mark.parametrize(
    ("method", "rank", "environ", "said"),
    [
        ("env://", None, {}, "wants rank= and size=, as there are no launcher's variables"),
        ("tcp://head:1", None, {}, "wants rank= and size=, as there are no launcher's variables"),
        ("tcp://head:1", None, {"RANK": "0"}, "RANK is set, as by torchrun, but WORLD_SIZE is not"),
        ("env://", 0, {"MASTER_ADDR": "head"}, "init_method is env://, but MASTER_PORT is not"),
    ],
)
def test_what_neither_arguments_nor_environment_say(
    method: str, rank: int | None, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(collx.BootstrapError, match=said):
        choose_place(method, rank, None if rank is None else 2, environ)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rank": 0}, "rank= is given alone"),
        ({"size": 2}, "size= is given alone"),
        ({"rank": 0, "size": 2}, "want init_method="),
        ({"rank": 2, "size": 2, "init_method": "tcp://head:1"}, "rank is 2, but ranks go from 0 to 1"),
        ({"rank": 0, "size": 0, "init_method": "tcp://head:1"}, "size is 0"),
        ({"rank": 0, "size": 1.5, "init_method": "tcp://head:1"}, "size must be an integer"),
        ({"rank": 0, "size": 2, "init_method": "mpi://"}, "init_method is 'mpi://', but must be env://, tcp://"),
        ({"rank": 0, "size": 2, "init_method": 7}, "init_method must be a text"),
    ],
)
def test_arguments_that_are_none(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        collx.init(**arguments)


def test_ranks_of_one_host_meet_by_arguments() -> None:
    """Without a launcher, a secret, or a port."""
    text = """
with collx.init(init_method="tcp://127.0.0.1:29400", rank=int(sys.argv[1]), size=2) as comm:
    print(comm.rank, comm.size, comm.local_rank, comm.transports, comm.all_reduce(np.ones(2)))
"""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", jobs.PRELUDE + text, str(rank)], stdout=subprocess.PIPE, text=True, env=jobs.CLEAN
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=jobs.DEADLINE)[0] for rank in ranks]
    assert said == [f"{rank} 2 {rank} ('shm',) [2. 2.]\n" for rank in range(2)]


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "soon", True, 1j])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        collx.init(timeout)


def test_a_launched_process_joins_its_job_once(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        first = collx.init()
        assert collx.init() is first
        first.barrier()
        first.close()
        try:
            collx.init()
        except collx.ClosedError as error:
            print(error)
        """,
    )
    done = jobs.collx_run("-n", 2, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a process joins its job once") == 2


def test_a_child_forked_from_a_rank_is_no_rank(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        comm = collx.init()
        if os.fork() == 0:
            try:
                collx.init()
            except collx.ClosedError as error:
                os.write(1, f"{error}\\n".encode())
            os._exit(0)
        os.wait()
        comm.barrier()
        """,
    )
    done = jobs.collx_run("-n", 2, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("forked from it and is no rank") == 2


def test_a_program_started_by_a_rank_is_told_that_the_job_is_complete(tmp_path: Path) -> None:
    inner = "import collx\ntry: collx.init()\nexcept collx.BootstrapError as error: print(error)"
    path = jobs.program(
        tmp_path,
        f"""
        comm = collx.init()
        comm.barrier()
        subprocess.run([sys.executable, "-c", {inner!r}])
        comm.barrier()
        """,
    )
    done = jobs.collx_run("-n", 2, path)
    assert done.stdout.count("there is nobody to meet") == 2, done.stdout + done.stderr


def test_this_process_is_no_rank() -> None:
    """Tests in this folder count on it."""
    assert not [name for name in os.environ if name in COLLX_RUN.required]
