"""Failures of ranks on other hosts, and of what joins them: who is told, when, and what is no failure."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.failures.across import SIZE, Job, job, killed
from tests.hosts import Hosts


@pytest.mark.parametrize("victim", [0, 3])
def test_a_killed_rank_is_told_to_all_hosts(two_hosts: Hosts, tmp_path: Path, victim: int) -> None:
    killed(two_hosts, tmp_path, victim)


def both_sides_know(there: Job, since: float, within: float) -> None:
    """Each host's ranks are told that those of the other one are lost."""
    for rank, ended in enumerate(there.noted("ended")):
        others = {2, 3} if rank < 2 else {0, 1}
        assert ended["error"] == "RankFailedError", ended["text"]
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
        stopped = there.pids()[3]
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
        slow = there.pids()[3]
        os.kill(slow, signal.SIGSTOP)
        try:
            there.go()
            time.sleep(seconds)
        finally:
            os.kill(slow, signal.SIGCONT)
        assert there.noted("ended") == [{"error": ""}] * SIZE
