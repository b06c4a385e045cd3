"""Ctrl-C in a wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import jobs

TRIES = 5  # the quickest counts: this is about waits that do not look, not about a busy machine

# Rank 0 waits for rank 1, which never comes, in one group after the other, and says when it was interrupted.
WAITING = f"""
comm = collx.init()
groups = [comm.split(0) for _ in range({TRIES})]
comm.barrier()
if comm.rank == 1:
    time.sleep(600)
print(os.getpid(), flush=True)
for group in groups:
    try:
        print("waiting", flush=True)
        %s
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
"""


def line_of(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    line = job.stdout.readline()
    assert line, job.communicate()
    return line.strip()


def asleep(pid: int) -> None:
    """Return when the process's main thread sleeps, or has run for a while; both are waits worth interrupting."""
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S":
            return


@pytest.mark.parametrize(
    "call",
    [
        "group.barrier()",
        "group.all_reduce(np.ones(1_000_000))",
        "group.all_reduce(np.ones(10), async_op=True).wait()",
        "group.recv(np.ones(10), 1)",
        "group.split(0)",
    ],
)
def test_a_wait_ends_within_100_ms(tmp_path: Path, call: str) -> None:
    path = jobs.program(tmp_path, WAITING % call)
    with jobs.nothing_left_behind(str(path)):
        job = jobs.start("-n", 2, "--tag", "off", path)
        pid = int(line_of(job))
        took = []
        for _ in range(TRIES):
            assert line_of(job) == "waiting"
            asleep(pid)
            begun = time.monotonic()
            os.kill(pid, signal.SIGINT)
            took.append(float(line_of(job)) - begun)
        job.terminate()
        job.communicate(timeout=jobs.DEADLINE)
    assert min(took) < 0.1


@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
def test_ctrl_c_while_spawn_forks(tmp_path: Path, moment: str) -> None:
    """What is raised in the hooks of a fork is swallowed by Python."""
    path = jobs.program(
        tmp_path,
        f"""
        os.register_at_fork({moment}=lambda: signal.raise_signal(signal.SIGINT))
        try:
            collx.spawn(lambda comm: time.sleep(600), 2)
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 1, path)
    assert done.stdout == "[0] interrupted\n"
    assert not done.stderr


@pytest.mark.parametrize("whom", [os.kill, os.killpg])
def test_ctrl_c_ends_the_proofs_under_way(whom: Callable[[int, int], None]) -> None:
    """Asked for where one of them takes minutes."""
    prove = [sys.executable, "-c", "import sys, collx.cli; sys.exit(collx.cli.main())"]
    job = subprocess.Popen(
        [*prove, "verify", "all_reduce:ring", "--sizes", "900-999"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=jobs.CLEAN,
        process_group=0,
    )
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    while not children.read_text():  # who prove
        assert job.poll() is None
        time.sleep(0.01)
    whom(job.pid, signal.SIGINT)
    out, error = job.communicate(timeout=jobs.DEADLINE)
    assert (job.returncode, out, error) == (130, "", "")


def test_a_wait_for_ranks_that_do_not_come(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        if os.environ["COLLX_RANK"] == "1":
            time.sleep(600)
        try:
            print("waiting", flush=True)
            collx.init()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        job = jobs.start("-n", 2, path)
        assert line_of(job) == "[0] waiting"
        job.send_signal(signal.SIGINT)
        assert line_of(job) == "[0] interrupted"
        job.communicate(timeout=jobs.DEADLINE)
    assert job.returncode == 130
