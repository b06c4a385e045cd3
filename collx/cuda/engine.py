"""Runs collectives on GPU memory.

Every rank sees the memory of all. A call is announced on the host: what it is, and where its input and output lie. So
ranks that make different calls, die or do not come are found out before anybody's memory is touched. Then it is queued
on the caller's stream: a barrier, what this rank's GPU has to do, and a barrier. Where memory cannot be shared so, the
call is staged, and `explain` says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from collx.cuda.background import Background, Later
from collx.cuda.choosing import Ranks, named
from collx.cuda.control import PLANS, Control, Deadline
from collx.cuda.joining import CALLED, LEAVE, Joined, Refused, join
from collx.cuda.mapped import Mapped
from collx.cuda.on_host import OnHost
from collx.engine import Engine
from collx.errors import ClosedError, MismatchError, TransportError
from collx.flight import Flown
from collx.guide import UNGUIDED, Guide
from collx.request import Request
from collx.schedule import Groups
from collx.transports.cuda.driver import driver
from collx.types import Where


class CudaEngine:
    """One rank's collectives on GPU memory in one communicator, over an `engine` that nothing else uses. `join` first.

    Calls are made in one order on all ranks, and are ordered on the caller's stream as kernels are: after what is
    queued there already, before what comes later. In mode "host" a call returns when it has ended, in the others when
    it is queued on all ranks. Raises as collectives do; after an error between ranks every call raises ClosedError.
    """

    def __init__(self, engine: Engine, rank: int, size: int, groups: Groups = (), guide: Guide = UNGUIDED) -> None:
        self.rank, self.size = rank, size
        self._control = Control(engine, rank, size, groups, guide)
        self._joined: Joined | None = None
        self._ways: tuple[Mapped | None, OnHost] | None = None
        self._background = Background()
        self._side = 0  # the stream of asynchronous calls, once there are any
        self._calls = 0
        self._checked = set[Request]()
        self._over: str | None = None  # why it takes no more calls

    def join(self, where: Where, limit: float) -> None:
        """Find out with all other ranks how calls are made, on the GPU of `where` from then on. Collective. Raises
        Refused where they find that they cannot be: then it is of no use, on any rank."""
        try:
            self._joined = joined = join(self._control, where, Deadline(limit))
            on_host, shares = OnHost(joined.driver, self._control, joined.apart), joined.shares
            with joined.driver.on(joined.ordinal):
                mapped = None if shares is None else Mapped(joined, shares, self._control, on_host, self.fail)
            self._ways = mapped, on_host
        except Refused:  # by all alike
            raise
        except BaseException as error:
            self.fail(f"rank {self.rank} in {CALLED}: {type(error).__name__}: {' '.join(str(error).split())}")
            raise

    def check(self, request: Request, where: Where) -> None:
        """Raise ValueError, before anybody hears of the call, where it is on another GPU than those before, or nothing
        serves it of what it names, or COLLX_ALGO; TransportError where it is captured and cannot be."""
        if self._joined is not None and where.ordinal != self._joined.ordinal:
            raise ValueError(
                f"rank {self.rank}: this communicator's calls are on GPU {self._joined.ordinal}, and this array is on"
                f" GPU {where.ordinal}; give each GPU a communicator of its own: comm.split(0)"
            )
        if self._ways is not None and self._captures(where):
            self._way(request).may_capture(f"rank {self.rank} in {request.collective} on GPUs")
        with contextlib.suppress(TypeError):  # what names an algorithm by what has no hash is wrong
            if request in self._checked:
                return
        control, ranks = self._control, self.ranks
        if request.custom or ranks is None:
            control.check(request)
        else:
            named(request, ranks, control.guide)
        if len(self._checked) >= PLANS:
            self._checked.clear()
        self._checked.add(request)

    def run(self, request: Request, source: int, target: int, where: Where, limit: float, keep: object = None) -> None:
        """Run a call from the input at `source` to the output at `target`, of the GPU and on the stream of `where`.
        What it is to `keep` it keeps until its work has ended, which may be after this returns."""
        newest = self._background.newest
        if newest is not None and self._captures(where):  # what is captured may not ask what streams have come to
            newest.queued(limit)
        elif self._background.under_way():  # calls are made in order
            self.start(request, source, target, where, limit, lambda: where.stream, keep).wait(limit)
            return
        self._perform(request, source, target, where, Deadline(limit), keep)

    def start(
        self,
        request: Request,
        source: int,
        target: int,
        where: Where,
        limit: float,
        stream: Callable[[], int],
        keep: object = None,
    ) -> Later:
        """As run, in the background. What is queued on `stream()` after `wait` comes after the call."""
        self._usable()
        if self._captures(where):
            raise TransportError(
                f"rank {self.rank}: {request.collective} with async_op=True cannot be captured in a CUDA graph; leave"
                " async_op= out, as a graph goes by streams alone"
            )
        later = Later(driver(), where.ordinal, f"rank {self.rank}: {request.collective}", stream)
        with driver().on(where.ordinal):
            driver().record(later.begun, where.stream)
        self._background.submit(later, lambda: self._later(later, request, source, target, where, limit, keep))
        return later

    def _captures(self, where: Where) -> bool:
        with driver().on(where.ordinal):
            return driver().capturing(where.stream)

    def _later(
        self,
        later: Later,
        request: Request,
        source: int,
        target: int,
        where: Where,
        limit: float,
        keep: object,
    ) -> None:
        with driver().on(where.ordinal):
            if not self._side:
                self._side = driver().stream()
            driver().wait_event(self._side, later.begun)
        self._perform(request, source, target, where._replace(stream=self._side), Deadline(limit), keep)
        with driver().on(where.ordinal):
            driver().record(later.ended, self._side)

    def _perform(
        self, request: Request, source: int, target: int, where: Where, deadline: Deadline, keep: object
    ) -> None:
        self._usable()
        self._calls += 1
        deadline.here = f"{request.called or request.collective} #{self._calls} on GPUs"
        here = f"rank {self.rank} in {deadline.here}"
        try:
            assert self._joined is not None, "join comes first"
            with self._joined.driver.on(self._joined.ordinal):
                self._way(request).run(request, source, target, where.stream, deadline, here, keep)
        except BaseException as error:
            text, mismatch = " ".join(str(error).split()), isinstance(error, MismatchError)
            self.fail(text if mismatch else f"{here}: {type(error).__name__}: {text}", mismatch=mismatch)
            raise

    def story(self) -> str | None:
        """How calls on GPUs are made, and why so; None where there was none yet."""
        if self._joined is None or self._ways is None:
            return None
        staged = self._ways[0].staged if self._ways[0] is not None else ""
        return self._joined.story() + (f"; staged where it must be, last because of {staged}" if staged else "")

    def _way(self, request: Request) -> Mapped | OnHost:
        """How the call is made."""
        assert self._ways is not None, "join comes first"
        mapped, on_host = self._ways
        return on_host if mapped is None or request.custom else mapped

    @property
    def ranks(self) -> Ranks | None:
        """Among whom algorithms are chosen; None where calls go by the host, and before the first one."""
        mapped = None if self._ways is None else self._ways[0]
        return None if mapped is None else mapped.ranks

    def fail(self, reason: str, *, mismatch: bool = False) -> None:
        """Take no more calls, and tell the other ranks why; with `mismatch` theirs end with MismatchError too.
        Idempotent."""
        if self._over is None:
            self._over = reason
            self._control.engine.fail(reason, mismatch=mismatch)
            if self._ways is not None and self._ways[0] is not None:
                self._ways[0].release()

    def flown(self) -> dict[int, list[Flown]]:
        """What ranks last told each other on the host, as `Engine.flown`."""
        return self._control.engine.flown()

    def revoke(self) -> None:
        self._control.engine.revoke()

    def close(self) -> None:
        """Leave, when what was started has ended; waits a little for the others, whose GPUs may still read this rank's
        memory. What does not end is left to the end of the process. Idempotent."""
        self._background.close()
        try:
            if self._joined is not None and self._ways is not None:
                joined, self._joined, (mapped, on_host) = self._joined, None, self._ways
                with joined.driver.on(joined.ordinal):
                    ended = mapped is None or mapped.close(LEAVE, lambda: self._over is not None)
                    ended = on_host.close(Deadline(LEAVE)) and ended
                    if ended and self._side:
                        joined.driver.destroy_stream(self._side)
                if ended:  # to free memory the driver waits for every stream, and one may wait for a peer that is dead
                    joined.close(None if self._over is not None else self._control)
        finally:
            self._over = self._over or "it was closed"
            self._control.engine.close()

    def _usable(self) -> None:
        if self._over is not None:
            raise ClosedError(f"rank {self.rank}: this communicator cannot be used on GPUs: {self._over}")
