"""Messages between reference engines: a header, then its bytes; matched on arrival to who waits for it.

Two messages of the transport make one of ours. The header says what the bytes belong to, so that ranks in
different collectives are told so instead of exchanging garbage. A message that nobody waits for is kept,
so collectives and tagged messages may pass each other on a lane.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from collx.agreement import WORDS, Traits
from collx.errors import AbortedError, CollxError, MismatchError, RankFailedError
from collx.transports.base import Request, Transport

HEADER = struct.Struct(f"<qqQQ{8 * WORDS}s")  # kind, number, chain, bytes that follow, traits

COLLECTIVE, TAGGED, GAVE_UP = range(3)
DIFFERED = -2  # as the number of GAVE_UP: ranks' calls differ; -1: no rank failed, else the rank that did
REMEMBERED = 64  # calls
_WORD = 2**64 - 1
NONE = Traits(0, -1, "")  # of messages that belong to no collective


class Stamp(NamedTuple):
    """What a message belongs to: a collective by its sequence, a tagged one by its tag. `chain` is the hash of all
    the sender's collectives until this one."""

    kind: int
    number: int
    chain: int
    traits: Traits

    def __str__(self) -> str:
        name = self.traits.collective
        return f"{name} #{self.number}" if self.kind == COLLECTIVE else f"{name}, tag {self.number}"


class Calls:
    """This rank's collectives, by which it knows messages of ranks that make other ones."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._made: dict[int, tuple[int, Traits]] = {}  # by number: the chain until then
        self._chain = 0

    def begin(self, number: int, traits: Traits) -> Stamp:
        return Stamp(COLLECTIVE, number, self.chain(number, traits), traits)

    def chain(self, number: int, traits: Traits) -> int:
        """As begin, without what a message has besides."""
        self._chain = chain = hash((self._chain, traits.fingerprint, number)) & _WORD
        self._made[number] = chain, traits
        self._made.pop(number - REMEMBERED, None)
        return chain

    def check(self, peer: int, theirs: Stamp) -> None:
        """Raise MismatchError where a message of `peer` shows that it makes other calls; nothing is known of those that
        this rank has not come to."""
        chain, traits = self._made.get(theirs.number, (theirs.chain, NONE))
        if chain != theirs.chain:
            raise self.mismatch(Stamp(COLLECTIVE, theirs.number, chain, traits), theirs, peer)

    def mismatch(self, mine: Stamp, theirs: Stamp, peer: int) -> MismatchError:
        """What to say of two calls that differ, or of which one was made after different ones."""
        told = mine.traits.difference(theirs.traits, peer)
        if mine.traits.fingerprint == theirs.traits.fingerprint:
            told = f"rank {peer} has made another call before; all ranks must make the same calls in the same order"
        return MismatchError(f"rank {self.rank} in {mine}: {told}")


@dataclass(eq=False, slots=True)
class Message:
    stamp: Stamp
    data: memoryview
    complete: bool = False


@dataclass(eq=False, slots=True)
class Receipt:
    """A message that is waited for. It lands at `landing`, if given; `data()` is where it is once done()."""

    peer: int
    stamp: Stamp
    nbytes: int
    landing: memoryview | None
    inbound: Inbound
    message: Message | None = None

    def done(self) -> bool:
        return self.message is not None and self.message.complete

    def data(self) -> memoryview:
        assert self.message is not None
        if self.landing is not None and self.message.data is not self.landing:
            self.landing[:] = self.message.data
            self.message.data = self.landing
        return self.message.data

    def __str__(self) -> str:
        kept = next((m.stamp for m in self.inbound.kept if m.stamp.kind == COLLECTIVE), None)
        return f"a message from rank {self.peer}" + (f", which is in {kept}" if kept else "")


@dataclass(eq=False, slots=True)
class Sent:
    """A message on its way; it keeps alive what it is sent from."""

    peer: int
    requests: list[Request]
    held: tuple[object, ...]

    def done(self) -> bool:
        self.requests = [request for request in self.requests if not request.done()]
        return not self.requests

    def __str__(self) -> str:
        return f"rank {self.peer} to receive"


@dataclass(eq=False, slots=True)
class Inbound:
    """What comes from one peer, in order. It is read only while somebody waits for it."""

    transport: Transport
    peer: int
    calls: Calls
    waiting: list[Receipt] = field(default_factory=list)
    kept: deque[Message] = field(default_factory=deque)
    header: bytearray = field(default_factory=lambda: bytearray(HEADER.size))
    request: Request | None = None
    current: Message | None = None
    listening: bool = False  # also without anybody waiting: what comes may show that the peer makes other calls

    def expect(self, receipt: Receipt) -> None:
        kept = next((m for m in self.kept if self._meets(receipt, m.stamp)), None)
        if kept is None:
            self.waiting.append(receipt)
            return
        self._check(receipt, kept.stamp, len(kept.data))
        self.kept.remove(kept)
        receipt.message = kept

    def poll(self) -> bool:
        """Take in what has come, without blocking; returns whether anything has."""
        if self.request is None:
            if not self.waiting and not self.listening:
                return False
            self.request = self.transport.recv(self.peer, memoryview(self.header))
        try:
            if not self.request.done():
                return False
        except RankFailedError:
            self.request = None
            if self.waiting or self.current is not None:
                raise
            self.listening = False  # it has left, and may have: nobody needs it
            return False
        self.request = None
        if self.current is None:
            kind, number, chain, nbytes, words = HEADER.unpack(self.header)
            traits = Traits.of(np.frombuffer(words, np.int64))
            self.current = self._opened(Stamp(kind, number, chain, traits), nbytes)
            if self.current.data.nbytes:
                self.request = self.transport.recv(self.peer, self.current.data)
                return True
        message, self.current = self.current, None
        message.complete = True
        if message.stamp.kind == GAVE_UP:
            raise self._gave_up(message)
        return True

    def deliver(self, stamp: Stamp, data: memoryview) -> None:
        """A message from this rank to itself."""
        message = self._opened(stamp, data.nbytes)
        message.data[:] = data
        message.complete = True

    def _opened(self, stamp: Stamp, nbytes: int) -> Message:
        """The message whose header this is, with room for its bytes, linked to its receipt or kept."""
        if stamp.kind == COLLECTIVE:
            self.calls.check(self.peer, stamp)
        receipt = next((r for r in self.waiting if self._meets(r, stamp)), None)
        if receipt:
            self._check(receipt, stamp, nbytes)
        landing = receipt.landing if receipt and receipt.landing is not None else np.empty(nbytes, np.uint8).data
        message = Message(stamp, landing)
        if receipt:
            self.waiting.remove(receipt)
            receipt.message = message
        elif stamp.kind != GAVE_UP:
            self.kept.append(message)
        return message

    @staticmethod
    def _meets(receipt: Receipt, stamp: Stamp) -> bool:
        return (receipt.stamp.kind, receipt.stamp.number) == (stamp.kind, stamp.number)

    def _check(self, receipt: Receipt, stamp: Stamp, nbytes: int) -> None:
        mine, me = receipt.stamp, self.transport.rank
        if mine.kind == COLLECTIVE:
            self.calls.check(self.peer, stamp)
        if receipt.nbytes != nbytes:
            raise MismatchError(
                f"rank {me} in {mine}: count differs: rank {self.peer} sent {nbytes} bytes where {receipt.nbytes} are "
                "received; the counts of all ranks must agree"
            )

    def _gave_up(self, message: Message) -> CollxError:
        reason, me = bytes(message.data).decode(errors="replace"), self.transport.rank
        if message.stamp.number == DIFFERED:
            return MismatchError(reason)
        if message.stamp.number >= 0:
            return RankFailedError(f"rank {me}: rank {self.peer} reports: {reason}", (message.stamp.number,))
        return AbortedError(f"rank {me}: rank {self.peer} gave up: {reason}")


class Lanes:
    """One rank's lanes to and from everybody over `transport`; messages to itself never leave it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.inbound: dict[int, Inbound] = {}
        self.calls = Calls(transport.rank)

    def listen(self, on: bool) -> None:
        """Whether to read what comes from anybody, though nobody waits for it, and take in once what has come."""
        for peer in self._peers():
            self._from(peer).listening = True
        self.poll()
        if not on:
            for inbound in self.inbound.values():
                inbound.listening = False

    def poll(self) -> bool:
        """Take in what has come from everybody; returns whether anything has."""
        me, moved = self.transport.rank, False
        for inbound in list(self.inbound.values()):
            moved = (inbound.peer != me and inbound.poll()) or moved
        return moved

    def expect(self, peer: int, stamp: Stamp, nbytes: int, landing: memoryview | None = None) -> Receipt:
        """Wait for the next message of `stamp` from `peer`; `landing` may be written from now on."""
        inbound = self._from(peer)
        receipt = Receipt(peer, stamp, nbytes, landing, inbound)
        inbound.expect(receipt)
        return receipt

    def send(self, peer: int, stamp: Stamp, data: memoryview) -> Sent:
        """Send `data`, which must stay as it is until the message is done()."""
        if peer == self.transport.rank:
            self._from(peer).deliver(stamp, data)
            return Sent(peer, [], ())
        header = HEADER.pack(stamp.kind, stamp.number, stamp.chain, data.nbytes, stamp.traits.words().tobytes())
        requests = [self.transport.send(peer, memoryview(header))]
        if data.nbytes:
            requests.append(self.transport.send(peer, data))
        return Sent(peer, requests, (header, data))

    def give_up(self, reason: str, failed: int) -> list[Sent]:
        """Tell every peer that can still be told why this rank goes no further, and which rank died (-1: none)."""
        told = []
        for peer in self._peers():
            try:
                told.append(self.send(peer, Stamp(GAVE_UP, failed, 0, NONE), memoryview(reason.encode())))
            except CollxError:
                continue
        return told

    def _peers(self) -> Iterable[int]:
        me = self.transport.rank
        return (peer for peer in range(self.transport.size) if peer != me and self.transport.reaches(peer))

    def _from(self, peer: int) -> Inbound:
        if peer not in self.inbound:
            self.inbound[peer] = Inbound(self.transport, peer, self.calls)
        return self.inbound[peer]
