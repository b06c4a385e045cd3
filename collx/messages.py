"""Messages between two ranks: send, recv, sendrecv, recv_any and probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from collx.buffers import Buffer, for_input, for_output, together, where_of
from collx.checks import rank_of, seconds, whole
from collx.member import HARMLESS
from collx.on_gpu import OnGpu
from collx.types import ANY, Envelope
from collx.work import Work


class Messages(OnGpu):
    """Tagged messages. Between two ranks those of one tag arrive in the order they were sent.

    Of the receives that ask for a message, the one that was started first gets it. With `recv` the two sides agree
    on the tag and on the number of bytes; dtypes and shapes are always theirs to agree on. What a rank sends itself
    is kept until it receives it.
    """

    def send(
        self,
        x: Any,
        to: int,
        tag: int = 0,
        *,
        synchronous: bool = False,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Work | None:
        """Send `x` to rank `to`.

        x: any array collx takes, any shape. Returns None when `x` may be changed again, which may be before it
        was received, or where it is `synchronous` when a receive has been matched with it; with `async_op` a
        Work. Raises ValueError or TypeError for a wrong rank, tag or array, collx.TimeoutError, RankFailedError.
        """
        to, tag, limit = rank_of(to, self.size, "to"), _tag(tag), self._limit(timeout)
        given = for_input(x)
        if self._group is not None:
            if given.copied and given.kind.device is None:
                given.load()
                x = given.array
            begin = partial(self.send, x, to, tag, synchronous=synchronous, async_op=True)
            noted: Work | None = self._group.message(begin, given, None, async_op, timeout)
            return noted
        source = _at_hand(given, limit)
        where = (source.address, source.array.nbytes, to, tag, limit, synchronous)
        if async_op:
            return self._started("send", to, self._engine.start_send, where, None, source)
        self._message("send", to, self._engine.send, where, source)
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
        where = (target.address, target.array.nbytes, source, tag, limit)
        if async_op:
            return self._started("recv", source, self._engine.start_recv, where, out, target)
        if source == self.rank:
            self._served(target.array.nbytes, tag)
        self._message("recv", source, self._engine.recv, where, target)
        return out

    def recv_any(
        self,
        out: Any,
        source: int | None = None,
        tag: int | None = None,
        *,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Receive the next message from `source` with `tag` into the first bytes of `out`; returns its Envelope.

        source: a rank, this one too; None takes any. tag: None takes any. out: a writable, C-contiguous array on the
        host; what lies behind the message stays as it is. With `async_op` returns a Work whose result is the Envelope.
        Raises ValueError, TypeError or BufferError for wrong arguments, collx.TimeoutError, RankFailedError, also
        where all ranks have left from which it could come; TruncatedError where the message is longer than `out`: it is
        lost, and the communicator goes on.
        """
        asked, wanted, limit = self._asked("recv_any", source, tag, timeout)
        target = for_output(out)
        if target.kind.device is not None:
            raise NotImplementedError("recv_any into memory of a GPU: receive on the host, and copy it from there")
        where = (target.address, target.array.nbytes, asked, wanted, limit, False)
        if async_op:
            return self._started("recv_any", asked, self._engine.start_recv, where, None, target)
        return self._message("recv_any", asked, self._engine.recv, where, target)

    def probe(
        self, source: int | None = None, tag: int | None = None, *, wait: bool = True, timeout: float | None = None
    ) -> Envelope | None:
        """The Envelope of the message that `recv_any(out, source, tag)` would get; the message stays.

        Waits until there is one; with `wait=False` returns None where none has come. Raises as recv_any does.
        """
        asked, wanted, limit = self._asked("probe", source, tag, timeout)
        found: Envelope | None = self._message("probe", asked, self._engine.probe, (asked, wanted, limit, wait))
        return found

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
            self._served(incoming.array.nbytes, tag, outgoing.array.nbytes if to == self.rank else None)
        sending = self.send(x, to, tag, async_op=True, timeout=timeout)
        if source == to == self.rank:
            self._served(incoming.array.nbytes, tag)  # a receive that was started before may have got it
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

    def _asked(self, what: str, source: int | None, tag: int | None, timeout: float | None) -> tuple[int, int, float]:
        if self._group is not None:
            raise NotImplementedError(f"{what} in a group: nothing of that begins before its block ends")
        peer = ANY if source is None else rank_of(source, self.size, "source")
        return peer, ANY if tag is None else _tag(tag), self._limit(timeout)

    def _served(self, nbytes: int, tag: int, coming: int | None = None) -> None:
        """Raise ValueError where a receive of `nbytes` from this rank itself would not be served at once, not even if a
        message of `coming` bytes were sent first: nobody else can serve it."""
        found = self._engine.probe(self.rank, tag, self.timeout, False)
        sent = coming if found is None else found.nbytes
        if sent is None:
            raise ValueError(f"rank {self.rank} has sent itself nothing with tag {tag}: it would wait forever")
        if sent != nbytes:
            raise ValueError(f"rank {self.rank} sent itself {sent} bytes, but receives {nbytes}")

    def _limit(self, timeout: float | None) -> float:
        self._alive()
        return seconds(timeout, self.timeout)

    def _message(
        self, what: str, peer: int, transfer: Any, where: tuple[Any, ...], buffer: Buffer | None = None
    ) -> Any:
        try:
            return transfer(*where)
        except HARMLESS:
            raise
        except BaseException as error:
            self._engine.hold(buffer)
            self._break(_with(what, peer), error)
            raise

    def _started(
        self, what: str, peer: int, transfer: Any, where: tuple[Any, ...], result: Any, buffer: Buffer
    ) -> Work:
        try:
            pending = transfer(*where)
        except BaseException as error:
            self._break(_with(what, peer), error)
            raise
        return self._watched(_with(what, peer), pending, result, buffer)


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

    def cancel(self) -> bool:
        return self._coming.cancel()


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


def _with(what: str, peer: int) -> str:
    return f"{what} with {'any rank' if peer == ANY else f'rank {peer}'}"


def _tag(tag: int) -> int:
    tag = whole(tag, "tag")
    if not 0 <= tag < 2**31:
        raise ValueError(f"tag is {tag}, but tags go from 0 to {2**31 - 1}")
    return tag
