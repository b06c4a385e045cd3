"""Two ranks prove to each other who they are, over a pair of sockets; and nobody else can."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import collx
from collx.transports.connections import handshake
from collx.transports.connections.handshake import (
    CONTROL,
    DATA,
    STORE,
    Accepting,
    Admitted,
    Identity,
    Stranger,
    Unanswered,
    greet,
)
from collx.transports.connections.secret import new_secret

SECRET = new_secret()
HOST, GUEST = Identity(b"job", 0, 4), Identity(b"job", 3, 4)
LONG = 60.0


def nobody_refused(who: Admitted) -> str:
    return ""


def answered(end: socket.socket, accepting: Accepting) -> Admitted | str:
    """What the side that accepts makes of whoever is at the other end."""
    with end:
        try:
            while accepting.admitted is None:
                data = end.recv(accepting.wanted)
                if not data:
                    return "hung up"
                end.sendall(accepting.feed(data))
            return accepting.admitted
        except Stranger as stranger:
            end.sendall(stranger.answer)
            return str(stranger)


def met(
    own: Identity = GUEST,
    secret: bytes = SECRET,
    peer: int = 0,
    purpose: int = STORE,
    communicator: int = 0,
    refused: Callable[[Admitted], str] = nobody_refused,
) -> tuple[Admitted | str, collx.CollxError | None]:
    """What comes of it on both sides when a guest greets HOST."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, ThreadPoolExecutor(1) as pool:
        there = pool.submit(answered, far, Accepting(SECRET, HOST, refused))
        try:
            greet(near, secret, own, peer, purpose, communicator, time.monotonic() + LONG)
        except collx.CollxError as error:
            return there.result(), error
        return there.result(), None


@pytest.mark.parametrize("purpose", [STORE, CONTROL, DATA])
def test_who_knows_the_secret_is_let_in_for_what_it_asks(purpose: int) -> None:
    assert met(purpose=purpose, communicator=2**32 - 1) == (Admitted(3, purpose, 2**32 - 1), None)


def test_who_does_not_is_told_no_more_than_that() -> None:
    there, error = met(secret=new_secret())
    assert there == "had another secret"
    assert "rank 3 of 4: whoever listens at " in str(error)
    assert "has another secret, or is of another job; give all hosts the same secret (COLLX_SECRET_FILE)" in str(error)


@pytest.mark.parametrize(
    ("own", "peer", "told"),
    [
        (replace(GUEST, job=b"another"), 0, "this is rank 0 of another job that has the same secret"),
        (replace(GUEST, size=5), 0, "rank 3 says that the job has 5 ranks, rank 0 says 4"),
        (GUEST, 2, "rank 3 looked for rank 2 where rank 0 is"),
        (replace(GUEST, rank=0), 0, "another process is rank 0 too"),
    ],
)
def test_mistakes_are_told_to_those_who_know_the_secret(own: Identity, peer: int, told: str) -> None:
    there, error = met(own, peer=peer)
    assert there == told
    assert f"refused: {told}" in str(error)


def test_a_refusal_is_told() -> None:
    there, error = met(refused=lambda who: f"rank {who.rank} came twice, {'x' * 300}")
    assert isinstance(there, str)
    assert "refused: rank 3 came twice, xxx" in str(error)


def recorded() -> list[bytes]:
    """What the guest of a handshake that went well said."""
    near, far = socket.socketpair()
    inner, outer = socket.socketpair()
    said = []
    near.setblocking(False)

    def overhear() -> None:
        for _ in range(2):
            said.append(outer_side.recv(handshake.FRAME_BYTES, socket.MSG_WAITALL))
            inner.sendall(said[-1])
            outer_side.sendall(inner.recv(handshake.FRAME_BYTES, socket.MSG_WAITALL))

    outer_side = far
    with near, far, inner, ThreadPoolExecutor(2) as pool:
        there = pool.submit(answered, outer, Accepting(SECRET, HOST, nobody_refused))
        between = pool.submit(overhear)
        greet(near, SECRET, GUEST, 0, STORE, 0, time.monotonic() + LONG)
        between.result()
        assert isinstance(there.result(), Admitted)
    return said


def test_what_was_overheard_lets_nobody_in() -> None:
    """Replay: the same words are no proof in another connection, as its challenge is another."""
    hello, proof = recorded()
    again = Accepting(SECRET, HOST, nobody_refused)
    again.feed(hello)
    with pytest.raises(Stranger, match="had another secret"):
        again.feed(proof)


def test_what_a_rank_says_does_not_answer_itself() -> None:
    """Reflection: a rank that is led to its own door, or hears its own words, takes neither for its peer."""
    there, error = met(replace(HOST, rank=0), peer=3)
    assert there == "rank 0 looked for rank 3 where rank 0 is"
    assert error is not None
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far, ThreadPoolExecutor(1) as pool:
        echo = pool.submit(lambda: far.sendall(far.recv(handshake.FRAME_BYTES, socket.MSG_WAITALL)))
        with pytest.raises(collx.BootstrapError, match="is no rank of a collx job"):
            greet(near, SECRET, GUEST, 0, STORE, 0, time.monotonic() + LONG)
        echo.result()


def test_the_proof_of_one_direction_is_none_in_the_other() -> None:
    hello, challenge = handshake._Frame(handshake.HELLO).packed(), handshake._Frame(handshake.CHALLENGE).packed()
    session = handshake._session(SECRET, hello, challenge)
    frame = handshake._parsed(handshake._Frame(handshake.PROOF).signed(session, handshake._CONNECTS))
    assert frame.proves(session, handshake._CONNECTS)
    assert not frame.proves(session, handshake._ANSWERS)
    assert not frame.proves(handshake._session(SECRET, challenge, hello), handshake._CONNECTS)


@pytest.mark.parametrize("secret", [b"", SECRET[:31], SECRET + b"x"], ids=["none", "short", "long"])
def test_a_secret_of_another_length_serves_nobody(secret: bytes) -> None:
    with pytest.raises(ValueError, match="a secret has 32 bytes"):
        Accepting(secret, HOST, nobody_refused).feed(recorded()[0])


def test_keys_and_challenges_are_never_the_same() -> None:
    hello = recorded()[0]
    challenges = {Accepting(SECRET, HOST, nobody_refused).feed(hello) for _ in range(50)}
    assert len(challenges) == 50
    assert len({handshake._session(SECRET, hello, challenge) for challenge in challenges}) == 50


@pytest.mark.parametrize("said", [b"", b"collx/1", b"collx/1C" + bytes(100)])
def test_who_hangs_up_has_not_answered(said: bytes) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.sendall(said)
    far.shutdown(socket.SHUT_WR)
    with near, far, pytest.raises(Unanswered):
        greet(near, SECRET, GUEST, 0, STORE, 0, time.monotonic() + LONG)


def test_who_says_nothing_is_waited_for_until_the_deadline() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far, pytest.raises(collx.BootstrapError, match="did not answer in time as rank 0; is it overloaded"):
        greet(near, SECRET, GUEST, 0, STORE, 0, time.monotonic() + 0.05)


BYTES = st.one_of(
    st.binary(max_size=600),
    st.builds(bytes.__add__, st.sampled_from([b"collx/1H", b"collx/1P", b"collx/1C"]), st.binary(max_size=300)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(BYTES, max_size=4), st.integers(1, 300))
@example([b"collx/1H" + bytes([1]) + b"\xff" * 16 + bytes(231)], 1)
@example([b"collx/1H" + b"\xff" * 248], 256)
def test_no_bytes_at_all_let_anybody_in(said: list[bytes], piece: int) -> None:
    """Whatever comes, in whatever pieces: a frame of memory, and in the end a stranger."""
    accepting = Accepting(SECRET, HOST, nobody_refused)
    stream = b"".join(said)
    with contextlib.suppress(Stranger):
        while stream:
            taken = min(piece, accepting.wanted, len(stream))
            assert 0 < taken <= handshake.FRAME_BYTES
            accepting.feed(stream[:taken])
            stream = stream[taken:]
    assert accepting.admitted is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_bit_is_let_in(data: st.DataObject) -> None:
    """An honest handshake with one bit changed on the way, to either side."""
    accepting = Accepting(SECRET, HOST, nobody_refused)
    own = handshake._Frame(handshake.HELLO, STORE, 3, 4, 0, 0, GUEST.digest, bytes(range(32))).packed()
    challenge = accepting.feed(own)
    session = handshake._session(SECRET, own, challenge)
    proof = bytearray(handshake._Frame(handshake.PROOF).signed(session, handshake._CONNECTS))
    bit = data.draw(st.integers(0, 8 * len(proof) - 1))
    proof[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Stranger):
        accepting.feed(bytes(proof))
    assert accepting.admitted is None
