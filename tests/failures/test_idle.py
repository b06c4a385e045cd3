"""What waiting costs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator

CALLS: dict[str, Callable[[Communicator], Any]] = {
    "all_reduce": lambda comm: comm.all_reduce(np.ones(1)),
    "large": lambda comm: comm.all_reduce(np.ones(1 << 17)),
    "async": lambda comm: comm.all_reduce(np.ones(1000), async_op=True).wait(),
    "recv": lambda comm: (
        comm.recv(np.ones(1), 0) if comm.rank else [comm.send(np.ones(1), r) for r in range(comm.size)]
    ),
    "barrier": lambda comm: comm.barrier(),
    "split": lambda comm: comm.split(0),
}


def least(share: Callable[[], float], enough: float) -> float:
    """The least share of three, or the first that is small enough: a processor that another machine takes away for a
    while counts as used."""
    found = math.inf
    for _ in range(3):
        if found >= enough:
            found = min(found, share())
    return found


def idle(comm: Communicator, call: str) -> float:
    """The share of a processor that a wait of a second took, all threads of the rank together."""
    comm.barrier()
    if comm.rank == 0:
        time.sleep(1)  # the others wait for so long
    wall, used = time.monotonic(), time.process_time()
    CALLS[call](comm)
    return (time.process_time() - used) / (time.monotonic() - wall) if comm.rank else 0.0


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("size", [2, 8])
def test_waiting_takes_no_processor(call: str, size: int) -> None:
    assert least(lambda: max(collx.spawn(idle, size, call)), 0.05) < 0.05


def idle_later(comm: Communicator, call: str) -> float:
    """The share of a processor that the second takes which begins 100 ms after a wait did, as threads see it that do
    nothing."""
    used: list[float] = []

    def watch() -> None:
        for pause in (0.1, 1.0):
            time.sleep(pause)
            used.append(time.process_time())

    comm.barrier()
    watcher = threading.Thread(target=watch)
    watcher.start()
    if comm.rank == 0:
        watcher.join()  # the others wait for so long
    CALLS[call](comm)
    watcher.join()
    return used[1] - used[0] if comm.rank else 0.0


@pytest.mark.parametrize("call", CALLS)
def test_waiting_by_tcp_takes_no_processor(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLX_TRANSPORT", "tcp")
    assert least(lambda: max(collx.spawn(idle_later, 4, call)), 0.02) < 0.02
