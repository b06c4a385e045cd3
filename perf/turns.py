"""Contestants that take turns in the same ranks, in rounds that are tagged by how far apart the cores were."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from collx.perf.measure import longest
from collx.perf.probe import Probe, joint, probe

ROUND = 0.015  # seconds that one contestant's turn should take
Run = Callable[[int], object]  # a contestant: makes so many calls


class Quiet:
    """Lets rank 0 probe while the other ranks sleep in a read. To be made before the ranks are forked."""

    def __init__(self) -> None:
        self._wake = os.pipe()

    def probe(self, comm: Any) -> Probe | None:
        """Rank 0's probe; None on the others."""
        if comm.rank:
            os.read(self._wake[0], 1)
            return None
        time.sleep(0.001)  # until the others have reached their read
        taken = probe(0.002)
        os.write(self._wake[1], bytes(comm.size - 1))
        return taken


def take_turns(comm: Any, quiet: Quiet, runs: dict[str, Run], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per call of the slowest rank, by tag and contestant, a figure per round; rank 0's tags are right."""
    names, calls = list(runs), {}
    for name, run in runs.items():
        _timed(comm, run, 1)
        calls[name] = max(1, min(20_000, int(ROUND / _timed(comm, run, 2))))
    found: dict[str, dict[str, list[float]]] = {}
    before = quiet.probe(comm)
    for turn in range(rounds):
        order = names[turn % len(names) :] + names[: turn % len(names)]  # nobody is always next to the probe
        taken = {}
        for name in order:
            runs[name](1 + calls[name] // 4)  # what ran before, or slept, has left its own in the caches
            taken[name] = _timed(comm, runs[name], calls[name])
        after = quiet.probe(comm)
        tag = joint(before, after) if before and after else ""
        for name, seconds in taken.items():
            found.setdefault(tag, {each: [] for each in runs})[name].append(seconds)
        before = after
    return found


def _timed(comm: Any, run: Run, calls: int) -> float:
    comm.barrier()
    start = time.perf_counter()
    run(calls)
    taken = (time.perf_counter() - start) / calls
    return longest(comm, [taken])[0]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
