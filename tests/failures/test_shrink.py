"""The survivors' agreement on who goes on: one gives up just when the others have decided."""

from __future__ import annotations

from typing import Any, cast

import pytest

from collx.engine import Engine
from collx.errors import AbortedError, TimeoutError
from collx.shrink import agree
from collx.transports.base import Survivors
from collx.transports.conformance import run_threads
from tests.harness import ENGINES, TIMEOUT, engines

KINDS = pytest.mark.parametrize("kind", ENGINES)


class Late:
    """A survivor whose time is up, or who is interrupted, at the moment in which an attempt is decided."""

    def __init__(self, survivors: Survivors, error: BaseException) -> None:
        self._survivors, self._error = survivors, error

    def unite(self, attempt: int, timeout: float) -> bool:
        self._survivors.unite(attempt, timeout)
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._survivors, name)


class Connected:
    """Stands for the engine of an attempt."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def outcomes(
    kind: str, size: int, late: int, error: BaseException, gone: int = -1
) -> tuple[list[Any], list[Connected]]:
    """What each rank's agreement comes to, members and attempt or an exception, and the engines of rank `late`. `gone`
    leaves in the middle of the first attempt."""
    made: list[list[Connected]] = [[] for _ in range(size)]
    with engines(kind, size) as ranks:

        def body(rank: int) -> Any:
            survivors = ranks[rank].survivors()
            if rank == gone:
                survivors.members(0, TIMEOUT)
                return ranks[rank].close()

            def connect(*_: object) -> Engine:
                made[rank].append(Connected())
                return cast(Engine, made[rank][-1])

            try:
                chosen = Late(survivors, error) if rank == late else survivors
                return agree(chosen, connect, size, TIMEOUT)[:2]
            except BaseException as raised:
                return raised

        return run_threads(size, body), made[late]


@KINDS
def test_who_is_late_but_united_goes_on_with_the_others(kind: str) -> None:
    found, made = outcomes(kind, 3, 1, TimeoutError("late"))
    assert found == [((0, 1, 2), 0)] * 3
    assert not made[0].closed


@KINDS
def test_who_is_late_in_an_attempt_that_failed_ends_the_next(kind: str) -> None:
    found, made = outcomes(kind, 4, 1, TimeoutError("late"), gone=2)
    assert isinstance(found[1], TimeoutError)
    assert made[0].closed
    for rank in (0, 3):
        assert isinstance(found[rank], AbortedError)
        assert "rank 1 gave up: TimeoutError: late" in str(found[rank])


@KINDS
def test_who_is_interrupted_after_all_has_united_leaves(kind: str) -> None:
    found, made = outcomes(kind, 3, 1, KeyboardInterrupt())
    assert isinstance(found[1], KeyboardInterrupt)
    assert made[0].closed
    assert found[0] == found[2] == ((0, 1, 2), 0)
