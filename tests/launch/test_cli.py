"""The command line: a mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import collx
from tests import jobs


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "collx", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=jobs.DEADLINE, env=jobs.CLEAN | environ)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "there are run, perf, tune, explain, verify, topo"),
        ("rum -n 2 x.py", "did you mean run?"),
        ("xyz", "there are run, perf, tune, explain, verify, topo"),
        ("run", "there is no program to run"),
        ("run -n 2", "there is no program to run"),
        ("run -n 2 --", "there is no program to run"),
        ("run -n 0 prog.py", "a job has at least one rank"),
        ("run -n two prog.py", "invalid int value: 'two'"),
        ("run -n 2 nosuchprogram.py", "there is no program 'nosuchprogram.py'"),
        ("run -n 2 tests", "there is no program 'tests'; it is a directory without a __main__.py"),
        ("run -m", "-m needs the name of a module"),
        ("run --tag maybe true", "invalid choice: 'maybe'"),
        ("run --keep true", "unrecognized arguments: --keep"),
        ("run --nnodes 0 -n 2 true", "a job is on at least one host"),
        ("run --nnodes 2 --node-rank 0 --rendezvous a:1 true", "--nnodes 2 wants -n too"),
        ("run --nnodes 2 -n 2 --rendezvous a:1 true", "--nnodes 2 wants --node-rank too"),
        ("run --nnodes 2 -n 2 --node-rank 0 true", "--nnodes 2 wants --rendezvous too"),
        ("run --nnodes 2 -n 2 --node-rank 2 --rendezvous a:1 true", "it goes from 0 to 1"),
        ("run --nnodes 2 -n 2 --node-rank 0 --rendezvous a true", "--rendezvous 'a' is no HOST:PORT"),
        ("run --nnodes 2 -n 2 --node-rank 0 --rendezvous unix:/a true", "is no HOST:PORT"),
        ("run --secret-file /no/such/file true", "/no/such/file', which cannot be read: No such file"),
        ("verify --size 0", "'0' is no positive number"),
        ("perf nosuchcollective", "nosuchcollective"),
        ("perf all_reduce -n 0", "-n must be at least 1"),
    ],
)
def test_mistakes_take_one_line(arguments: str, said: str) -> None:
    done = command(*arguments.split())
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_program_that_cannot_be_executed(tmp_path: object) -> None:
    path = f"{tmp_path}/program"
    with open(path, "w") as file:
        file.write("#!/no/such/interpreter\n")
    subprocess.run(["chmod", "755", path], check=True)
    done = command("run", "-n", "2", path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot start" in done.stderr


def test_more_ranks_than_the_machine_lets_start() -> None:
    run = f"ulimit -n 64; exec {sys.executable} -m collx run -n 100 true"
    done = subprocess.run(run, shell=True, capture_output=True, text=True, timeout=jobs.DEADLINE, env=jobs.CLEAN)
    assert done.returncode == 2
    assert "cannot start 100 ranks here: Too many open files" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_and_version() -> None:
    for arguments in (["--help"], ["run", "--help"], ["help", "verify"], ["perf", "--help"], ["--version"]):
        done = command(*arguments)
        assert done.returncode == 0
        assert done.stdout
        assert not done.stderr
    assert command("--version").stdout == f"collx {collx.__version__}\n"


@pytest.mark.parametrize(("asked", "said"), [("shn", "transports are shm"), ("memory", "shm")])
@pytest.mark.parametrize("arguments", ["run -n 2 true", "perf all_reduce -e 8"])
def test_a_transport_that_cannot_serve_is_told_once(asked: str, said: str, arguments: str) -> None:
    done = command(*arguments.split(), COLLX_TRANSPORT=asked)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("half", [{"COLLX_SIZE": "2"}, {"COLLX_RANK": "0"}, {"COLLX_RANK": "5", "COLLX_SIZE": "2"}])
def test_a_half_set_environment_is_no_job_to_measure_in(half: dict[str, str]) -> None:
    done = command("perf", "all_reduce", "-e", "8", **half)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


@pytest.mark.parametrize(
    "arguments",
    ["--help", "verify ring --size 3", "perf all_reduce -e 64", "run -n 2 yes", "explain all_reduce 1M -n 2"],
)
def test_a_reader_that_has_seen_enough(arguments: str) -> None:
    """The pipe is closed at the other end before anything is written."""
    read, write = os.pipe()
    os.close(read)
    run = [sys.executable, "-m", "collx", *arguments.split()]
    done = subprocess.run(run, stdout=write, stderr=subprocess.PIPE, timeout=jobs.DEADLINE, env=jobs.CLEAN)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert not done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["--help", "verify ring --size 3", "perf all_reduce -e 64", "run -n 2 yes", "explain all_reduce 1M -n 2"],
)
def test_a_full_disk_is_one_line(arguments: str) -> None:
    with open("/dev/full", "w") as full:
        run = [sys.executable, "-m", "collx", *arguments.split()]
        done = subprocess.run(
            run, stdout=full, stderr=subprocess.PIPE, text=True, timeout=jobs.DEADLINE, env=jobs.CLEAN
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["run -n 2 true", "perf all_reduce -e 8", "--help"])
def test_closed_standard_streams_are_none_of_its_concern(arguments: str, closed: str) -> None:
    run = f"exec {sys.executable} -m collx {arguments} {closed}"
    assert subprocess.run(run, shell=True, timeout=jobs.DEADLINE, env=jobs.CLEAN).returncode == 0
