"""What torch is given of a call under way."""

from __future__ import annotations

import datetime
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

import collx

Finish = Callable[[], object]


class CollxWork(dist.Work):  # type: ignore[misc]
    """A call under way as torch.distributed knows it. `finish` brings what has arrived to where it belongs, and is run
    once, by whoever first finds the call done."""

    def __init__(
        self,
        works: Sequence[collx.Work],
        result: Sequence[Any] = (),
        finish: Finish | None = None,
        waiter: Waiter | None = None,
    ) -> None:
        super().__init__()
        self._works, self._result, self._finish = works, result, finish
        self._waiter = waiter
        self._future: Any = None
        self._lock = threading.Lock()
        self._error: Exception | None = None

    def wait(self, timeout: datetime.timedelta = datetime.timedelta(0)) -> bool:
        """Return True when the call has ended. Raises what it failed with, collx.TimeoutError after `timeout`, where it
        is not 0."""
        seconds = timeout.total_seconds() or None
        try:
            for work in self._works:
                work.wait(seconds)
        except Exception as error:
            if all(work.done() for work in self._works):
                self._error = error
            raise
        if self._finish is not None:
            with self._lock:
                finish, self._finish = self._finish, None
                if finish is not None:
                    finish()
        return True

    def is_completed(self) -> bool:
        return all(work.done() for work in self._works)

    def is_success(self) -> bool:
        return self.is_completed() and self.exception() is None

    def exception(self) -> Exception | None:
        """What the call failed with; None also while it is under way."""
        if self._error is None and self.is_completed():
            try:
                self.wait()
            except Exception as error:
                self._error = error
        return self._error

    def synchronize(self) -> None:
        self.wait()

    def result(self) -> list[Any]:
        self.wait()
        return list(self._result)

    def get_future(self) -> Any:
        """Is set to the list of tensors that the call wrote."""
        if self._future is None:
            self._future = torch.futures.Future()
            if self.is_completed() or self._waiter is None:
                self.settle()
            else:
                self._waiter.put(self)
        return self._future

    def settle(self) -> None:
        """Wait, and pass the outcome on to the future."""
        try:
            self.wait()
        except Exception as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(list(self._result))

    def _source_rank(self) -> int:
        raise RuntimeError("this is no receive from any rank, so that it has no source to tell")

    source_rank = _source_rank


class Waiter:
    """A thread that waits for calls whose futures were asked for, one after another, as they were started."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[CollxWork | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, work: CollxWork) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._works.put(work)

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work.settle()

    def close(self) -> None:
        """When all that were put have ended."""
        if self._thread is not None:
            self._works.put(None)
            self._thread.join()
            self._thread = None
