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

import collx
from collx.compat.torch.errors import as_torch

Finish = Callable[[], object]  # brings what has arrived to where it belongs
UNLIMITED = datetime.timedelta(0)
GLANCE = datetime.timedelta(milliseconds=20)  # what a call that ended before an older one may wait for its future


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
        self._lock = threading.RLock()  # a signal handler may wait inside a wait
        self._over = not works
        self._error: BaseException | None = None
        self._future: Any = None

    def wait(self, timeout: datetime.timedelta = UNLIMITED) -> bool:
        """Return True when the call has ended. Raises what it failed with, and collx.TimeoutError after `timeout`,
        unless that is 0."""
        if not self._over:
            deadline = time.monotonic() + timeout.total_seconds() if timeout > UNLIMITED else None
            for work in self.works:
                try:
                    work.wait(None if deadline is None else max(deadline - time.monotonic(), 1e-6))
                except Exception as error:
                    if not (work.done() and isinstance(error, collx.CollxError)):  # not the call's: a signal handler's
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

    def fail(self, error: BaseException) -> None:
        """End by `error`: it could not be started."""
        self.works, self._error, self._over = (), error, True

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

    def exception(self) -> BaseException | None:
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
            if self._waiter is None or _here.completes or self.is_completed():
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


class _Here(threading.local):
    """Whether this thread completes futures: in a callback it may wait for one that nobody else would complete."""

    completes = False


_here = _Here()
Asked = queue.SimpleQueue[tuple["CollxWork", Any] | None]


class Waiter:
    """A thread that completes the futures of calls: in order, or as they end, with a look at all each `glance`."""

    def __init__(self, name: str, glance: datetime.timedelta = UNLIMITED) -> None:
        self._name, self._glance, self._lock = name, glance, threading.RLock()
        self._thread: threading.Thread | None = None
        self._asked = Asked()  # of the thread

    def tell(self, work: CollxWork, ended: Any) -> None:
        """Complete `ended` as soon as `work` has ended, well or not."""
        with self._lock:
            if self._thread is None:
                self._asked = Asked()
                self._thread = threading.Thread(target=_complete, args=(self._asked, self._glance), name=self._name)
                self._thread.daemon = True
                self._thread.start()
            self._asked.put((work, ended))

    def close(self) -> None:
        """Return when all futures asked for are complete."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._asked.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _complete(asked: Asked, glance: datetime.timedelta) -> None:
    """Complete futures until None is asked for, and then those that are left."""
    _here.completes, closing = True, False
    waiting: list[tuple[CollxWork, Any]] = []
    while waiting or not closing:
        while not closing and not (waiting and asked.empty()):
            one = asked.get()
            closing = one is None
            waiting += [] if one is None else [one]
        if waiting:
            with contextlib.suppress(Exception):  # whoever waits for the future is told
                waiting[0][0].wait(glance)
        over = [work.is_completed() for work, _ in waiting]
        for (_, ended), now in zip(waiting, over, strict=True):
            if now:
                ended.set_result(None)
        waiting = [one for one, now in zip(waiting, over, strict=True) if not now]
