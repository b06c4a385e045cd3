"""Where input and output lie: how the first axis is shared among the ranks, and whether the two are one memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from collx.buffers import Buffer, for_output, fresh, together
from collx.checks import counts_of, equal_split

Counts = Sequence[int] | npt.NDArray[np.integer[Any]] | None


def output(out: Any, shape: tuple[int, ...], source: Buffer) -> Buffer:
    """Where the result goes: `out`, checked against the result's shape and dtype, or new memory."""
    dtype = source.array.dtype
    if out is None:
        return fresh(shape, dtype, source.kind)
    target = for_output(out)
    together(source, target)
    if target.array.dtype != dtype:
        raise TypeError(f"out has dtype {target.array.dtype}, but the result has {dtype}")
    found = target.array.shape
    if found != shape and (found, shape) != ((), (1,)):
        size = target.array.size
        how = "too short" if size < prod(shape) else "too long" if size > prod(shape) else "wrong"
        raise ValueError(f"out of shape {found} is {how}: the result has shape {shape}")
    return target


def in_place(source: Buffer, target: Buffer, shift: int = 0) -> bool:
    """Whether input and output are the same memory, with the input `shift` bytes into the output; ValueError for
    any other overlap."""
    if source.copied:
        if source.shares(target):
            raise ValueError("x and out overlap, and x is not contiguous")
        return False
    if not source.overlaps(target):
        return False
    if source.address - target.address != shift:
        raise ValueError("x and out overlap, but not as working in place needs; pass separate memory, or out=x")
    return True


def rows_of(buffer: Buffer) -> tuple[int, tuple[int, ...]]:
    """Entries along the first axis, and the shape of one; a 0-d array is one entry."""
    shape = buffer.array.shape
    return (shape[0], shape[1:]) if shape else (1, ())


def elements_of(rows: tuple[int, ...], row: tuple[int, ...]) -> tuple[int, ...]:
    width = prod(row)
    return tuple(count * width for count in rows) if width != 1 else rows


def shares(counts: Counts, rows: int, size: int, name: str = "counts") -> tuple[int, ...]:
    """How `rows` rows are shared among the ranks."""
    if counts is None:
        return equal_split(rows, size, name)
    parts = counts_of(counts, size, name)
    if sum(parts) != rows:
        raise ValueError(f"{name} add up to {sum(parts)}, but the first axis has {rows} entries")
    return parts


def shares_around(counts: Counts, rows: int, rank: int, size: int) -> tuple[int, ...]:
    """The rows of every rank, of which this one has `rows`."""
    if counts is None:
        return (rows,) * size
    parts = counts_of(counts, size, "counts")
    if parts[rank] != rows:
        raise ValueError(f"counts[{rank}] is {parts[rank]}, but the first axis has {rows} entries on rank {rank}")
    return parts
