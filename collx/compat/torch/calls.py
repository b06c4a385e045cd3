"""How torch's calls become collx's, whichever they are."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import collx
from collx.compat.torch.errors import known_to_torch
from collx.compat.torch.work import UNLIMITED, CollxWork, Finish, Waiter


class Calls:
    """Makes calls on `comm`, one after another, whichever threads they come from."""

    def __init__(self, comm: collx.Communicator, name: str) -> None:
        self.comm = comm
        self._lock = threading.Lock()
        self._waiter = Waiter(f"collx futures of group {name}")
        self._coalesced: list[CollxWork] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Calls on `comm` by whom it is left to in the block."""
        with known_to_torch(), self._lock:
            yield

    def _run(
        self,
        opts: Any,
        tensors: Sequence[Any],
        call: Callable[..., Any],
        finish: Finish | None = None,
    ) -> CollxWork:
        """`call`, which takes async_op= and timeout=, as `opts` has it: at once, or under way."""
        limit = _seconds(opts.timeout)
        if opts.asyncOp or self._coalesced is not None:
            return self._under_way(tensors, lambda: call(async_op=True, timeout=limit), finish)
        with self.alone():
            call(async_op=False, timeout=limit)
        if finish is not None:
            finish()
        return CollxWork((), tensors)

    def _under_way(self, tensors: Sequence[Any], start: Callable[[], Any], finish: Finish | None = None) -> CollxWork:
        with self.alone():
            work = CollxWork((start(),), tensors, finish, self._waiter)
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def _all(self, opts: Any, tensors: Sequence[Any], works: Sequence[CollxWork]) -> CollxWork:
        """Several calls as one."""

        def finish() -> None:
            for work in works:
                work.wait()

        both = CollxWork([work for each in works for work in each.works], tensors, finish, self._waiter)
        if not opts.asyncOp:
            both.wait()
        return both

    def _start_coalescing(self, device: Any) -> None:
        """Calls from now on are one call, which `_end_coalescing` returns."""
        if self._coalesced is not None:
            raise RuntimeError("_start_coalescing was called twice, with no _end_coalescing between")
        self._coalesced = []

    def _end_coalescing(self, device: Any) -> CollxWork:
        works, self._coalesced = self._coalesced, None
        if works is None:
            raise RuntimeError("_end_coalescing was called, but not _start_coalescing before")
        return self._all(UNDER_WAY, [tensor for work in works for tensor in work.tensors], works)


class _UnderWay:
    asyncOp = True


UNDER_WAY = _UnderWay()


def _seconds(timeout: datetime.timedelta) -> float | None:
    """torch has -1 ms for the group's own timeout."""
    return timeout.total_seconds() if timeout > UNLIMITED else None
