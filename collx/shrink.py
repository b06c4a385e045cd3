"""Goes on without the ranks that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from collx.engine import Engine
from collx.errors import CollxError, TimeoutError
from collx.transports.base import Survivors

# Makes the engine of an attempt: (its members, its number, seconds, what to call meanwhile). See MakeGroup.
Connect = Callable[[tuple[int, ...], int, float, Callable[[], None]], Engine]


class _Failed(Exception):
    """A member is gone: the next attempt does without it."""


def agree(survivors: Survivors, connect: Connect, size: int, timeout: float) -> tuple[tuple[int, ...], int, Engine]:
    """The members that all survivors agreed on, in which attempt, and the engine that connects them. All survivors
    call it.

    An attempt has an outcome only when it is known that all members have connected, or that one never will, or when a
    rank gave up; so all of them return from the same attempt, go on to the next, or raise. One exception is what is not
    collx's own, as KeyboardInterrupt: it is raised even where the others have united just then.
    """
    deadline = time.monotonic() + timeout
    for attempt in range(size):
        engine = None
        members = survivors.members(attempt, max(deadline - time.monotonic(), 0.0))
        look = _looking(survivors, attempt)
        try:
            engine = connect(members, attempt, max(deadline - time.monotonic(), 0.0), look)
            united = survivors.unite(attempt, max(deadline - time.monotonic(), 0.0))
        except _Failed:
            united = False
        except BaseException as error:
            united = _given_up(survivors, attempt, size, error)
            if not (united and isinstance(error, TimeoutError)):  # the others had come in time after all
                if engine is not None:
                    engine.close()
                raise
        if united and engine is not None:
            return members, attempt, engine
        if engine is not None:
            engine.close()
    raise CollxError("a shrink has as many attempts as there are ranks at most")  # each but the last lost a member


def _given_up(survivors: Survivors, attempt: int, size: int, error: BaseException) -> bool:
    """End the agreement for all ranks, or find that they have united. From an attempt that has failed meanwhile the
    others go on to the next, so that one is given up as well."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    outcomes = (survivors.give_up(later, reason) for later in range(attempt, size))
    return next((outcome is True for outcome in outcomes if outcome is not False), False)


def _looking(survivors: Survivors, attempt: int) -> Callable[[], None]:
    def look() -> None:
        if survivors.failed(attempt):
            raise _Failed

    return look
