"""What torch is given of a call under way."""

from __future__ import annotations

import contextlib
import datetime
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from collx.compat.torch.errors import as_torch

Finish = Callable[[], object]  # brings what has arrived to where it belongs
UNLIMITED = datetime.timedelta(0)


class CollxWork(dist.Work):  # type: ignore[misc]
    """A call under way as torch.distributed knows it. It has ended when all of `works` have, and `finish` was run."""

    def __init__(
        self,
        works: Sequence[Any],
        tensors: Sequence[Any] = (),
        finish: Finish | None = None,
        waiter: Waiter | None = None,
    ) -> None:
        super().__init__()
        self.works, self.finish = works, finish
        self.tensors, self._waiter = tensors, waiter
        self._lock = threading.Lock()
        self._over = not works
        self._error: Exception | None = None
        self._future: Any = None

    def wait(self, timeout: datetime.timedelta = UNLIMITED) -> bool:
        """Return True when the call has ended. Raises what it failed with, and collx.TimeoutError after `timeout`,
        unless that is 0."""
        if not self._over:
            deadline = time.monotonic() + timeout.total_seconds() if timeout > UNLIMITED else None
            for work in self.works:
                try:
                    work.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
                except Exception as error:
                    if not work.done():
                        as_torch(error)
                        raise
            self._end()
        if self._error is not None:
            raise self._error
        return True

    def become(self, other: CollxWork) -> CollxWork:
        """End as `other` does, which was started later."""
        self.works, self.tensors, self.finish, self._waiter = other.works, other.tensors, other.finish, other._waiter
        self._over = False
        return self

    def is_completed(self) -> bool:
        if not self._over and all(work.done() for work in self.works):
            self._end()
        return self._over

    def _end(self) -> None:
        """Take note of the outcome, once all of `works` are done."""
        with self._lock:
            if self._over:
                return
            try:
                for work in self.works:
                    work.wait()
                if self.finish is not None:
                    self.finish()
            except Exception as error:
                self._error = as_torch(error)
            self._over = True
            self.finish = None

    def is_success(self) -> bool:
        return self.is_completed() and self._error is None

    def exception(self) -> Exception | None:
        """What the call failed with; None also while it is under way."""
        return self._error if self.is_completed() else None

    def synchronize(self) -> None:
        self.wait()

    def result(self) -> list[Any]:
        """The tensors that the call wrote, when it has ended."""
        self.wait()
        return list(self.tensors)

    def get_future(self) -> Any:
        """A torch.futures.Future of the tensors that the call writes; or it raises RuntimeError with the call's."""
        if self._future is None:
            ended = torch.futures.Future()
            self._future = ended.then(lambda _: self.result())  # that what it raises is C++'s error as well
            if self._waiter is None or self._waiter.busy_here() or self.is_completed():
                with contextlib.suppress(Exception):  # whoever waits for the future is told
                    self.wait()
                ended.set_result(None)
            else:
                self._waiter.tell(self, ended)
        return self._future

    def _source_rank(self) -> int:
        """The group's rank that the message came from, where any might have sent it."""
        self.wait()
        return int(self.works[0].wait().source)

    source_rank = _source_rank


class Waiter:
    """A thread that completes the futures of calls, in the order in which they were asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: queue.SimpleQueue[tuple[CollxWork, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def busy_here(self) -> bool:
        """Whether this is its thread, in a callback, which may itself wait for a future that nobody else completes."""
        return self._thread is threading.current_thread()

    def tell(self, work: CollxWork, ended: Any) -> None:
        """Complete `ended` as soon as `work` has ended, well or not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._asked.put((work, ended))

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            work, ended = asked
            with contextlib.suppress(Exception):  # whoever waits for the future is told
                work.wait()
            ended.set_result(None)

    def close(self) -> None:
        """Return when all futures asked for are complete."""
        if self._thread is not None:
            self._asked.put(None)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None
