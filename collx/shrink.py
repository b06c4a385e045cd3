"""Goes on without the ranks that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from collx.engine import Engine
from collx.errors import CollxError
from collx.transports.base import Survivors

# Makes the engine of an attempt: (its members, its number, seconds, what to call meanwhile). See MakeGroup.
Connect = Callable[[tuple[int, ...], int, float, Callable[[], None]], Engine]


class _Failed(Exception):
    """A member is gone: the next attempt does without it."""


def agree(survivors: Survivors, connect: Connect, size: int, timeout: float) -> tuple[tuple[int, ...], int, Engine]:
    """The members that all survivors agreed on, in which attempt, and the engine that connects them. All survivors
    call it.

    An attempt has an outcome only when it is known that all members have connected, or that one never will; so all
    of them either return from the same attempt or go on to the next.
    """
    deadline = time.monotonic() + timeout
    for attempt in range(size):
        engine = None
        members = survivors.members(attempt)
        look = _looking(survivors, attempt)
        try:
            engine = connect(members, attempt, max(deadline - time.monotonic(), 0.0), look)
            if survivors.unite(attempt, max(deadline - time.monotonic(), 0.0)):
                return members, attempt, engine
            engine.close()
        except _Failed:
            pass
        except BaseException as error:
            survivors.give_up(attempt, f"{type(error).__name__}: {' '.join(str(error).split())}")
            if engine is not None:
                engine.close()
            raise
    raise CollxError("a shrink has as many attempts as there are ranks at most")  # each but the last lost a member


def _looking(survivors: Survivors, attempt: int) -> Callable[[], None]:
    def look() -> None:
        if survivors.failed(attempt):
            raise _Failed

    return look
