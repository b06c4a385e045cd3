"""Failures of ranks on other hosts, and of what joins them: who is told, when, and what is no failure."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import jobs
from tests.hosts import Hosts, finished

SIZE = 4  # two ranks on each of two hosts

# Every rank notes its process when all are there, and then how its call ended. All read the same clock.
PROGRAM = """
import json
kind, folder = sys.argv[1:]

def note(name, **what):
    with open(f"{folder}/new-{comm.rank}", "w") as file:
        json.dump(what, file)
    os.rename(f"{folder}/new-{comm.rank}", f"{folder}/{name}-{comm.rank}")

def repeat():
    while True:
        comm.all_reduce(np.ones(100_000))

def go():
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.001)

def lossy():
    go()
    for size in (1, 1000, 30_000):
        for _ in range(3):
            assert (comm.all_reduce(np.arange(size) + comm.rank) == np.arange(size) * 4 + 6).all()

def once(timeout):
    go()
    if comm.rank < 3:
        begun = time.monotonic()
        try:
            assert comm.all_reduce(np.ones(1000), timeout=timeout)[0] == 4
        finally:
            note("took", seconds=time.monotonic() - begun)
    else:
        comm.all_reduce(np.ones(1000))

comm = collx.init(timeout=60)
comm.barrier()
note("ready", pid=os.getpid())
try:
    {"repeat": repeat, "lossy": lossy, "late": lambda: once(2), "slow": lambda: once(60)}[kind]()
    note("ended", error="")
except collx.CollxError as error:
    at = time.monotonic()
    note("ended", at=at, error=type(error).__name__, ranks=getattr(error, "ranks", []), text=str(error))
    if kind == "repeat" and len(error.ranks) == 1:
        comm = comm.shrink(timeout=30)
        note("shrunk", sum=float(comm.all_reduce(np.ones(1))[0]), size=comm.size)
"""


class Job:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def noted(self, name: str, ranks: range = range(SIZE)) -> list[dict[str, Any]]:
        """What these ranks note under a name, as soon as all have."""
        paths = [self._folder / f"{name}-{rank}" for rank in ranks]
        deadline = time.monotonic() + jobs.DEADLINE
        while not all(path.exists() for path in paths):
            assert time.monotonic() < deadline, f"ranks hang: {sorted(path.name for path in self._folder.iterdir())}"
            time.sleep(0.001)
        return [json.loads(path.read_text()) for path in paths]

    def go(self) -> None:
        (self._folder / "go").touch()


@contextmanager
def job(hosts: Hosts, folder: Path, kind: str) -> Iterator[Job]:
    """A job of `PROGRAM` whose ranks are all there. It ends with the block, with nothing left behind."""
    path = jobs.program(folder, PROGRAM)
    with jobs.nothing_left_behind(str(path)):
        running = hosts.start_run(2, "--keep-going", path, kind, folder)
        try:
            there = Job(folder)
            there.noted("ready")
            yield there
        finally:
            finished(running)


def pids(there: Job) -> list[int]:
    return [note["pid"] for note in there.noted("ready")]


@pytest.mark.parametrize("victim", [0, 3])
def test_a_killed_rank_is_told_to_all_hosts(two_hosts: Hosts, tmp_path: Path, victim: int) -> None:
    with job(two_hosts, tmp_path, "repeat") as there:
        killed = time.monotonic()
        os.kill(pids(there)[victim], signal.SIGKILL)
        for rank in set(range(SIZE)) - {victim}:
            (ended,) = there.noted("ended", range(rank, rank + 1))
            assert (ended["error"], ended["ranks"]) == ("RankFailedError", [victim])
            assert ended["at"] - killed < 1.0
        assert there.noted("shrunk", range(SIZE - 1)) == [{"sum": 3.0, "size": 3}] * 3


def both_sides_know(there: Job, since: float, within: float) -> None:
    """Each host's ranks are told that those of the other one are lost."""
    for rank, ended in enumerate(there.noted("ended")):
        others = {2, 3} if rank < 2 else {0, 1}
        assert ended["error"] == "RankFailedError"
        assert set(ended["ranks"]) <= others
        assert ended["at"] - since < within, ended


def test_a_host_that_is_cut_off(faulty_hosts: Hosts, tmp_path: Path) -> None:
    with job(faulty_hosts, tmp_path, "repeat") as there, faulty_hosts.cut_off(1):
        both_sides_know(there, time.monotonic(), 5.0)
        assert any("cannot be reached any more" in ended["text"] for ended in there.noted("ended"))


def test_connections_that_are_reset(faulty_hosts: Hosts, tmp_path: Path) -> None:
    reset = "meta l4proto tcp reject with tcp reset"
    with job(faulty_hosts, tmp_path, "repeat") as there, faulty_hosts.fault(0, reset), faulty_hosts.fault(1, reset):
        both_sides_know(there, time.monotonic(), 5.0)


def test_lost_packets_are_no_failure(faulty_hosts: Hosts, tmp_path: Path) -> None:
    loss = "numgen random mod 100 < 5 drop"
    with job(faulty_hosts, tmp_path, "lossy") as there, faulty_hosts.fault(0, loss), faulty_hosts.fault(1, loss):
        there.go()
        assert there.noted("ended") == [{"error": ""}] * SIZE


def test_a_stopped_rank_is_named_when_the_time_is_up(two_hosts: Hosts, tmp_path: Path) -> None:
    with job(two_hosts, tmp_path, "late") as there:
        stopped = pids(there)[3]
        os.kill(stopped, signal.SIGSTOP)
        try:
            there.go()
            for took in there.noted("took", range(3)):
                assert took["seconds"] < 2.5
            for ended in there.noted("ended", range(3)):
                assert ended["error"] in ("TimeoutError", "AbortedError")
                assert "rank 3 does not answer" in ended["text"] or "rank 3 is stopped" in ended["text"]
        finally:
            os.kill(stopped, signal.SIGCONT)


# Longer than an unreachable host takes to be given up.
@pytest.mark.parametrize("seconds", [float(os.environ.get("SLOW", "5"))])
def test_a_slow_rank_is_not_dead(two_hosts: Hosts, tmp_path: Path, seconds: float) -> None:
    with job(two_hosts, tmp_path, "slow") as there:
        slow = pids(there)[3]
        os.kill(slow, signal.SIGSTOP)
        try:
            there.go()
            time.sleep(seconds)
        finally:
            os.kill(slow, signal.SIGCONT)
        assert there.noted("ended") == [{"error": ""}] * SIZE
