"""What one rank tells the others: an exception that ends it, a revocation, its last calls."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from tests import jobs

CALLS: dict[str, Callable[[Communicator], Any]] = {
    "all_reduce": lambda comm: comm.all_reduce(np.ones(1000)),
    "barrier": lambda comm: comm.barrier(),
    "async": lambda comm: comm.all_reduce(np.ones(1000), async_op=True).wait(),
    "recv": lambda comm: comm.recv(np.ones(1), 1),
}

# -- exceptions ---------------------------------------------------------------------------------------

LOST = """
comm = collx.init()
calls = {
    "all_reduce": lambda: comm.all_reduce(np.ones(1000)),
    "barrier": lambda: comm.barrier(),
    "async": lambda: comm.all_reduce(np.ones(1000), async_op=True).wait(),
    "recv": lambda: comm.recv(np.ones(1), 1),
}
if comm.rank == 1:
    comm.barrier()
    raise ValueError("lost my way")
try:
    comm.barrier()
    calls[sys.argv[1]]()
except collx.AbortedError as error:
    print(error)
"""


@pytest.mark.parametrize("call", CALLS)
def test_an_exception_that_ends_a_program_reaches_the_others(tmp_path: Path, call: str) -> None:
    done = jobs.collx_run("-n", 3, "--keep-going", jobs.program(tmp_path, LOST), call)
    assert done.returncode == 1
    for rank in (0, 2):
        pattern = rf"^\[{rank}\] rank {rank} in .*: rank 1 gave up: .*ValueError: lost my way$"
        assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout


# -- revoking -----------------------------------------------------------------------------------------

TRIES = 3  # the quickest counts: this is about sleepers that nobody wakes, not about a busy machine


def await_sleep(pid: int) -> None:
    """Return when the process's main thread has been asleep for a while."""
    seen = 0
    while seen < 5:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        seen = seen + 1 if state == "S" else 0
        time.sleep(0.01)


def revoked(comm: Communicator, call: str) -> float:
    took = []
    pids = comm.all_gather(np.array([os.getpid()])).tolist()
    for _ in range(TRIES):
        group = comm.split(0)
        assert group is not None
        if comm.rank == 1:
            for pid in pids[:1] + pids[2:]:
                await_sleep(pid)
            moment = time.monotonic()
            group.revoke()
        else:
            with pytest.raises(collx.RevokedError, match="rank 1 revoked"):
                CALLS[call](group)
            moment = time.monotonic()
        moments = comm.all_gather(np.array([moment]))
        took.append(float(moments.max() - moments[1]))
    return min(took)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [2, 5])
def test_revoking_wakes_who_sleeps(call: str, size: int) -> None:
    assert max(collx.spawn(revoked, size, call)) < 0.1


# -- the last calls -----------------------------------------------------------------------------------


def shown(comm: Communicator) -> str:
    file = io.StringIO()
    comm.dump(file)
    return file.getvalue()


def rows(text: str) -> dict[int, list[list[str]]]:
    """The rows of a dump by rank."""
    found: dict[int, list[list[str]]] = {}
    for line in text.splitlines():
        cells = re.split(r"  +", line.strip())
        if cells[0].isdigit():
            found.setdefault(int(cells[0]), []).append(cells)
    return found


def dumping(comm: Communicator) -> str:
    if comm.rank == 2:
        assert re.search(r"no collective yet: rank .*2", shown(comm))
    other = comm.split(0)
    assert other is not None
    for _ in range(40):
        other.all_reduce(np.ones(3, np.float32), "max")
    if comm.rank == 0:
        while len(re.findall(r" 41 .* under way", text := shown(other))) < 2:
            pass
        other.all_reduce(np.ones(5))
        return text
    other.all_reduce(np.ones(5))
    return ""


def test_a_dump_shows_the_last_calls_of_all_ranks() -> None:
    calls = rows(collx.spawn(dumping, 3)[0])
    assert [row[1] for row in calls[0]] == [str(number) for number in range(9, 41)]
    for rank in (1, 2):
        assert [row[1] for row in calls[rank]] == [str(number) for number in range(10, 42)]
        for row in calls[rank][:-1]:
            assert row[2] == "all_reduce"
            assert {"float32", "max", "done"} <= set(row)
        assert {"all_reduce", "float64", "sum", "under way"} <= set(calls[rank][-1])


WAITING = """
comm = collx.init()
comm.barrier()
print(os.getpid(), flush=True)
if comm.rank == 1:
    time.sleep(600)
comm.all_reduce(np.ones(4))
"""


def test_a_signal_shows_the_last_calls_of_who_waits(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, WAITING)
    with jobs.nothing_left_behind(str(path)):
        job = jobs.start("-n", 2, path)
        assert job.stdout is not None
        assert job.stderr is not None
        pids = dict(job.stdout.readline().split() for _ in range(2))
        await_sleep(int(pids["[0]"]))
        os.kill(int(pids["[0]"]), signal.SIGUSR1)
        lines = [job.stderr.readline() for _ in range(5)]  # a title, a head, two calls of rank 0, one of rank 1
        job.terminate()
        job.communicate(timeout=jobs.DEADLINE)
    assert "the last collectives" in lines[0]
    assert re.search(r"\b0 +2 +all_reduce .* under way", "".join(lines))
    assert re.search(r"\b1 +1 +barrier .* done", "".join(lines))


def test_a_deadline_shows_the_last_calls(tmp_path: Path) -> None:
    text = WAITING.replace("np.ones(4)", "np.ones(4), timeout=0.3")
    done = jobs.collx_run("-n", 2, jobs.program(tmp_path, text))
    assert re.search(r"\b0 +2 +all_reduce .* failed", done.stderr)
    assert "rank 1 has finished barrier #1 and called nothing since" in done.stderr
