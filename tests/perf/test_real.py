"""Small sweeps by collx itself: processes over shared memory, from the command line and inside a job."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from collx.errors import CollxError
from collx.perf import contest, rivals
from collx.perf.collectives import MEASURED

COLLX = [sys.executable, "-c", "import sys; from collx.cli import main; sys.exit(main())"]
SHORT = ["-w", "1", "--iters", "2"]


def done(*command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == status, result.stderr
    return result


@pytest.mark.parametrize("collective", MEASURED)
def test_every_collective_is_right(collective: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    done(*COLLX, "perf", collective, "-n", "3", "-b", "8", "-e", "256K", "-f", "32", *SHORT, "--json", str(path))
    document = json.loads(path.read_text())
    assert document["out_of_bounds"]["count"] == 0
    assert document["transports"] == ["shm"]
    assert len(document["results"]) == (1 if collective == "barrier" else 4)


@pytest.mark.parametrize("collective", ["all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"])
def test_every_algorithm_is_right(collective: str) -> None:
    command = [*COLLX, "perf", collective, "-n", "4", "-b", "8", "-e", "64K", "-f", "128", *SHORT, "--algorithm", "all"]
    result = done(*command)
    assert "Out of bounds values : 0 OK" in result.stdout
    assert result.stderr == ""


def test_a_function_is_measured_beside_a_built_in_algorithm() -> None:
    both = "ring,examples.own_schedule:all_reduce"
    result = done(*COLLX, "perf", "all_reduce", "-n", "3", "-b", "8", "-e", "8", *SHORT, "--algorithm", both)
    assert "examples.own_schedule:all_reduce" in result.stdout
    assert "Out of bounds values : 0 OK" in result.stdout
    wrong = [*COLLX, "perf", "broadcast", "-n", "3", "--algorithm", "examples.own_schedule:all_reduce"]
    assert done(*wrong, status=1).stderr.startswith("collx perf: broadcast by all_reduce on 3 ranks: rank ")


def test_inside_a_job_it_measures_the_job() -> None:
    inside = ["run", "-n", "3", "--tag", "off", "-m", "collx.perf", "all_reduce", "-b", "8", "-e", "8", *SHORT]
    assert "# nRanks 3 " in done(*COLLX, *inside).stdout


def test_ranks_that_are_not_the_job_s_are_a_mistake() -> None:
    inside = ["run", "-n", "2", "-m", "collx.perf", "all_reduce", "-n", "4"]
    assert "-n 4 inside a job of 2 ranks" in done(*COLLX, *inside, status=2).stderr


def test_on_a_terminal_progress_goes_to_stderr_only(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    with (tmp_path / "out").open("w+") as out:
        command = [*COLLX, "perf", "all_reduce", "-n", "2", "-b", "8", "-e", "64", *SHORT]
        status = subprocess.run(command, stdout=out, stderr=terminal, timeout=240).returncode
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main, 4096):
                shown += chunk
        except OSError:  # how a terminal tells its end
            pass
        os.close(main)
        out.seek(0)
        text = out.read()
    assert status == 0
    assert b"all_reduce" in shown
    assert "\x1b" not in text
    assert "Out of bounds values : 0 OK" in text


def test_a_comparison_takes_turns_and_compares_results() -> None:
    """collx against itself stands in for another library, which CI need not have."""
    other = dataclasses.replace(rivals.RIVALS["collx"], name="openmpi")
    call = contest.Call("all_reduce", 1024, "float32", "sum", 0)
    with contest.Contest([rivals.RIVALS["collx"], rivals.RIVALS["collx.empty"], other], 2, lambda: "?") as jobs:
        rounds, differing = jobs.measure(call, seconds=0.1, nbytes=1 << 14)
        idle = jobs.idle
    assert differing == []
    assert len(rounds) >= 3
    assert all(seconds > 0 for turns in rounds for seconds in turns.seconds.values())
    assert all(list(turns.seconds) == ["collx", "collx.empty", "openmpi"] for turns in rounds)
    assert max(idle.values()) < 0.5, "ranks that are not at turn must not spin"


def test_a_library_that_does_not_start_says_why() -> None:
    broken = rivals.Rival("broken", "none", (), rivals.RIVALS["collx"].command)
    with pytest.raises(CollxError, match=r"broken did not start: .*KeyError"), rivals.Job(broken, 2):
        pass


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLX_VENVS", str(tmp_path))
    wheels = (str(tmp_path / "none.whl"),)
    broken = rivals.Rival("broken", "mpi", wheels, rivals.RIVALS["openmpi"].command)
    with pytest.raises(CollxError, match=r"broken cannot be set up in .*broken: .*'none'"):
        rivals.python_of(broken)
