"""Work: the handle of a call that goes on while the caller does something else."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from collx.checks import seconds
from collx.engine import Cancellable, Pending
from collx.errors import TimeoutError


class Work:
    """A collective or message under way. It completes whether or not anybody waits, also after the handle is dropped.

    Collectives complete in the order in which they were started. What a call goes wrong with is raised by
    `wait`, each time it is called. Awaitable: `await work` is `wait()` without blocking the event loop.
    """

    __slots__ = ("__weakref__", "_ended", "_error", "_keep", "_pending", "_result")

    def __init__(
        self,
        pending: Pending | None,
        result: Any,
        keep: Any = None,
        ended: Callable[[Work, Exception | None], None] | None = None,
    ) -> None:
        self._pending = pending  # None once its outcome is known
        self._result = result
        self._keep = keep  # the memory it reads and writes
        self._ended = ended  # is told once that it has, and what it failed with
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether it has ended, well or not. Never blocks, never raises."""
        pending = self._pending  # which another thread may be taking away
        return pending is None or pending.done()

    def wait(self, timeout: float | None = None) -> Any:
        """Return the call's result when it has ended.

        `timeout` is in seconds; None waits until the call's own deadline. Raises collx.TimeoutError when it
        passes (the call goes on, and can be waited for again), and what the call itself failed with.
        """
        pending, limit = self._pending, seconds(timeout)
        if pending is not None:
            try:
                pending.wait(limit)
            except Exception as error:
                if not pending.done():
                    raise
                self.settle()
                # The call's own is raised below. This wait's own time may be up, but the call has ended after all;
                # whatever else there is a signal handler raised.
                if error is not self._error and not isinstance(error, TimeoutError):
                    raise
            self.settle()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> bool:
        """Take back a receive that no message has come for.

        True where that was done: then it has ended, its memory is the caller's again, and `wait` raises
        CancelledError. False where it is too late, or this is no receive: then the call goes on.
        """
        pending = self._pending
        if not isinstance(pending, Cancellable) or not pending.cancel():
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Take note of the outcome of a call that is done; gives up the memory it used."""
        pending = self._pending
        if pending is None:
            return
        try:
            found = pending.wait(seconds(None))
        except Exception as error:
            self._settled(error)
        else:
            if self._result is None:
                self._result = found
            self._settled(None)

    def _settled(self, error: Exception | None) -> None:
        if self._pending is None:  # an engine tells what a user's op raised only once: what is known first holds
            return
        ended, self._error = self._ended, error
        self._pending = self._keep = self._ended = None
        if ended is not None:
            ended(self, error)

    def abandon(self, error: Exception) -> object:
        """Fail with `error` whatever becomes of the call, as in a forked child; what may not be destroyed there."""
        kept = (self._pending, self._keep)
        self._pending = self._keep = self._ended = None
        self._error = error
        return kept

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # most programs await nothing

        return asyncio.to_thread(self.wait).__await__()

    def __repr__(self) -> str:
        state = "failed" if self._error else "done" if self.done() else "under way"
        return f"<collx.Work {state}>"
