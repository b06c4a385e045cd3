"""What ranks tell each other on the host, about memory that none of them touches there."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from collx.engine import Engine
from collx.planner import make_plan
from collx.request import Request


class Deadline:
    """A moment, and the seconds until it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Never 0, which engines do not take."""
        return max(self._at - time.monotonic(), 1e-3)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._at


class Control:
    """Gathers and barriers over an engine that nothing else uses: the ranks' calls on GPUs alone decide their order."""

    def __init__(self, engine: Engine, rank: int, size: int) -> None:
        self.engine, self.rank, self.size = engine, rank, size
        self._plans: dict[Request, Any] = {}

    def gather(self, record: bytes, deadline: Deadline, called: str) -> list[bytes]:
        """Every rank's record, all of one length. Raises as collectives do, under the name of what is `called` so."""
        mine = np.frombuffer(record, np.uint8)
        every = np.empty((self.size, mine.size), np.uint8)
        elements = (mine.size,) * self.size
        self._run(Request("all_gather", elements, mine.dtype, "direct", called=called), mine, every, deadline)
        return [row.tobytes() for row in every]

    def meet(self, deadline: Deadline, called: str) -> None:
        """Return when every rank has come."""
        nothing = np.empty(0, np.uint8)
        self._run(Request("barrier", (0,), np.dtype(np.bool_), called=called), nothing, nothing, deadline)

    def _run(self, request: Request, source: Any, target: Any, deadline: Deadline) -> None:
        engine = self.engine
        prepared = self._plans.get(request)
        if prepared is None:
            limits = (engine.capacity, engine.window, False, engine.far)
            prepared = self._plans[request] = engine.prepare(*make_plan(request, self.rank, self.size, *limits))
        engine.sequence = sequence = engine.sequence + 1
        engine.run(prepared, source.ctypes.data, target.ctypes.data, sequence, deadline.left)
