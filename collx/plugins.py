"""Algorithms from outside collx: those of installed packages, by their names, and functions by `module:function`.

A package offers an algorithm by an entry point in the group `collx.algorithms`. The entry point's name is the
algorithm's; it leads to a function `(rank, size[, root]) -> Schedule`, to a registered Algorithm, or to a module that
registers algorithms of that name. It is loaded when the name is first asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from collx.schedule import REGISTER, Algorithm, Builder

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "collx.algorithms"


def algorithm_named(collective: str, name: str) -> Algorithm | Builder | None:
    """The algorithm that is registered under a name, or that an installed package offers under it.

    None where there is none for this collective. Raises ValueError where a package offers what cannot be loaded.
    """
    if (collective, name) in REGISTER:
        return REGISTER[collective, name]
    offer = offered(name)
    if isinstance(offer, Algorithm):
        return offer if offer.collective == collective else None
    return REGISTER.get((collective, name), offer)


@cache
def offered(name: str) -> Algorithm | Builder | None:
    from importlib.metadata import entry_points  # most programs ask for what comes with collx

    points = {_package(point): point for point in entry_points(group=GROUP, name=name)}
    if not points:
        return None
    if len(points) > 1:
        raise ValueError(f"algorithm {name!r} is offered by several packages: {', '.join(sorted(points))}; keep one")
    (package, point), before = points.popitem(), dict(REGISTER)
    try:
        found: Any = point.load()
        if isinstance(found, ModuleType):
            if not any(registered == name for _, registered in REGISTER):
                raise LookupError(f"{found.__name__} registers no algorithm of that name")
            return None
        if not isinstance(found, Algorithm) and not callable(found):
            raise TypeError(f"{point.value} is neither a function nor a module that registers, but {found!r}")
    except Exception as error:
        REGISTER.clear()
        REGISTER.update(before)
        text = " ".join(str(error).split())
        raise ValueError(
            f"algorithm {name!r} of package {package} cannot be loaded: {type(error).__name__}: {text}"
        ) from error
    offer: Algorithm | Builder = found
    return offer


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def command_line_algorithm(collective: str, name: str) -> Algorithm | Builder | None:
    """As algorithm_named; on a command line a name may also be `module:function`, the module in the working directory.

    Raises ValueError, in one line, where it cannot be loaded.
    """
    return _function_named(name) if ":" in name else algorithm_named(collective, name)


def _function_named(name: str) -> Builder:
    module, _, path = name.partition(":")
    try:
        with _working_directory_on_path():
            found: Any = attrgetter(path)(import_module(module))
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(f"cannot load {name!r}: {type(error).__name__}: {text}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is no function (rank, size) -> Schedule, but {type(found).__name__}")
    builder: Builder = found
    return builder


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
