"""Checks of plain arguments: whole numbers, ranks, counts and timeouts. ValueError or TypeError, nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

FOREVER = 2e6  # seconds, 23 days: where ranks meet, poll counts milliseconds in 31 bits


def whole(value: Any, name: str) -> int:
    """`value` as an int; TypeError for floats, bools and the like."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None


def whole64(value: Any, name: str) -> int:
    """`value` as an int that fits 64 bits."""
    number = whole(value, name)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} is {number}, which does not fit 64 bits")
    return number


def rank_of(value: Any, size: int, name: str) -> int:
    """`value` as one of the ranks 0 .. size-1."""
    rank = whole(value, name)
    if not 0 <= rank < size:
        raise ValueError(f"{name} is {rank}, but ranks go from 0 to {size - 1}")
    return rank


def seconds(timeout: float | None, default: float = FOREVER) -> float:
    """A timeout in seconds, `default` for None. Infinity is FOREVER; zero, negative numbers and NaN are none."""
    if timeout is None:
        return default
    if isinstance(timeout, (bool, str, bytes, bytearray)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    try:
        value = float(timeout)
    except OverflowError:  # an int beyond all floats
        value = math.inf if timeout > 0 else -math.inf
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}") from None
    if math.isnan(value) or value <= 0:
        raise ValueError(f"timeout is {timeout}, but must be a positive number of seconds")
    return min(value, FOREVER)


def counts_of(counts: Iterable[Any], size: int, name: str) -> tuple[int, ...]:
    """One count of rows per rank."""
    try:
        values = tuple(whole(count, f"{name}[{index}]") for index, count in enumerate(counts))
    except TypeError as error:
        raise TypeError(str(error) if name in str(error) else f"{name} must be a sequence of integers") from None
    if len(values) != size:
        raise ValueError(f"{name} has {len(values)} entries for {size} ranks")
    if min(values) < 0:
        raise ValueError(f"{name} has a negative entry: {min(values)}")
    return values


def equal_split(rows: int, size: int, name: str) -> tuple[int, ...]:
    """`rows` in equal parts, one per rank."""
    if rows % size:
        raise ValueError(f"the first axis has {rows} entries, which {size} ranks cannot share equally; pass {name}=")
    return (rows // size,) * size
