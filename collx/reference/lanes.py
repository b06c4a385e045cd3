"""Messages between reference engines: a header, then its bytes; matched on arrival to who waits for it.

Two messages of the transport make one of ours. The header says what the bytes belong to, so that ranks in
different collectives are told so instead of exchanging garbage. A message that nobody waits for is kept,
so collectives and tagged messages may pass each other on a lane.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from collx.agreement import WORDS, Traits
from collx.errors import AbortedError, CollxError, MismatchError, RankFailedError, TruncatedError
from collx.transports.base import Request, Transport
from collx.types import ANY, Envelope

HEADER = struct.Struct(f"<qqQQ{8 * WORDS}s")  # kind, number, chain, bytes that follow, traits

COLLECTIVE, TAGGED, GAVE_UP, MATCHED = range(4)  # MATCHED: a receive was, with the message of that number
DIFFERED = -2  # as the number of GAVE_UP: ranks' calls differ; -1: no rank failed, else the rank that did
REMEMBERED = 64  # calls
_WORD = 2**64 - 1
NONE = Traits(0, -1, "")  # of messages that belong to no collective


class Stamp(NamedTuple):
    """What a message belongs to: a collective by its sequence, a tagged one by its tag. `chain` is the hash of all
    the sender's collectives until this one, and the number of a tagged message whose sender waits for its receive."""

    kind: int
    number: int
    chain: int
    traits: Traits

    def __str__(self) -> str:
        name = self.traits.collective
        if self.kind == COLLECTIVE:
            return f"{name} #{self.number}"
        return f"{name}, any tag" if self.number == ANY else f"{name}, tag {self.number}"


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
    source: int
    stamp: Stamp
    data: memoryview
    arrival: int  # how many came before it
    complete: bool = False

    def envelope(self) -> Envelope:
        return Envelope(self.source, self.stamp.number, len(self.data))


@dataclass(eq=False, slots=True)
class Receipt:
    """A message that is waited for, from `peer`, or ANY of the ranks whose `inbounds` these are. It lands at `landing`,
    if given; `data()` is where it is once done(). It has `nbytes` bytes `exactly`, or so many at most. Who `peeks`
    leaves it to others, and does not wait for its bytes."""

    peer: int
    stamp: Stamp
    nbytes: int
    landing: memoryview | None
    inbounds: Sequence[Inbound]
    exactly: bool = True
    peeks: bool = False
    message: Message | None = None

    def done(self) -> bool:
        return self.message is not None and (self.peeks or self.message.complete)

    def data(self) -> memoryview:
        assert self.message is not None
        data = self.message.data
        if data.nbytes > self.nbytes:
            raise TruncatedError(
                f"rank {self.inbounds[0].transport.rank} in {self.stamp}: rank {self.peer} sent {data.nbytes} bytes"
                f" with tag {self.message.stamp.number}, for which there is no room"
            )
        if self.landing is not None and data.obj is not self.landing.obj:
            self.landing[: data.nbytes] = data
            self.message.data = self.landing[: data.nbytes]
        return self.message.data

    def envelope(self) -> Envelope:
        assert self.message is not None
        return self.message.envelope()

    def meets(self, stamp: Stamp) -> bool:
        any_tag = self.stamp.kind == TAGGED and self.stamp.number == ANY
        return self.stamp.kind == stamp.kind and (any_tag or self.stamp.number == stamp.number)

    def take(self, message: Message) -> None:
        self.withdraw()
        self.peer, self.message = message.source, message

    def recall(self) -> bool:
        """Wait no longer for a tagged message; False where it has come."""
        if self.message is not None or self.stamp.kind != TAGGED:
            return False
        self.withdraw()
        return True

    def withdraw(self) -> None:
        for inbound in self.inbounds:
            if self in inbound.waiting:
                inbound.waiting.remove(self)

    def deserted(self) -> bool:
        """Whether all of the ranks have left that it may come from."""
        return all(inbound.left for inbound in self.inbounds if inbound.peer != inbound.transport.rank)

    def __str__(self) -> str:
        if self.peer == ANY:
            return "a message from any rank"
        kept = next((m.stamp for i in self.inbounds for m in i.kept if m.stamp.kind == COLLECTIVE), None)
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
    arrivals: Iterator[int]
    matched: Callable[[Message], None]  # is told of those that a receive gets
    waiting: list[Receipt] = field(default_factory=list)
    kept: deque[Message] = field(default_factory=deque)
    header: bytearray = field(default_factory=lambda: bytearray(HEADER.size))
    request: Request | None = None
    current: Message | None = None
    listening: bool = False  # also without anybody waiting: what comes may show that the peer makes other calls
    left: RankFailedError | None = None  # it has, when only receives from anybody waited for it

    def poll(self) -> bool:
        """Take in what has come, without blocking; returns whether anything has."""
        if self.request is None:
            if self.left is not None and not self._needed():
                return False
            if not self.waiting and not self.listening:
                return False
            self.request = self.transport.recv(self.peer, memoryview(self.header))
        try:
            if not self.request.done():
                return False
        except RankFailedError as error:
            self.request, self.left = None, error
            if self._needed():
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

    def _needed(self) -> bool:
        """Whether a call under way cannot end without it."""
        return self.current is not None or any(r.peer != ANY or r.deserted() for r in self.waiting)

    def deliver(self, stamp: Stamp, data: memoryview) -> None:
        """A message from this rank to itself."""
        message = self._opened(stamp, data.nbytes)
        message.data[:] = data
        message.complete = True

    def _opened(self, stamp: Stamp, nbytes: int) -> Message:
        """The message whose header this is, with room for its bytes, linked to its receipt or kept."""
        if stamp.kind == COLLECTIVE:
            self.calls.check(self.peer, stamp)
        receipt = next((r for r in self.waiting if not r.peeks and r.meets(stamp)), None)
        landing = None
        if receipt:
            self.check(receipt, stamp, nbytes)
            if receipt.landing is not None and nbytes <= receipt.nbytes:
                landing = receipt.landing[:nbytes]
        data = np.empty(nbytes, np.uint8).data if landing is None else landing
        message = Message(self.peer, stamp, data, next(self.arrivals))
        if receipt:
            receipt.take(message)
            self.matched(message)
        elif stamp.kind != GAVE_UP:
            self.kept.append(message)
            for peeking in [r for r in self.waiting if r.meets(stamp)]:
                peeking.take(message)
        return message

    def check(self, receipt: Receipt, stamp: Stamp, nbytes: int) -> None:
        mine, me = receipt.stamp, self.transport.rank
        if mine.kind == COLLECTIVE:
            self.calls.check(self.peer, stamp)
        if receipt.exactly and receipt.nbytes != nbytes:
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
        self.numbers = itertools.count(1)  # of messages whose senders wait for their receives
        self._arrivals = itertools.count()
        self._told: list[Sent] = []

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
        self._told = [sent for sent in self._told if not _over(sent)]
        for inbound in list(self.inbound.values()):
            moved = (inbound.peer != me and inbound.poll()) or moved
        return moved

    def expect(
        self,
        peer: int,
        stamp: Stamp,
        nbytes: int,
        landing: memoryview | None = None,
        *,
        exactly: bool = True,
        peeks: bool = False,
    ) -> Receipt:
        """Wait for the next message of `stamp` from `peer`, or ANY; `landing` may be written from now on."""
        inbounds = [self._from(source) for source in (range(self.transport.size) if peer == ANY else (peer,))]
        receipt = Receipt(peer, stamp, nbytes, landing, inbounds, exactly, peeks)
        kept = ((message, inbound) for inbound in inbounds for message in inbound.kept if receipt.meets(message.stamp))
        first = min(kept, key=lambda found: found[0].arrival, default=None)
        if first is None:
            for inbound in inbounds:
                inbound.waiting.append(receipt)
            return receipt
        message, inbound = first
        inbound.check(receipt, message.stamp, len(message.data))
        receipt.take(message)
        if not peeks:
            inbound.kept.remove(message)
            self._matched(message)
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
            self.inbound[peer] = Inbound(self.transport, peer, self.calls, self._arrivals, self._matched)
        return self.inbound[peer]

    def _matched(self, message: Message) -> None:
        if message.stamp.kind == TAGGED and message.stamp.chain:
            stamp = Stamp(MATCHED, message.stamp.chain, 0, NONE)
            self._told.append(self.send(message.source, stamp, memoryview(b"")))


def _over(sent: Sent) -> bool:
    try:
        return sent.done()
    except RankFailedError:  # who has left waits for nothing
        return True
