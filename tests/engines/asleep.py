"""What happens while a thread of this process sleeps in a call, and whether it does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from collx.types import Array

SOON = 20.0  # seconds, for what happens at once where the machine has time


def at(array: Array) -> tuple[int, int]:
    return array.ctypes.data, array.nbytes


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON
    while not (there := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return there


def asleep(thread: int) -> bool:
    """Whether a thread of this process sleeps, and has not just begun to, as where it takes over from another."""
    states = []
    for _ in range(5):
        states.append(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.001)
    return states == ["S"] * 5


@contextlib.contextmanager
def taken_up() -> Iterator[None]:
    """Returns when the progress thread, which begins in the block, waits for what was started there."""
    before = set(os.listdir("/proc/self/task"))
    yield
    (thread,) = set(os.listdir("/proc/self/task")) - before
    assert eventually(lambda: asleep(int(thread)))


class Stop(BaseException):  # as KeyboardInterrupt, which pytest takes for its own
    """What a signal handler raises."""


def stop(*_: object) -> None:
    raise Stop


def alarm(handler: Any, seconds: float = 0.2) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
