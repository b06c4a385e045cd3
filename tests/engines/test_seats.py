"""Ranks that wait for each other on one core move apart, and what the user allowed stays allowed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import collx

CORES = sorted(os.sched_getaffinity(0))


def core() -> int:
    """Where this thread ran last."""
    return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
def test_two_ranks_on_one_core_part() -> None:
    def body(comm: collx.Communicator) -> tuple[bool, set[int]]:
        x = np.ones(1)
        os.sched_setaffinity(0, {CORES[0]})
        comm.barrier()
        os.sched_setaffinity(0, set(CORES))
        apart, end = False, time.monotonic() + 30
        while not apart and comm.all_reduce(np.array([time.monotonic()]), "max")[0] < end:
            for _ in range(100):
                comm.all_reduce(x)
            here, there = comm.all_gather(np.array([core()]))
            apart = bool(comm.all_reduce(np.array([here != there]), "max")[0])
        return apart, os.sched_getaffinity(0)

    for apart, allowed in collx.spawn(body, 2):
        assert apart
        assert allowed == set(CORES)


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
def test_ranks_stay_on_the_core_they_are_bound_to() -> None:
    def body(comm: collx.Communicator) -> tuple[set[int], int]:
        os.sched_setaffinity(0, {CORES[0]})
        for _ in range(2000):
            comm.all_reduce(np.ones(1))
        return os.sched_getaffinity(0), core()

    for allowed, last in collx.spawn(body, 3):
        assert (allowed, last) == ({CORES[0]}, CORES[0])
