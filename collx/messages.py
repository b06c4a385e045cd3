"""Messages between two ranks: send, recv and sendrecv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from collx.buffers import Buffer, for_input, for_output, together, where_of
from collx.checks import rank_of, seconds, whole
from collx.engine import Engine
from collx.guide import UNGUIDED, Guide
from collx.on_gpu import OnGpu
from collx.oneself import Oneself
from collx.schedule import Groups
from collx.work import Work


class Messages(OnGpu):
    """Tagged messages. Between two ranks those of one tag arrive in the order they were sent.

    The two sides agree on the tag and on the number of bytes; dtypes and shapes are theirs to agree on. What
    a rank sends itself is kept until it receives it.
    """

    def __init__(
        self,
        engine: Engine,
        rank: int,
        size: int,
        timeout: float,
        groups: Groups = (),
        guide: Guide = UNGUIDED,
    ) -> None:
        super().__init__(engine, rank, size, timeout, groups, guide)
        self._oneself = Oneself(rank)

    def send(
        self, x: Any, to: int, tag: int = 0, *, async_op: bool = False, timeout: float | None = None
    ) -> Work | None:
        """Send `x` to rank `to`.

        x: any array collx takes, any shape. Returns None when `x` may be changed again, which may be before it
        was received; with `async_op` a Work. Raises ValueError or TypeError for a wrong rank, tag or array,
        collx.TimeoutError, RankFailedError.
        """
        to, tag, limit = rank_of(to, self.size, "to"), _tag(tag), self._limit(timeout)
        given = for_input(x)
        if self._group is not None:
            if given.copied and given.kind.device is None:
                given.load()
                x = given.array
            begin = partial(self.send, x, to, tag, async_op=True)
            noted: Work | None = self._group.message(begin, given, None, async_op, timeout)
            return noted
        source = _at_hand(given, limit)
        if to == self.rank:
            self._oneself.send(source.array, tag)
            return Work(None, None) if async_op else None
        where = (source.address, source.array.nbytes, to, tag, limit)
        if async_op:
            return self._started("send", self._engine.start_send, where, None, source)
        self._message("send", self._engine.send, where, source)
        return None

    def recv(self, out: Any, source: int, tag: int = 0, *, async_op: bool = False, timeout: float | None = None) -> Any:
        """Receive into `out` the next message with `tag` from rank `source`, of exactly its bytes; returns `out`.

        out: a writable, C-contiguous array. With `async_op` returns a Work whose result is `out`. Raises
        ValueError, TypeError or BufferError for wrong arguments, MismatchError where the message has another
        length, collx.TimeoutError, RankFailedError.
        """
        source, tag, limit = rank_of(source, self.size, "source"), _tag(tag), self._limit(timeout)
        target = for_output(out)
        if self._group is not None:
            return self._group.message(
                partial(self.recv, out, source, tag, async_op=True), target, out, async_op, timeout
            )
        if target.kind.device is not None:
            return self._recv_on_gpu(target, source, tag, async_op, limit)
        if source == self.rank:
            if not async_op:
                self._oneself.check(target.array.nbytes, tag)
            pending = self._oneself.recv(target.array, tag, limit)
            return Work(pending, out, target) if async_op else out
        where = (target.address, target.array.nbytes, source, tag, limit)
        if async_op:
            return self._started("recv", self._engine.start_recv, where, out, target)
        self._message("recv", self._engine.recv, where, target)
        return out

    def sendrecv(
        self,
        x: Any,
        to: int,
        out: Any,
        source: int,
        tag: int = 0,
        *,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Send `x` to rank `to` and receive `out` from rank `source` at once, so that rings and swaps never lock up.

        Returns `out`, or with `async_op` a Work whose result it is. `out=x` replaces the data; other overlaps
        are refused. Raises as send and recv do.
        """
        to, source, tag = rank_of(to, self.size, "to"), rank_of(source, self.size, "source"), _tag(tag)
        self._limit(timeout)
        outgoing, incoming = for_input(x), for_output(out)
        together(outgoing, incoming)
        if outgoing.shares(incoming):
            if (outgoing.address, outgoing.array.nbytes) != (incoming.address, incoming.array.nbytes):
                raise ValueError("x and out overlap, but are not the same memory")
            if outgoing.kind.device is None:  # from a GPU it is sent from a copy anyway
                outgoing = for_input(x, private=True)
                outgoing.load()
                x = outgoing.array
        if self._group is not None:
            self.send(x, to, tag)
            return self.recv(out, source, tag, async_op=async_op, timeout=timeout)
        if source == self.rank:
            coming = outgoing.array.nbytes if to == self.rank else None
            self._oneself.check(incoming.array.nbytes, tag, coming)
        sending = self.send(x, to, tag, async_op=True, timeout=timeout)
        receiving = self.recv(out, source, tag, async_op=True, timeout=timeout)
        assert sending is not None
        both = Work(_Both(sending, receiving), out)
        return both if async_op else self._finished("sendrecv", both)

    def _recv_on_gpu(self, target: Buffer, source: int, tag: int, async_op: bool, limit: float) -> Any:
        """By way of the host, and from there by the stream that is the caller's when it waits."""
        from collx.cuda.parcels import Parcel  # which those without GPUs never need

        device = target.kind.device
        assert device is not None
        parcel = Parcel(target.array.nbytes, device)
        coming = self.recv(parcel.array, source, tag, async_op=async_op, timeout=limit)

        def deliver() -> None:
            where = where_of((target,))
            assert where is not None
            parcel.unload(target.address, where, limit)

        if async_op:
            return self._watched(f"recv with rank {source}", _Delivered(coming, deliver), target.given, target)
        deliver()
        return target.given

    def _limit(self, timeout: float | None) -> float:
        self._alive()
        return seconds(timeout, self.timeout)

    def _message(self, what: str, transfer: Any, where: tuple[Any, ...], buffer: Buffer) -> None:
        try:
            transfer(*where)
        except BaseException as error:
            self._engine.hold(buffer)
            self._break(f"{what} with rank {where[2]}", error)
            raise

    def _started(self, what: str, transfer: Any, where: tuple[Any, ...], result: Any, buffer: Buffer) -> Work:
        try:
            pending = transfer(*where)
        except BaseException as error:
            self._break(f"{what} with rank {where[2]}", error)
            raise
        return self._watched(f"{what} with rank {where[2]}", pending, result, buffer)


class _Both:
    """A send and a receive as one Pending."""

    def __init__(self, sending: Work, receiving: Work) -> None:
        self.works = (receiving, sending)

    def done(self) -> bool:
        return all(work.done() for work in self.works)

    def wait(self, timeout: float) -> None:
        for work in self.works:
            work.wait(timeout)


class _Delivered:
    """A receive on the host, and the way from there, which it goes once."""

    def __init__(self, coming: Work, deliver: Callable[[], None]) -> None:
        self._coming, self._deliver = coming, deliver
        self._delivered = False

    def done(self) -> bool:
        return self._coming.done()

    def wait(self, timeout: float) -> None:
        self._coming.wait(timeout)
        if not self._delivered:
            self._delivered = True
            self._deliver()


def _at_hand(source: Buffer, limit: float) -> Buffer:
    """The data as it is by now: on the host, and contiguous."""
    where = where_of((source,))
    if source.copied:
        source.load(where)
    if where is None:
        return source
    from collx.cuda.parcels import Parcel  # which those without GPUs never need

    parcel = Parcel(source.array.nbytes, where.ordinal)
    parcel.load(source.address, where, limit)
    return replace(for_input(parcel.array), given=parcel)


def _tag(tag: int) -> int:
    tag = whole(tag, "tag")
    if not 0 <= tag < 2**31:
        raise ValueError(f"tag is {tag}, but tags go from 0 to {2**31 - 1}")
    return tag
