"""Ranks that may die: as `collx.spawn`, which ends a job with the first rank that does."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import traceback
from collections.abc import Callable
from typing import Any

from collx import Communicator, lifeline, world
from collx.bootstrap import Place

LIMIT = 60.0  # seconds that a call may wait


def mortal(body: Callable[[Communicator], Any], size: int) -> list[Any]:
    """What `body(comm)` returned on each rank, and None for those that were killed."""
    directory = lifeline.job_directory()
    ranks = []
    try:
        for rank in range(size):
            read, write = os.pipe()
            pid = lifeline.fork()
            if pid == 0:
                _live(body, Place(rank, size, rank, f"unix:{directory}", size), write)
            os.close(write)
            ranks.append((pid, read))
        told = [_all(read) for _, read in ranks]
    finally:
        for pid, read in ranks:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so nobody else's
            os.waitpid(pid, 0)
            os.close(read)
        shutil.rmtree(directory, ignore_errors=True)
    outcomes = [pickle.loads(text) if text else (None, "") for text in told]
    failures = [f"rank {rank}: {trace}" for rank, (_, trace) in enumerate(outcomes) if trace]
    assert not failures, "\n".join(failures)
    return [result for result, _ in outcomes]


def _all(pipe: int) -> bytes:
    return b"".join(iter(lambda: os.read(pipe, 1 << 16), b""))


def _live(body: Callable[[Communicator], Any], place: Place, pipe: int) -> None:
    result, trace = None, ""
    try:
        lifeline.die_with(os.getppid())
        result = body(world.join(place, LIMIT))
    except BaseException:
        trace = traceback.format_exc()
    with open(pipe, "wb") as told:
        told.write(pickle.dumps((result, trace)))
    os._exit(0)
