"""The short way: what an engine knows of calls that came before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from collx.types import Array

Fill = tuple[Array, Array]  # an array, and the value that all of it is set to before a run
Failed = Callable[[str, BaseException], None]  # is told what a call raises
Begin = Callable[
    [str, Any, int, int, float, Any, Any], Any
]  # collective, prepared, source, target, timeout, result, keep


class Known(Protocol):
    """The calls of a communicator that an engine knows again, and runs without Python's checks: they held for a call
    that was alike in everything they look at. What it cannot do at once it leaves to the long way."""

    timeout: float  # seconds; of the calls that give none

    def recall(self, async_op: Any, timeout: Any, collective: str, x: Any, out: Any, /, *rest: Any) -> Any:
        """What the method returns, or NotImplemented. x and out are known by dtype, shape, flags and overlap, `rest` by
        identity, but lists and tuples by the integers in them."""
        ...

    def remember(self, prepared: Any, result: Any, given: tuple[Any, ...], copied: bool, fill: Array | None) -> None:
        """Know the call again that was given (collective, x, out, *rest), none of which can change, but arrays and
        counts. `copied`: it reads a copy of x. `fill`: what the result is set to before."""
        ...

    def bind(self, prepared: Any, source: int, target: int, fill: Fill | None) -> Callable[[], bool]:
        """What runs a plan on this memory; it returns False where that has to go the long way."""
        ...

    def forget(self) -> None:
        """Let go of what is remembered."""
        ...

    def close(self) -> None:
        """Leave everything to the long way from now on."""
        ...


class Unknown:
    """The Known of an engine that has no short way."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def recall(self, async_op: Any, timeout: Any, collective: str, x: Any, out: Any, /, *rest: Any) -> Any:
        return NotImplemented

    def remember(
        self, prepared: Any, result: Any, given: tuple[Any, ...], copied: bool, fill: Array | None
    ) -> None: ...

    def bind(self, prepared: Any, source: int, target: int, fill: Fill | None) -> Callable[[], bool]:
        return bool

    def forget(self) -> None: ...

    def close(self) -> None: ...
