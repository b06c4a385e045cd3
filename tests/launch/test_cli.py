"""The command line: a mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

import collx
from tests import jobs


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "collx", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=jobs.DEADLINE, env=jobs.CLEAN)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rum -n 2 x.py", "did you mean run?"),
        ("xyz", "there are run, perf, verify"),
        ("run", "there is no program to run"),
        ("run -n 2", "there is no program to run"),
        ("run -n 2 --", "there is no program to run"),
        ("run -n 0 prog.py", "a job has at least one rank"),
        ("run -n two prog.py", "invalid int value: 'two'"),
        ("run -n 2 nosuchprogram.py", "there is no program 'nosuchprogram.py'"),
        ("run -m", "-m needs the name of a module"),
        ("run --tag maybe true", "invalid choice: 'maybe'"),
        ("run --keep true", "unrecognized arguments: --keep"),
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


def test_help_and_version() -> None:
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        done = command(*arguments)
        assert done.returncode == 0
        assert done.stdout
        assert not done.stderr
    assert command("--version").stdout == f"collx {collx.__version__}\n"
    assert command().returncode == 2
