"""The calls of torch.distributed that are measured, each on tensors of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
import torch.distributed as dist  # type: ignore[import-not-found, unused-ignore]

Start = Callable[[Any, bool], Any]  # (process group, async_op) -> the call's Work where that is True
_RUBBISH = 77


class Point:
    """One call of one size on this rank. `count` elements is the whole buffer, of which every rank has a part where
    the call gathers or scatters."""

    def __init__(self, call: str, count: int, dtype: str, rank: int, size: int) -> None:
        self.call, self.count, self.rank, self.size = call, count, rank, size
        self._dtype = getattr(torch, dtype)
        part = count // size
        self._x = self._empty(part if call.startswith("all_gather") else count)
        self._parts: list[Any] = []
        match call:
            case "all_reduce" | "broadcast":
                self._parts = [self._x]
            case "all_gather":
                self._parts = [self._empty(part) for _ in range(size)]
            case "reduce_scatter_single":
                self._parts = [self._empty(part)]
            case _:
                self._parts = [self._empty(count)]
        self.start = self._bound()

    def wrong(self, group: Any, async_op: bool) -> int:
        """Makes the call on fresh data and counts the elements of this rank's result that differ from what is right.
        All values are whole and small, so that every dtype has them exactly."""
        for part in self._parts:
            part.fill_(_RUBBISH)
        self._x.copy_(self._given(self.rank)[: len(self._x)])
        work = self.start(group, async_op)
        if async_op:
            work.wait()
        expected = self._expected().chunk(len(self._parts))
        return sum(int((got != right).sum()) for got, right in zip(self._parts, expected, strict=True))

    def _bound(self) -> Start:
        x, parts = self._x, self._parts
        match self.call:
            case "all_reduce":
                return lambda group, async_op: dist.all_reduce(x, group=group, async_op=async_op)
            case "broadcast":
                return lambda group, async_op: dist.broadcast(x, 0, group=group, async_op=async_op)
            case "all_gather":
                return lambda group, async_op: dist.all_gather(parts, x, group=group, async_op=async_op)
        function, (out,) = getattr(dist, self.call), parts
        return lambda group, async_op: function(out, x, group=group, async_op=async_op)

    def _empty(self, count: int) -> Any:
        return torch.zeros(count, dtype=self._dtype)

    def _given(self, rank: int) -> Any:
        """What a rank gives: all of the buffer, or as much of it as `x` takes."""
        return (torch.arange(self.count) % 7 + rank).to(self._dtype)

    def _expected(self) -> Any:
        given = [self._given(rank) for rank in range(self.size)]
        part = self.count // self.size
        own = slice(self.rank * part, (self.rank + 1) * part)
        match self.call:
            case "all_reduce":
                return sum(given)
            case "reduce_scatter_single":
                return sum(given)[own]
            case "all_to_all_single":
                return torch.cat([each[own] for each in given])
            case "broadcast":
                return given[0]
        return torch.cat([each[:part] for each in given])
