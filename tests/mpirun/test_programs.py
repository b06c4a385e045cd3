"""The programs of this folder, as users run them: under both MPIs, and that they tell what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import jobs
from tests.launchers import MPIS, Launcher
from tests.programs import FEW, FEWER, FOLDER, NAMES, passed

Wrong = Callable[[str], subprocess.CompletedProcess[str]]
each_mpi = pytest.mark.parametrize("mpi", MPIS, ids=str)


@each_mpi
@pytest.mark.parametrize("forced", ["", "mpi"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_all_programs_pass(mpi: Launcher, ranks: int, forced: str) -> None:
    """With what is chosen by itself on one host, and with MPI forced."""
    done = mpi.run(ranks, FOLDER, *(FEW if ranks < 5 else FEWER), COLLX_TRANSPORT=forced)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    used = forced or ("shm" if ranks > 1 else "memory")
    assert done.stdout.startswith(f"# <collx.Communicator rank 0 of {ranks} over {used}> on ")
    assert passed(done.stdout).keys() == NAMES


@each_mpi
def test_a_program_by_itself(mpi: Launcher) -> None:
    done = mpi.run(3, FOLDER / "reduce.py", "--min-bytes", 4096, "--max-bytes", "1M", "--dtypes", "float32")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^PASS reduce float32 avg root 2 \d+ B$", done.stdout, re.MULTILINE)
    assert re.search(r"^PASS reduce float32 \w+ root \d 4096 B$", done.stdout, re.MULTILINE)
    assert re.search(r"^PASS reduce float32 \w+ root \d 1048576 B$", done.stdout, re.MULTILINE)


def test_some_of_all_programs() -> None:
    done = jobs.collx_run("-n", 2, "--tag", "off", "python", FOLDER, "scan", "barrier", *FEW)
    assert list(passed(done.stdout)) == ["scan", "barrier"]


WRONG = f"""
sys.path.insert(0, "{FOLDER}")
import all_reduce, harness

right = collx.Communicator.all_reduce

def wrong(comm, x, op):
    result = right(comm, x, op)
    if comm.rank == 1 and x.size > 5:
        %s
    return result

collx.Communicator.all_reduce = wrong
harness.main(all_reduce.check)
"""


@pytest.fixture(params=["collx run", *MPIS], ids=str)
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Wrong:
    """Runs all_reduce on ranks of which one does not do what it should."""
    arguments = ("--max-bytes", 64, "--repeats", 1, "--dtypes", "int64", "--ops", "sum")

    def run(what: str) -> subprocess.CompletedProcess[str]:
        path = jobs.program(tmp_path, WRONG % what)
        if isinstance(request.param, Launcher):
            return request.param.run(3, path, *arguments)
        return jobs.collx_run("-n", 3, "--tag", "off", path, *arguments)

    return run


def test_a_wrong_result_is_told_and_the_rest_goes_on(wrong: Wrong) -> None:
    done = wrong("result[5] = 77")
    assert done.returncode == 1
    verdicts = re.findall(r"^(PASS|FAIL) all_reduce int64 sum (\d+) B(.*)$", done.stdout, re.MULTILINE)
    assert verdicts[0] == ("PASS", "0", "")
    assert verdicts[-1] == ("FAIL", "64", ": wrong on rank 1")
    assert f"# all_reduce: {len(verdicts) - 1} of {len(verdicts)} cases passed" in done.stdout
    told = r"^rank 1: all_reduce int64 sum 64 B: element 5 of 8 is 77, must be -?\d+; 1 are wrong$"
    assert re.search(told, done.stderr, re.MULTILINE)


def test_an_error_is_told_and_ends_the_job(wrong: Wrong) -> None:
    done = wrong("raise ValueError('lost my way')")
    assert done.returncode != 0
    # Hydra may be quicker to end the others than rank 0 to say what it heard.
    told = r"^FAIL all_reduce int64 sum 64 B: AbortedError: .*|^collx: "
    assert re.search(rf"({told}).*rank 1.*lost my way", done.stdout + done.stderr, re.MULTILINE), done.stderr


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("--max-bytes", "many"), "'many' is not a size"),
        (("--dtypes", "float33"), "unknown dtype 'float33'; did you mean float32"),
        (("--ops", "sum,som"), "unknown op 'som'; did you mean sum"),
        (("--min-bytes", "1M", "--max-bytes", "1K"), "--min-bytes must not exceed --max-bytes"),
        (("--factor", "1"), "--factor must be above 1"),
        (("--dtypes", "float32", "--ops", "bxor"), "none of --dtypes has any of --ops"),
    ],
)
def test_mistakes_on_the_command_line(mistake: tuple[str, ...], said: str) -> None:
    program = [sys.executable, str(FOLDER / "all_reduce.py"), *mistake]
    done = subprocess.run(program, capture_output=True, text=True, timeout=jobs.DEADLINE, env=jobs.CLEAN)
    assert done.returncode != 0
    assert said in done.stderr
