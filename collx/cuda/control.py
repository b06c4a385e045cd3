"""What ranks tell each other on the host, about memory that none of them touches there."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from collx.engine import Engine
from collx.errors import CollxError
from collx.guide import UNGUIDED, Guide
from collx.planner import make_plan, room_of
from collx.request import Request
from collx.schedule import Groups
from collx.selector import choose

LEAVING = 0x1EAF  # the tag of the only message between two ranks
FOREVER = 1e8  # seconds; a message whose own time is up would end the communicator
PLANS = 1024  # kept; where every call has another shape, old ones go


class Deadline:
    """A moment, and the seconds until it; `here`: whose call it is of, in errors."""

    def __init__(self, seconds: float, here: str = "") -> None:
        self.seconds, self.here = seconds, here
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Never 0, which engines do not take."""
        return max(self._at - time.monotonic(), 1e-3)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._at


class Control:
    """Gathers, barriers and collectives of the host over an engine that nothing else uses: the ranks' calls on GPUs
    alone decide their order."""

    def __init__(self, engine: Engine, rank: int, size: int, groups: Groups = (), guide: Guide = UNGUIDED) -> None:
        self.engine, self.rank, self.size, self.groups, self.guide = engine, rank, size, groups, guide
        self._plans: dict[Request, Any] = {}
        self._word = np.zeros(1, np.uint8)

    def gather(self, record: bytes, deadline: Deadline, called: str) -> list[bytes]:
        """Every rank's record, all of one length. Raises as collectives do, under the name of what is `called` so."""
        mine = np.frombuffer(record, np.uint8)
        every = np.empty((self.size, mine.size), np.uint8)
        request = Request("all_gather", (mine.size,) * self.size, mine.dtype, "direct", called=called)
        self.run(request, mine.ctypes.data, every.ctypes.data, deadline)
        return [row.tobytes() for row in every]

    def meet(self, deadline: Deadline, called: str) -> None:
        """Return when every rank has come."""
        self.run(Request("barrier", (0,), np.dtype(np.bool_), called=called), 0, 0, deadline)

    def part(self, deadline: Deadline) -> None:
        """Return when every rank is about to leave, has left or is dead, or at the deadline. By messages, as ranks that
        do not mean to leave make other calls: what these say is that this one left."""
        peers, at = [peer for peer in range(self.size) if peer != self.rank], self._word.ctypes.data
        with contextlib.suppress(CollxError):
            ways = (self.engine.start_send, self.engine.start_recv)
            for pending in [start(at, 1, peer, LEAVING, FOREVER) for start in ways for peer in peers]:
                pending.wait(deadline.left)

    def run(self, request: Request, source: int, target: int, deadline: Deadline) -> None:
        """Run a collective on memory of the host. Raises as collectives do."""
        engine = self.engine
        prepared, _ = self._plans.get(request) or self._planned(request)
        engine.sequence = sequence = engine.sequence + 1
        try:
            engine.run(prepared, source, target, sequence, deadline.left)
        except CollxError as error:  # of what nobody called, so it says which call that was for
            meant = f"rank {self.rank} in {deadline.here}" if deadline.here else ""
            what = f"rank {self.rank} in {request.collective} #{sequence}"
            error.args = (str(error).replace(what, meant or what), *error.args[1:])
            raise

    def check(self, request: Request) -> None:
        """Raise ValueError where nothing can serve a collective that may be chosen for it."""
        engine = self.engine
        choose(request, self.size, room_of(engine.capacity), engine.far, engine.mpi, self.guide, self.groups)

    def _planned(self, request: Request) -> Any:
        engine = self.engine
        limits = (engine.capacity, engine.window, engine.mpi, engine.far)
        plan, op = make_plan(request, self.rank, self.size, *limits, self.groups, self.guide)
        if len(self._plans) >= PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[request] = made = (engine.prepare(plan, op), op)
        return made
