"""The short way: what an engine knows of calls that came before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Protocol, TypeVar, cast

from collx import _core
from collx.types import Array, ReduceOp

Recall = Callable[..., Any]  # (async_op, timeout, collective, x, out, *rest) -> a result, or NotImplemented
Method = TypeVar("Method", bound=Callable[..., Any])


def unknown(*_: Any) -> Any:
    """The Recall that knows nothing."""
    return NotImplemented


def quick(method: Method) -> Method:
    """The method of a class with `_recall`, which is asked first: the function runs for calls that are not known. It is
    asked in the order of `Known.recall`; what the method does not take is False or None."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    given = [(p.name, ... if p.default is p.empty else p.default) for p in parameters]
    positional = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    made = cast(Method, _core.quick(method, method.__name__, tuple(given), positional))
    return cast(Method, functools.update_wrapper(made, method))


_CONSTANT = {type(None), str, int, ReduceOp, FunctionType}  # types of arguments that are known again by identity
_COUNTS = {tuple, list}  # and by the integers in them


def constant(arguments: Iterable[Any]) -> bool:
    """Whether none of a call's arguments beside x and out can change unseen."""
    return all(type(argument) in _CONSTANT or type(argument) in _COUNTS for argument in arguments)


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

    def bind(self, prepared: Any, source: int, target: int, fill: Fill | None, result: Any, keep: Any) -> Recall:
        """A `recall` that runs a plan on this memory, which `keep` keeps alive, and returns `result`, whatever else it
        is given."""
        ...

    def forget(self) -> None:
        """Let go of what is remembered."""
        ...

    def pause(self, paused: bool) -> None:
        """Leave everything to the long way, handles too, until told otherwise."""
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

    def bind(self, prepared: Any, source: int, target: int, fill: Fill | None, result: Any, keep: Any) -> Recall:
        return unknown

    def forget(self) -> None: ...

    def pause(self, paused: bool) -> None: ...

    def close(self) -> None: ...
