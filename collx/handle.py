"""A persistent handle: one call, checked and planned once, run as often as wanted."""

from __future__ import annotations

from typing import Any

from collx.calls import Call
from collx.known import quick, unknown
from collx.member import Member


class Handle:
    """What `Communicator.plan` returns. Calling it runs the collective on the same memory again: on what the input
    holds by then, into the same `result`. As with the method itself, every rank must call it."""

    __slots__ = ("_call", "_member", "_recall")

    def __init__(self, member: Member, call: Call) -> None:
        self._member = member
        self._call = call
        self._recall = member.bound(call)

    @property
    def result(self) -> Any:
        """What every run returns: `out`, or the array made for it. It holds nothing before the first run."""
        return self._call.result

    @quick
    def __call__(self, *, async_op: bool = False, timeout: float | None = None) -> Any:
        """Run it; the result, or with `async_op` a Work, which must have ended before the next run starts to be of
        use. Raises what the collective's method raises between ranks."""
        result = self._member._do(self._call, async_op, timeout)
        if self._recall is unknown and self._member._trials is not None:  # which may have ended
            self._recall = self._member.bound(self._call)
        return result

    def __repr__(self) -> str:
        return f"<collx handle of {self._call.request.collective} on rank {self._member.rank} of {self._member.size}>"
