"""Tagged messages: matched by tag, in order per tag, side by side with collectives and with each other."""

from __future__ import annotations

import numpy as np
import pytest

from collx.engine import Engine, Pending
from collx.errors import MismatchError, TimeoutError
from collx.types import Array
from tests.calls import Call, even
from tests.harness import ENGINES, TIMEOUT, engines, on_every, perform
from tests.oracle import expected, inputs

pytestmark = pytest.mark.parametrize("kind", ENGINES)


def numbers(seed: int, count: int) -> Array:
    return np.random.default_rng(seed).integers(0, 1 << 30, count)


def sending(engine: Engine, data: Array, to: int, tag: int) -> Pending:
    return engine.start_send(data.ctypes.data, data.nbytes, to, tag, TIMEOUT)


def receiving(engine: Engine, room: Array, source: int, tag: int) -> Pending:
    return engine.start_recv(room.ctypes.data, room.nbytes, source, tag, TIMEOUT)


@pytest.mark.parametrize("count", [0, 1, 1000, 300_000])
def test_a_message_arrives(kind: str, count: int) -> None:
    def body(rank: int, engine: Engine) -> Array:
        data = numbers(1, count) if rank == 0 else np.zeros(count, np.int64)
        if rank == 0:
            engine.send(data.ctypes.data, data.nbytes, 1, 7, TIMEOUT)
        else:
            engine.recv(data.ctypes.data, data.nbytes, 0, 7, TIMEOUT)
        return data

    with engines(kind, 2) as ranks:
        sent, received = on_every(ranks, body)
    assert (sent == received).all()


def test_tags_pass_each_other_and_keep_order_within(kind: str) -> None:
    tags = [5, 3, 5, 4, 3, 5]

    def body(rank: int, engine: Engine) -> None:
        data = [numbers(i, 100 + i) for i in range(len(tags))]
        if rank == 0:
            for work in [sending(engine, message, 1, tag) for message, tag in zip(data, tags, strict=True)]:
                work.wait(TIMEOUT)
            return
        for i in sorted(range(len(tags)), key=lambda i: tags[i]):
            room = np.zeros_like(data[i])
            engine.recv(room.ctypes.data, room.nbytes, 0, tags[i], TIMEOUT)
            assert (room == data[i]).all()

    with engines(kind, 2) as ranks:
        on_every(ranks, body)


def test_receives_may_be_started_first_by_everybody(kind: str) -> None:
    def body(rank: int, engine: Engine) -> None:
        peers = [peer for peer in range(3) if peer != rank]
        rooms = {peer: np.zeros(50_000, np.int64) for peer in peers}
        receives = [receiving(engine, rooms[peer], peer, 1) for peer in peers]
        messages = {peer: numbers(10 * rank + peer, 50_000) for peer in peers}
        for work in receives + [sending(engine, messages[peer], peer, 1) for peer in peers]:
            work.wait(TIMEOUT)
            assert work.done()
        for peer in peers:
            assert (rooms[peer] == numbers(10 * peer + rank, 50_000)).all()

    with engines(kind, 3) as ranks:
        on_every(ranks, body)


def test_to_oneself(kind: str) -> None:
    with engines(kind, 1) as (engine,):
        first, second = numbers(1, 10), numbers(2, 10)
        rooms = [np.zeros(10, np.int64) for _ in range(2)]
        early = receiving(engine, rooms[0], 0, 1)
        sending(engine, first, 0, 1).wait(TIMEOUT)
        sending(engine, second, 0, 1)
        early.wait(TIMEOUT)
        engine.recv(rooms[1].ctypes.data, rooms[1].nbytes, 0, 1, TIMEOUT)
        assert (rooms[0] == first).all()
        assert (rooms[1] == second).all()


def test_messages_and_collectives_pass_each_other(kind: str) -> None:
    """A receive that was started before a collective is met after it, and the other way round."""
    call = even("all_reduce", "ring", 2, 1000)
    contributions = inputs(call)

    def body(rank: int, engine: Engine) -> Array:
        data, room = numbers(rank, 2000), np.zeros(2000, np.int64)
        if rank == 0:
            receive, send = receiving(engine, room, 1, 2), sending(engine, data, 1, 1)
            output = perform(call, rank, engine, contributions[rank], 0)
        else:
            output = perform(call, rank, engine, contributions[rank], 0)
            send, receive = sending(engine, data, 0, 2), receiving(engine, room, 0, 1)
        send.wait(TIMEOUT)
        receive.wait(TIMEOUT)
        assert (room == numbers(1 - rank, 2000)).all()
        return output

    with engines(kind, 2) as ranks:
        outputs = on_every(ranks, body)
    assert all((output == wanted).all() for output, wanted in zip(outputs, expected(call, contributions), strict=True))


def test_collectives_in_the_background_run_in_order(kind: str) -> None:
    calls = [Call("all_reduce", "ring", 3, counts=(n, n, n)) for n in (1000, 1, 0, 5000, 7)]
    contributions = [inputs(call, seed) for seed, call in enumerate(calls)]

    def body(rank: int, engine: Engine) -> list[Array]:
        return [perform(c, rank, engine, contributions[i][rank], i, background=i % 2 == 0) for i, c in enumerate(calls)]

    with engines(kind, 3) as ranks:
        outputs = on_every(ranks, body)
    for i, call in enumerate(calls):
        for rank, wanted in enumerate(expected(call, contributions[i])):
            assert (outputs[rank][i] == wanted).all()


def test_waiting_may_time_out_and_be_resumed(kind: str) -> None:
    with engines(kind, 2) as ranks:
        room, data = np.zeros(4, np.int64), numbers(1, 4)
        work = receiving(ranks[1], room, 0, 9)
        assert not work.done()
        with pytest.raises(TimeoutError):
            work.wait(0.01)
        send = sending(ranks[0], data, 1, 9)
        work.wait(TIMEOUT)
        send.wait(TIMEOUT)
        assert (room == data).all()


def test_lengths_must_agree(kind: str) -> None:
    def body(rank: int, engine: Engine) -> None:
        room = np.zeros(8, np.int64)
        if rank == 0:
            sending(engine, room, 1, 1)
        else:
            with pytest.raises(MismatchError, match=r"(?=.*rank 0 sent 64 bytes).* 32 "):
                engine.recv(room.ctypes.data, 32, 0, 1, TIMEOUT)

    with engines(kind, 2) as ranks:
        on_every(ranks, body)
