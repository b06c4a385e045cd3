"""A rank's calls on GPU memory: by an engine of their own, which all ranks make at the first such call."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from collx import flight
from collx.calls import Call
from collx.checks import seconds
from collx.errors import CollxError
from collx.known import Recall, unknown
from collx.leaving import keep_in_child
from collx.member import Member
from collx.types import Where

if TYPE_CHECKING:
    from collx.cuda.engine import CudaEngine


FIRST = "the first call on GPUs"


class OnGpu(Member):
    """A Member that takes calls on GPUs as well. They share its order, its errors and its end with those on the CPU; an
    asynchronous one of these is not waited for, as nothing on a stream waits for the host's calls."""

    _gpus: CudaEngine | None = None

    @abstractmethod
    def _gpu_engine(self, where: Where, limit: float) -> CudaEngine:
        """Make it, for a call on the stream of `where`. Collective."""

    def _do(self, call: Call, async_op: bool, timeout: float | None, *given: Any) -> Any:
        if self._group is not None:
            return self._group.add(call, async_op, timeout, given)
        where = call.where
        if where is None:
            return super()._do(call, async_op, timeout, *given)
        limit = self.timeout if timeout is None else seconds(timeout)
        self._alive()
        gpus = self._gpus or self._joined_gpus(where, limit)
        gpus.check(call.request, where)
        call.prepare(where)
        return self._queue(gpus, call, where, async_op, limit)

    def _joined_gpus(self, where: Where, limit: float) -> CudaEngine:
        from collx.cuda.joining import Refused  # which those without GPUs never need

        self._gpus = gpus = self._gpu_engine(where, limit)
        try:
            gpus.join(where, limit)
        except Refused:
            self._gpus = None
            gpus.close()
            raise
        except BaseException as error:
            self._break(FIRST, error)
            raise
        return gpus

    def _queue(self, gpus: CudaEngine, call: Call, where: Where, async_op: bool, limit: float) -> Any:
        what = f"{call.request.collective} on GPUs"
        here = (call.request, call.source, call.target, where, limit)
        borrowed = [buffer.array for buffer in call.keep if buffer.borrowed]
        try:
            if async_op:
                pending = gpus.start(*here, lambda: (call.where or where).stream, borrowed)
                return self._watched(what, pending, call.result, call)
            gpus.run(*here, borrowed)
        except BaseException as error:
            self._engine.hold(call)
            self._break(what, error)
            raise
        if self._guide.tells and self.rank == 0:
            self._tell_on_gpus(gpus, call)
        return call.result

    def _tell_on_gpus(self, gpus: CudaEngine, call: Call) -> None:
        """Print how calls on GPUs are made, once, and what was chosen for the call, once for its size class."""
        from collx.cuda.explain import first_choice  # which most programs never ask for

        lines = [f"calls on GPUs go {gpus.story()}"]
        if gpus.ranks is not None and call.request.agreed and not call.request.custom:
            lines.append(first_choice(call.request, gpus.ranks, self._guide))
        for line in lines:
            if line not in self._told:
                self._told.add(line)
                self._say(line)

    def bound(self, call: Call) -> Recall:
        where = call.where
        if where is None:
            return super().bound(call)
        if self._gpus is not None:
            self._gpus.check(call.request, where)
        return unknown

    def close(self) -> None:
        super().close()
        if self._gpus is not None:
            self._gpus.close()

    def _revoke(self) -> None:
        self._engine.revoke()
        if self._gpus is not None:
            self._gpus.revoke()

    def _break(self, what: str, error: BaseException) -> None:
        super()._break(what, error)
        if self._gpus is not None:
            with contextlib.suppress(CollxError):
                self._gpus.fail(self._over or what)

    def _flown(self) -> str:
        told = super()._flown()
        return (
            told
            if self._gpus is None
            else told + flight.table("what they told each other of calls on GPUs", self._gpus.flown())
        )

    def _inherited(self) -> None:
        keep_in_child(self._gpus)
        super()._inherited()
