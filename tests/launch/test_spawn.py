"""collx.spawn: results, failures, and that no process outlives the call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collx
from tests import jobs

Communicator = collx.Communicator


class PicklableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one, two)
        self.two = two


def children() -> set[int]:
    """This process's children, the dead ones that nobody asked after included."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return set(map(int, text.split()))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_results_come_in_rank_order(n: int) -> None:
    added = 10  # closures work

    def body(comm: Communicator, factor: int) -> tuple[int, Any]:
        return comm.rank * factor + added, comm.all_reduce(np.arange(3))

    before = children(), os.listdir("/proc/self/fd")
    results = collx.spawn(body, n, 2)
    assert [number for number, _ in results] == [2 * rank + 10 for rank in range(n)]
    for _, array in results:
        np.testing.assert_array_equal(array, np.arange(3) * n)
    assert (children(), os.listdir("/proc/self/fd")) == before


def test_large_results() -> None:
    results = collx.spawn(lambda comm: np.full(1 << 20, comm.rank), 3)
    assert [array[-1] for array in results] == [0, 1, 2]


def test_init_in_a_rank_returns_its_communicator() -> None:
    def body(comm: Communicator) -> bool:
        same = collx.init() is comm
        comm.close()
        with pytest.raises(collx.ClosedError, match="joins its job once"):
            collx.init()
        return same

    assert collx.spawn(body, 2) == [True, True]


def test_spawn_within_spawn() -> None:
    def inner(comm: Communicator, outer: int) -> int:
        return int(comm.all_reduce(np.array([outer]))[0])

    assert collx.spawn(lambda comm: collx.spawn(inner, 2, comm.rank), 2) == [[0, 0], [2, 2]]


@pytest.mark.parametrize("n", [1, 3])
def test_first_failure_is_raised_with_its_traceback(n: int) -> None:
    def body(comm: Communicator) -> None:
        if comm.rank == n - 1:
            raise PicklableError(1, 2)
        comm.barrier()

    before = children()
    with pytest.raises(PicklableError) as caught:
        collx.spawn(body, n)
    assert caught.value.two == 2
    cause = str(caught.value.__cause__)
    assert f"rank {n - 1} of {n}" in cause
    assert "raise PicklableError(1, 2)" in cause
    assert children() == before


def test_survivors_that_wait_for_something_else_are_ended() -> None:
    def body(comm: Communicator) -> None:
        if comm.rank == 1:
            raise KeyError("gone")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    before = children()
    with pytest.raises(KeyError):
        collx.spawn(body, 3)
    assert children() == before


def test_an_exception_that_cannot_be_pickled() -> None:
    class LocalError(Exception):
        pass

    def body(comm: Communicator) -> None:
        raise LocalError("only known there")

    with pytest.raises(collx.CollxError, match="raised LocalError: only known there") as caught:
        collx.spawn(body, 1)
    assert "raise LocalError" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match=r"rank \d: the result, of type function, cannot be pickled"):
        collx.spawn(lambda comm: lambda: None, 2)


class Unmakeable:
    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("no number",)


def test_a_result_that_cannot_be_made_again() -> None:
    before = children()
    with pytest.raises(TypeError, match=r"rank \d: the result was pickled, but cannot be made again: .*no number"):
        collx.spawn(lambda comm: Unmakeable(), 2)
    assert children() == before


def test_a_child_forked_in_a_rank_does_not_speak_for_it() -> None:
    def body(comm: Communicator, ending: int) -> tuple[int, int]:
        child = os.fork()
        if child == 0:
            if ending == 0:
                return -1, -1
            if ending == 1:
                raise KeyError("in the child")
            sys.exit(ending)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), int(comm.all_reduce(np.ones(1, int))[0])

    for ending in (0, 1, 7):
        assert collx.spawn(body, 2, ending) == [(ending, 2)] * 2


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_is_no_way_to_return(code: int) -> None:
    with pytest.raises(collx.CollxError, match=rf"rank 0 of 1 called sys.exit\({code}\)"):
        collx.spawn(lambda comm: sys.exit(code), 1)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR2), "was killed by SIGUSR2"),
        (lambda: os._exit(5), "exited with code 5 before its function returned"),
    ],
    ids=["SIGKILL", "SIGUSR2", "exit"],
)
def test_a_rank_that_dies_is_named(ending: Any, said: str) -> None:
    def body(comm: Communicator) -> None:
        if comm.rank == 1:
            ending()
        comm.barrier()

    with pytest.raises(collx.RankFailedError, match=rf"rank 1 of 3 \(pid \d+\) {said}") as caught:
        collx.spawn(body, 3)
    assert caught.value.ranks == (1,)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="takes a function to run on each rank, not int"):
        collx.spawn(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on 0 ranks"):
        collx.spawn(print, 0)
    with pytest.raises(TypeError, match="n must be an integer"):
        collx.spawn(print, 2.0)  # type: ignore[arg-type]


def test_a_transport_that_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLX_TRANSPORT", "memory")
    with pytest.raises(collx.TransportError, match="this job has 2 processes; use shm"):
        collx.spawn(print, 2)


SPAWNING = """
def body(comm):
    comm.barrier()
    if comm.rank == 0:
        os.write(1, b"ready\\n")
    comm.recv(np.zeros(1), (comm.rank + 1) % comm.size)

try:
    collx.spawn(body, 3)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    path = jobs.program(tmp_path, SPAWNING)
    with jobs.nothing_left_behind(str(path)):
        job = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=jobs.CLEAN)
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.send_signal(number)
        said, _ = job.communicate(timeout=jobs.DEADLINE)
    assert said == ("interrupted\n" if number == signal.SIGINT else "")


def left_open(world: collx.Communicator, raises: bool) -> str:
    """Rank 0 ends while a communicator that others wait in is still open, and is kept by a cycle."""
    group = world.split(0)
    assert group is not None
    if world.rank == 0:
        cycle: list[object] = [group]
        cycle.append(cycle)
        if raises:
            raise KeyError("lost in rank 0")
        return ""
    with pytest.raises(collx.CollxError) as caught:
        group.barrier()
    return str(caught.value)


def test_what_a_rank_leaves_open_is_closed_when_it_ends() -> None:
    assert collx.spawn(left_open, 3, False)[1].endswith("rank 0 has closed this communicator; skipped a call?")


def test_an_exception_reaches_who_waits_in_another_communicator() -> None:
    with pytest.raises(KeyError, match="lost in rank 0"):
        collx.spawn(left_open, 3, True)
