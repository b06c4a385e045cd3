"""Where the bytes of a datatype lie, and how they are gathered and scattered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Basics = tuple[tuple[int, int], ...]

_UNITS = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Layout:
    """One element of a datatype: runs of bytes in the order in which they travel, offsets from the element's address.

    lb, ub: where the element begins and ends for the next one to be put behind it. listed: makes `basics`.
    """

    offsets: Numbers
    lengths: Numbers
    lb: int
    ub: int
    listed: Callable[[], Basics]
    align: int = 1

    @cached_property
    def basics(self) -> Basics:
        """Sizes of the numbers that it consists of, in order, and how many of each follow each other."""
        return self.listed()

    @property
    def extent(self) -> int:
        return self.ub - self.lb

    @cached_property
    def size(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def true_lb(self) -> int:
        return int(self.offsets.min()) if self.size else 0

    @cached_property
    def true_ub(self) -> int:
        return int((self.offsets + self.lengths).max()) if self.size else 0

    @cached_property
    def dense(self) -> bool:
        """Whether elements behind each other are one run of bytes."""
        return not self.size or (len(self.offsets) == 1 and self.size == self.extent)

    @cached_property
    def _unit(self) -> int:
        """The most bytes that a multiple of moves everything."""
        every = np.gcd.reduce(np.concatenate([self.offsets - self.true_lb, self.lengths, [self.extent]]))
        return next(unit for unit in _UNITS if not every % unit)

    @cached_property
    def _index(self) -> Numbers:
        """Which units of an element travel, counted from true_lb, in order."""
        unit, lengths = self._unit, self.lengths // self._unit
        starts = (self.offsets - self.true_lb) // unit
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(lengths.sum())

    def span(self, count: int) -> tuple[int, int]:
        """First and last byte of `count` elements, from the address of the first."""
        if not self.size or not count:
            return 0, 0
        ends = (0, (count - 1) * self.extent)
        return self.true_lb + min(ends), self.true_ub + max(ends)

    def gather(self, memory: Bytes, count: int) -> Bytes:
        """The bytes of `count` elements, which lie in `memory`, that is their span."""
        return memory.view(f"V{self._unit}")[self._units(count)].view(np.uint8)

    def scatter(self, data: Bytes, memory: Bytes, count: int) -> None:
        """The way back: put `data`, of the first of `count` elements, where it belongs."""
        whole, rest = divmod(len(data), self._unit)
        index = self._units(count)
        memory.view(f"V{self._unit}")[index[:whole]] = data[: len(data) - rest].view(f"V{self._unit}")
        if rest:  # a message that ends within a unit
            at = int(index[whole]) * self._unit
            memory[at : at + rest] = data[len(data) - rest :]

    def _units(self, count: int) -> Numbers:
        step = self.extent // self._unit
        first = np.arange(count, dtype=np.int64) * step
        if step < 0:
            first -= (count - 1) * step
        return (first[:, None] + self._index).ravel()


def basic(size: int, align: int | None = None) -> Layout:
    """One number of so many bytes."""
    return Layout(_numbers([0]), _numbers([size]), 0, size, lambda: ((size, 1),), align or size)


def repeated(one: Layout, blocklengths: Sequence[int] | Numbers, displacements: Sequence[int] | Numbers) -> Layout:
    """Blocks of so many elements each, at displacements in bytes."""
    lengths, at = _numbers(blocklengths), _numbers(displacements)
    at, lengths = at[lengths > 0], lengths[lengths > 0]
    if not len(at):
        return Layout(_numbers([]), _numbers([]), 0, 0, tuple, one.align)
    last = at + (lengths - 1) * one.extent
    lb, ub = int(min(at.min(), last.min())) + one.lb, int(max(at.max(), last.max())) + one.ub
    count = int(lengths.sum())

    def listed() -> Basics:
        return _repeated(one.basics, count)

    if one.dense and one.size:
        return _merged(at + int(one.offsets[0]), lengths * one.size, lb, ub, listed, one.align)
    before = np.cumsum(lengths) - lengths
    each = np.repeat(at - before * one.extent, lengths) + np.arange(count) * one.extent
    offsets = (each[:, None] + one.offsets).ravel()
    return _merged(offsets, np.tile(one.lengths, len(each)), lb, ub, listed, one.align)


def joined(parts: Sequence[Layout]) -> Layout:
    """The parts one after another, as of a struct whose extent leaves room for its members' alignment."""
    parts = [part for part in parts if part.extent or part.size]
    if not parts:
        return repeated(basic(1), [], [])
    lb, ub, align = min(part.lb for part in parts), max(part.ub for part in parts), max(part.align for part in parts)
    ub += -(ub - lb) % align
    offsets, lengths = (np.concatenate([getattr(part, name) for part in parts]) for name in ("offsets", "lengths"))
    return _merged(offsets, lengths, lb, ub, lambda: _together([run for part in parts for run in part.basics]), align)


def grid(one: Layout, sizes: Sequence[int], indices: Sequence[Numbers]) -> Layout:
    """The elements of an array of `sizes` whose index in each dimension is one of `indices`; the first dimension is the
    slowest. Its extent is the array's."""
    sizes, indices = [1, *sizes], [_numbers([0]), *indices]  # for an array without dimensions
    rows, last = _numbers([0]), indices[-1]
    for size, index in zip(sizes[:-1], indices[:-1], strict=True):
        rows = (rows[:, None] * size + index).ravel()
    (first,) = np.nonzero(np.diff(last, prepend=-2) != 1)  # of each run of elements next to each other
    at = (rows[:, None] * sizes[-1] + last[first]).ravel()
    chosen = repeated(one, np.tile(np.diff(first, append=len(last)), len(rows)), at * one.extent)
    whole = int(np.prod(sizes, dtype=np.int64)) * one.extent
    return Layout(chosen.offsets, chosen.lengths, 0, whole, chosen.listed, one.align)


def resized(one: Layout, lb: int, extent: int) -> Layout:
    return Layout(one.offsets, one.lengths, lb, lb + extent, one.listed, one.align)


def _merged(offsets: Numbers, lengths: Numbers, lb: int, ub: int, listed: Callable[[], Basics], align: int) -> Layout:
    """With runs that touch as one."""
    begins = np.ones(len(offsets), bool)
    begins[1:] = offsets[1:] != offsets[:-1] + lengths[:-1]
    (first,) = np.nonzero(begins)
    return Layout(offsets[first], np.add.reduceat(lengths, first) if len(first) else lengths, lb, ub, listed, align)


def _repeated(basics: Basics, count: int) -> Basics:
    if len(basics) == 1:
        return ((basics[0][0], basics[0][1] * count),)
    return _together(list(basics) * count)


def _together(runs: list[tuple[int, int]]) -> Basics:
    found: list[tuple[int, int]] = []
    for size, count in runs:
        if found and found[-1][0] == size:
            found[-1] = (size, found[-1][1] + count)
        else:
            found.append((size, count))
    return tuple(found)


def _numbers(values: Sequence[int] | Numbers) -> Numbers:
    return np.asarray(values, np.int64)
