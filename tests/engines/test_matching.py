"""Which receive gets which message: the engines beside a model of a few lines, on calls that go past each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.engine import Cancellable, Engine, Pending
from collx.errors import AbortedError, CancelledError, RankFailedError, TruncatedError
from collx.types import ANY, Array, Envelope
from tests.harness import ENGINES, TIMEOUT, engines

SIZE = 3
ROOM = 20_000  # int64; some messages are of one line, others of several, and some too long
sources, tags = st.integers(0, SIZE - 1), st.integers(0, 2)
wanted = st.tuples(st.just(ANY) | sources, st.just(ANY) | tags)
lengths = st.sampled_from([0, 1, 5, 6, 3000, ROOM, ROOM + 1])
steps = st.lists(
    st.tuples(st.just("send"), sources, tags, lengths, st.booleans())
    | st.tuples(st.just("recv"), wanted)
    | st.tuples(st.just("probe"), wanted)
    | st.tuples(st.just("cancel"), st.integers(0, 5)),
    max_size=25,
)


@dataclass(eq=False)
class Message:
    source: int
    tag: int
    data: Array
    sending: Pending
    synchronous: bool

    @property
    def envelope(self) -> Envelope:
        return Envelope(self.source, self.tag, self.data.nbytes)


@dataclass(eq=False)
class Receive:
    source: int
    tag: int
    out: Array
    work: Pending

    def takes(self, message: Message) -> bool:
        return self.source in (ANY, message.source) and self.tag in (ANY, message.tag)


class Model:
    """Rank 0 receives; `sent` and `posted` are what nothing has been matched with, in order."""

    def __init__(self, ranks: list[Engine]) -> None:
        self.ranks = ranks
        self.sent: list[Message] = []
        self.posted: list[Receive] = []
        self.numbers = itertools.count(1)

    def send(self, source: int, tag: int, length: int, synchronous: bool) -> None:
        data = np.full(length, next(self.numbers))
        where = (data.ctypes.data, data.nbytes, 0, tag, TIMEOUT, synchronous)
        message = Message(source, tag, data, self.ranks[source].start_send(*where), synchronous)
        receive = next((one for one in self.posted if one.takes(message)), None)
        if receive is None:
            self.sent.append(message)
            return
        self.posted.remove(receive)
        self.matched(receive, [message])

    def recv(self, asked: tuple[int, int]) -> None:
        out = np.zeros(ROOM, np.int64)
        work = self.ranks[0].start_recv(out.ctypes.data, out.nbytes, *asked, TIMEOUT, False)
        receive = Receive(*asked, out, work)
        candidates = self.candidates(receive)
        if candidates:
            self.sent.remove(self.matched(receive, candidates))
        else:
            self.posted.append(receive)

    def probe(self, asked: tuple[int, int]) -> None:
        candidates = self.candidates(Receive(*asked, np.empty(0), cast(Pending, None)))
        found = self.ranks[0].probe(*asked, TIMEOUT, bool(candidates))
        assert found in [message.envelope for message in candidates] if candidates else found is None

    def cancel(self, number: int) -> None:
        if number < len(self.posted):
            receive = self.posted.pop(number)
            assert cast(Cancellable, receive.work).cancel()
            with pytest.raises(CancelledError):
                receive.work.wait(TIMEOUT)

    def candidates(self, receive: Receive) -> list[Message]:
        """Of each rank the first message that the receive takes: between ranks there is no order."""
        first: dict[int, Message] = {}
        for message in self.sent:
            if receive.takes(message):
                first.setdefault(message.source, message)
        return list(first.values())

    def matched(self, receive: Receive, candidates: list[Message]) -> Message:
        """The one of the candidates that the receive has got."""
        try:
            envelope = receive.work.wait(TIMEOUT)
        except TruncatedError as error:
            text = str(error)
            (message,) = [m for m in candidates if f"rank {m.source} sent {m.data.nbytes} bytes" in text]
            assert len(message.data) > ROOM
        else:
            (message,) = [m for m in candidates if m.envelope == envelope]
            length = len(message.data)
            assert (receive.out[:length] == message.data).all()
            assert not receive.out[length:].any()
        message.sending.wait(TIMEOUT)
        return message

    def finish(self) -> None:
        while self.posted:
            self.cancel(0)
        while self.sent:
            self.recv((ANY, ANY))
        assert self.ranks[0].probe(ANY, ANY, TIMEOUT, False) is None


@pytest.mark.parametrize("kind", ENGINES)
def test_as_in_the_model(kind: str) -> None:
    with engines(kind, SIZE) as ranks:

        @settings(max_examples=40, deadline=None)
        @given(steps)
        def check(steps: list[tuple[str, ...]]) -> None:
            model = Model(ranks)
            for name, *arguments in steps:
                getattr(model, name)(*arguments)
                assert not any(message.synchronous and message.sending.done() for message in model.sent)
            model.finish()

        check()


def anybody(engine: Engine, room: Array) -> Pending:
    return engine.start_recv(room.ctypes.data, room.nbytes, ANY, ANY, TIMEOUT, False)


@pytest.mark.parametrize("kind", ENGINES)
def test_from_anybody_as_ranks_leave(kind: str) -> None:
    """One that has left may have; without any other nothing can come."""
    with engines(kind, SIZE) as ranks:
        room, data = np.zeros(2), np.ones(2)
        work = anybody(ranks[0], room)
        ranks[1].close()
        ranks[2].send(data.ctypes.data, data.nbytes, 0, 3, TIMEOUT)
        assert work.wait(TIMEOUT) == (2, 3, 16)
        work = anybody(ranks[0], room)
        ranks[2].close()
        with pytest.raises(RankFailedError):
            work.wait(TIMEOUT)


@pytest.mark.parametrize("kind", ENGINES)
def test_from_anybody_as_a_rank_gives_up(kind: str) -> None:
    with engines(kind, SIZE) as ranks:
        work = anybody(ranks[0], np.zeros(2))
        ranks[1].fail("its disk is full")
        with pytest.raises(AbortedError, match="its disk is full"):
            work.wait(TIMEOUT)
        with pytest.raises(AbortedError, match="its disk is full"):
            ranks[2].probe(ANY, ANY, TIMEOUT, True)
