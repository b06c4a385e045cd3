"""Calls by way of the host: through pinned memory, by the engine of ordinary arrays, where GPUs cannot share memory or
the op is a function of the user's."""

from __future__ import annotations

from collx.cuda.control import Control, Deadline
from collx.cuda.segments import cut
from collx.cuda.staging import Stage, Staging
from collx.errors import TimeoutError, TransportError
from collx.request import Request
from collx.transports.cuda.driver import Driver
from collx.transports.waiting import Pause

ROOM = 4 << 20  # bytes of the input, and of the output, of a segment


class OnHost:
    """One rank's part. `why` there is no other way, for people; empty where that is the call's own matter."""

    def __init__(self, driver: Driver, control: Control, why: str) -> None:
        self._driver, self._control, self._why = driver, control, why
        self._room, self._memory = 0, 0  # of each of four parts, and where they lie
        self._staging: Staging | None = None

    def may_capture(self, here: str) -> None:
        """Raise TransportError, as no call by way of the host can become part of a CUDA graph."""
        why = self._why or "the op is a function of the user's"
        raise TransportError(f"{here} goes by way of the host, which a CUDA graph cannot hold: {why}")

    def run(
        self,
        request: Request,
        source: int,
        target: int,
        stream: int,
        deadline: Deadline,
        here: str,
        keep: object = None,
    ) -> None:
        """Run a call; its result is there for what is queued on the stream later. Its input is read when it returns."""
        driver, control = self._driver, self._control
        segments = cut(request, control.rank, control.size, ROOM)

        def execute(part: Request, at: int, to: int) -> None:
            control.run(part, at, to, deadline)

        def reached(event: int) -> None:
            pause = Pause()
            while not driver.done(event):
                if deadline.over:
                    raise TimeoutError(f"{here} waited {deadline.seconds:g} s for what was queued on its stream before")
                pause()

        staging = self._staged(max(segment.room for segment in segments))
        staging.run(segments, source, target, stream, execute, reached)

    def _staged(self, room: int) -> Staging:
        """The stages, made larger where one segment has to be all of a call."""
        if self._staging is None or room > self._room:
            self._free()
            self._room = max(room, ROOM)
            self._memory = first = self._driver.allocate_host(4 * self._room)
            halves = [Stage(first + side * 2 * self._room, first + (side * 2 + 1) * self._room) for side in (0, 1)]
            self._staging = Staging(self._driver, (halves[0], halves[1]))
        return self._staging

    def close(self, deadline: Deadline) -> bool:
        """Give the memory back if what was queued has ended by the deadline; whether it has. Idempotent."""
        pause = Pause()
        while self._staging is not None and not self._staging.ended():
            if deadline.over:
                return False
            pause()
        self._free()
        return True

    def _free(self) -> None:
        if self._staging is not None:
            self._staging.close()
            self._driver.free_host(self._memory)
            self._staging = None
