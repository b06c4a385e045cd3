"""The command line of every program of this folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from collx.perf.options import UsageError, nbytes, nearest
from collx.types import BUILT_IN, DTYPES

T = TypeVar("T")
NAMED_DTYPES = {dtype.name: dtype for dtype in DTYPES}


@dataclass(frozen=True, slots=True)
class Options:
    """What to try. Sizes are in bytes, of the whole buffer."""

    min_bytes: int
    max_bytes: int
    factor: float
    dtypes: tuple[np.dtype[Any], ...]
    ops: tuple[str, ...]
    repeats: int
    seed: int
    timeout: float


def parse(about: str, programs: tuple[str, ...] = ()) -> tuple[Options, list[str]]:
    """The options of this process's command line, and which of `programs` it names (all where none)."""
    parser = argparse.ArgumentParser(
        description=about, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    if programs:
        add("programs", nargs="*", type=_one_of("program", {name: name for name in programs}), help="(all)")
    add("--min-bytes", type=_checked(nbytes), default=0, help="smallest buffer (0)")
    add("--max-bytes", type=_checked(nbytes), default=64 << 20, help="largest buffer (64M)")
    add("--factor", type=float, default=8.0, help="from one size to the next (8)")
    add("--dtypes", type=_list("dtype", NAMED_DTYPES), default=DTYPES, help="NumPy's names, with commas (all)")
    add("--ops", type=_list("op", {op: op for op in BUILT_IN}), default=tuple(BUILT_IN), help="with commas (all)")
    add("--repeats", type=int, default=2, help="times through all sizes; dtypes, ops and roots take turns (2)")
    add("--seed", type=int, default=1, help="of sizes and data (1)")
    add("--timeout", type=float, default=300.0, help="seconds that a call may take (300)")
    given = vars(parser.parse_args())
    named = given.pop("programs", [])
    options = Options(**given)
    if options.factor <= 1 or options.repeats < 1 or options.seed < 0 or not options.timeout > 0:
        parser.error("--factor must be above 1, --repeats and --timeout above 0, --seed not below 0")
    if not 0 <= options.min_bytes <= options.max_bytes:
        parser.error("--min-bytes must not exceed --max-bytes")
    return options, named or list(programs)


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """As `read`, with a complaint that argparse shows."""

    def reading(text: str) -> T:
        try:
            return read(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reading


def _one_of(what: str, known: dict[str, T]) -> Callable[[str], T]:
    def find(name: str) -> T:
        if name not in known:
            raise nearest(what, name, known)
        return known[name]

    return _checked(find)


def _list(what: str, known: dict[str, T]) -> Callable[[str], tuple[T, ...]]:
    return lambda text: tuple(map(_one_of(what, known), text.split(",")))
