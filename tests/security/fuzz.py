"""What peers say, changed at random, to everything in Python that reads it: `python -m tests.security.fuzz 1000000`.

Nothing may come of it but the refusals that are documented, nobody may be let in, and no reader may take more memory
than its frame. An input that fails is printed in hexadecimal, with the reader's name.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import cast

from collx.errors import BootstrapError
from collx.transports.connections import handshake, route
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import (
    FRAME_BYTES,
    Accepting,
    Admitted,
    Identity,
    Stranger,
    Unanswered,
    greet,
)
from collx.transports.connections.secret import new_secret
from collx.transports.meeting import cards, rendezvous
from collx.transports.store.frames import Frames, Malformed, Op, Status, answer, fields_of, question
from collx.transports.store.shelf import Shelf

SECRET, OTHER = new_secret(), new_secret()
OWN, PEER = Identity(b"job", 0, 4), Identity(b"job", 3, 4)
WHO = Admitted(3, handshake.STORE, 0)
NUMBERS = [number.to_bytes(width, "big") for width in (1, 4, 8) for number in (0, 1, 255, (1 << 8 * width - 1))]


def seeds() -> list[bytes]:
    """Sound words of both sides, and what other programs say."""
    accepting = Accepting(OTHER, OWN, lambda who: "")
    hello = handshake._Frame(handshake.HELLO, handshake.STORE, 3, 4, 0, 7, PEER.digest, bytes(range(32))).packed()
    challenge = accepting.feed(hello)
    session = handshake._session(OTHER, hello, challenge)
    proof = handshake._Frame(handshake.PROOF).signed(session, handshake._CONNECTS)
    welcome = accepting.feed(proof)
    refusal = handshake._Frame(handshake.REFUSAL, text=b"no").signed(session, handshake._ANSWERS)
    asked = [
        question(Op.SET, [b"key", b"value"]),
        question(Op.GET, [b"key"]),
        question(Op.WAIT, [b"a", b"b", b"key"]),
        question(Op.ADD, [b"count", b"12"]),
        question(Op.COMPARE_SET, [b"key", b"", b"new"]),
        question(Op.GIVE_UP, []),
    ]
    others = [
        b"GET / HTTP/1.1\r\nHost: alpha\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-x\r\n",
    ]
    return [hello, challenge, proof, welcome, refusal, hello + proof, challenge + welcome, *asked, *others]


def mutated(choice: random.Random, words: list[bytes]) -> bytes:
    data = bytearray(choice.choice(words))
    for _ in range(choice.randrange(6)):
        at = choice.randrange(len(data) + 1)
        match choice.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << choice.randrange(8)
            case 1:
                data[at : at + choice.randrange(1, 9)] = choice.randbytes(choice.randrange(9))
            case 2:
                number = choice.choice(NUMBERS)
                data[at : at + len(number)] = number
            case 3:
                del data[at : at + choice.randrange(1, 64)]
            case 4:
                data[at:at] = choice.choice(words)
            case _:
                data = data[:at]
    return bytes(data)


def accept(data: bytes) -> None:
    accepting = Accepting(SECRET, OWN, lambda who: "")
    with contextlib.suppress(Stranger):
        while data:
            answer = accepting.feed(data[: accepting.wanted])
            data = data[accepting.wanted or FRAME_BYTES :]
            assert len(answer) in (0, FRAME_BYTES)
    assert accepting.admitted is None


def ask_in(data: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        try:
            greet(near, SECRET, PEER, 0, handshake.STORE, 0, time.monotonic() + 60)
        except (BootstrapError, Unanswered):
            return
    raise AssertionError("greeted somebody who does not know the secret")


def take_questions(data: bytes) -> None:
    near, far = socket.socketpair()
    frames = Frames()
    with near, far:
        near.setblocking(False)
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Malformed, ConnectionResetError):  # what the shelf expects
            while (found := frames.read(near)) is not None:
                op, fields = fields_of(*found)
                assert question(op, fields)[5:] == found[1]
                assert len(frames._came) <= len(data)


class Doorway:
    """Of a door, what a shelf needs of it."""

    def __init__(self) -> None:
        self.callbacks = dict[socket.socket, Callable[[], None]]()

    def watch(self, connection: socket.socket, events: int, callback: Callable[[], None]) -> None:
        self.callbacks[connection] = callback if events else lambda: None

    def forget(self, who: Admitted) -> None:
        assert who == WHO


def serve(data: bytes) -> None:
    """Everything the shelf does for a rank that is let in and talks nonsense; the keeper's own way in stays."""
    shelf, door = Shelf(), Doorway()
    own = shelf.behind(cast(Door, door))
    (end,) = door.callbacks
    near, far = socket.socketpair()
    with own, end, near, far:
        near.setblocking(False)
        far.setblocking(False)
        shelf.admit(near, WHO)
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        while near.fileno() >= 0:
            door.callbacks[near]()
            with contextlib.suppress(BlockingIOError, ConnectionError):
                far.recv(1 << 16)
        own.sendall(question(Op.SET, [b"key", b"value"]) + question(Op.GET, [b"key"]))
        door.callbacks[end]()
        door.callbacks[end]()
        assert own.recv(1 << 10) == answer(Status.DONE, b"") + answer(Status.DONE, b"value")
        assert not shelf._waiting


def take_cards(data: bytes) -> None:
    """On the Unix socket, with a descriptor as a card has one."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, open(os.devnull) as null:
        near.setblocking(False)
        socket.send_fds(far, [data], [null.fileno()])
        if (arrived := rendezvous._introduced(near)) is not None:
            card, remaining = arrived
            os.close(card.fd)
            assert 0 < card.rank < card.size
            assert remaining >= 0


def read_address(data: bytes) -> None:
    text = data.decode("latin-1")
    with contextlib.suppress(BootstrapError):
        host, port = route.split_address(text)
        assert route.split_address(route.shown((host, port))) == (host, port)


READERS: dict[str, Callable[[bytes], None]] = {
    "the side that accepts": accept,
    "the side that connects": ask_in,
    "the store's questions": take_questions,
    "the shelf": serve,
    "the Unix socket": take_cards,
    "addresses": read_address,
}
ADDRESSES = [b"tcp://alpha:29500", b"[fd00::1%eth0]:80", b"10.0.0.1:0", b"tcp://[::]:65535/"]
CARDS = [cards.packed(cards.CARD, cards.Card(3, 4, 7, "", -1), 9.0, "alpha")]
OWN_WORDS: dict[Callable[[bytes], None], list[bytes]] = {read_address: ADDRESSES, take_cards: CARDS}


def run(inputs: int, seed: int) -> None:
    """So many inputs to each reader. Raises AssertionError, with the input, where one did what it must not."""
    choice = random.Random(seed)
    words = seeds()
    for name, reader in READERS.items():
        for _ in range(inputs):
            data = mutated(choice, OWN_WORDS.get(reader, words))
            try:
                reader(data)
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error} by {data.hex()}") from error


def main() -> None:
    inputs = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(inputs, seed)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{inputs} inputs to each of {len(READERS)} readers, seed {seed}: sound; {time.monotonic() - begin:.0f} s,"
        f" {grown} KiB more memory"
    )


if __name__ == "__main__":
    main()
