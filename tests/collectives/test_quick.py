"""Methods whose calls begin in C++: they take what their functions in Python take, and look like them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from collx.communicator import Communicator
from collx.known import quick


class Asked:
    """Knows what it is told to know, and notes what it was asked."""

    def __init__(self, answer: Any = NotImplemented) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def _recall(self, *given: Any) -> Any:
        self.asked.append(given)
        return self.answer

    @quick
    def reduce(self, x: Any, op: str = "sum", *, root: int = 0, out: Any = None, timeout: Any = None) -> Any:
        """What it does."""
        return ("long", x, op, root, out, timeout)

    @quick
    def start(self, x: Any, *, async_op: bool = False) -> Any:
        return "long"


def test_a_call_that_is_known_does_not_reach_the_function() -> None:
    some = Asked("short")
    assert some.reduce(1, root=3, out=2, timeout=5) == "short"
    assert some.start(1, async_op=True) == "short"
    assert some.asked == [(False, 5, "reduce", 1, 2, "sum", 3), (True, None, "start", 1, None)]


def test_a_call_that_is_not_known_reaches_it_as_it_was_made() -> None:
    some = Asked()
    assert some.reduce(1, "max", **{"".join(["o", "ut"]): 4}) == ("long", 1, "max", 0, 4, None)
    assert Asked.reduce(some, x=1) == ("long", 1, "sum", 0, None, None)
    bound = some.reduce
    assert bound(7) == ("long", 7, "sum", 0, None, None)
    assert len(some.asked) == 2  # names that were made at run time are left to the function


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "sum", 0), {}), ((1,), {"x": 1}), ((1,), {"rank": 1}), ((1, "sum"), {"op": "max"})],
)
def test_wrong_arguments_are_refused_by_the_function(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    some = Asked("short")
    with pytest.raises(TypeError, match="reduce"):
        some.reduce(*args, **kwargs)
    assert some.asked == []


def test_what_is_raised_when_asking_is_raised() -> None:
    class Broken(Asked):
        def _recall(self, *given: Any) -> Any:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        Broken().reduce(1)


def test_a_subclass_may_have_its_own_and_call_on() -> None:
    class Sub(Asked):
        def reduce(self, x: Any, *args: Any, **kwargs: Any) -> Any:
            return ("sub", super().reduce(x, *args, **kwargs))

    assert Sub().reduce(1)[0] == "sub"


def test_it_looks_like_the_function() -> None:
    assert Asked.reduce.__doc__ == "What it does."
    assert str(inspect.signature(Communicator.all_reduce)).startswith("(self, x")
    assert inspect.getdoc(Communicator.barrier)
    assert callable(Communicator.all_gather)
