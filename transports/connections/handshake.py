"""How two ranks on different hosts prove to each other that they know the job's secret, before anything else is said.

Four frames of one fixed size, in turn: the one who connects says who it is and whom it wants (HELLO), the other answers
with a number that was never used (CHALLENGE), and each proves itself by a MAC over all of this (PROOF, WELCOME). Their
key is derived from the secret and both numbers, so it serves one connection only, and each direction has a label of its
own: what was heard elsewhere, earlier or from the other side proves nothing. Whoever has not proved itself costs one
frame of memory and learns nothing but that a rank listens here. No length is taken from a peer; nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from collx.errors import BootstrapError
from collx.transports.connections.route import shown
from collx.transports.connections.secret import SECRET_BYTES

# kind, purpose, rank, size, the rank that is wanted, communicator, digest of the job, nonce, MAC, text
_FRAME = struct.Struct("!8sBIIII16s32s32s151s")
FRAME_BYTES = _FRAME.size
_MAGIC = b"collx/1"
HELLO, CHALLENGE, PROOF, WELCOME, REFUSAL = (_MAGIC + bytes([letter]) for letter in b"HCPWR")
STORE, CONTROL, DATA = 1, 2, 3
PURPOSES = (STORE, CONTROL, DATA)
_CONNECTS, _ANSWERS = b"collx/1 the one who connects", b"collx/1 the one who answers"
_NONE = bytes(32)
_TLS_HELLO = b"\x16"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is: a rank of a job. `job` is any text by which its ranks know it, the same for all."""

    job: bytes
    rank: int
    size: int

    @property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.job, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A rank that has proved itself, and what its connection is for."""

    rank: int
    purpose: int
    communicator: int


class Unanswered(ConnectionError):
    """The other end hung up before it had said yes or no: worth another try."""


class Stranger(Exception):
    """Whoever connected is no rank of this job, or not one to be let in. `answer` is what to tell it."""

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: bytes
    purpose: int = 0
    rank: int = 0
    size: int = 0
    peer: int = 0
    communicator: int = 0
    job: bytes = bytes(16)
    nonce: bytes = _NONE
    mac: bytes = _NONE
    text: bytes = b""

    def packed(self) -> bytes:
        return _FRAME.pack(*(getattr(self, field.name) for field in dataclasses.fields(self)))

    def signed(self, session: bytes, label: bytes) -> bytes:
        return dataclasses.replace(self, mac=_mac(session, label, self)).packed()

    def proves(self, session: bytes, label: bytes) -> bool:
        return hmac.compare_digest(self.mac, _mac(session, label, self))


def _mac(session: bytes, label: bytes, frame: _Frame) -> bytes:
    return hmac.digest(session, label + dataclasses.replace(frame, mac=_NONE).packed(), "sha256")


def _session(secret: bytes, hello: bytes, challenge: bytes) -> bytes:
    """The key of one connection."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    return hmac.digest(secret, b"collx/1 session" + hello + challenge, "sha256")


def _parsed(data: bytes) -> _Frame:
    frame = _Frame(*_FRAME.unpack(data))
    return dataclasses.replace(frame, text=frame.text.rstrip(b"\0"))


def _begins(data: bytes, *kinds: bytes) -> bool:
    """Whether `data` is the beginning of a frame of these kinds."""
    return any(data[: len(kind)] == kind[: len(data)] for kind in kinds)


class Accepting:
    """The side that was connected to, one frame at a time. Give `feed` what came, at most `wanted` bytes of it; it
    returns what to send. `admitted` says who it is once that is proved.

    `refused` is asked who is not to be let in although it knows the secret, and why; "" lets it in.
    """

    def __init__(self, secret: bytes, own: Identity, refused: Callable[[Admitted], str]) -> None:
        self.admitted: Admitted | None = None
        self._secret, self._own, self._refused = secret, own, refused
        self._kind, self._came, self._hello, self._session = HELLO, b"", _Frame(HELLO), b""

    @property
    def wanted(self) -> int:
        return FRAME_BYTES - len(self._came)

    @property
    def begun(self) -> bool:
        """Whether it has said who it would be."""
        return bool(self._session)

    def feed(self, data: bytes) -> bytes:
        """Raises Stranger as soon as it is certain that this is one."""
        came = self._came + data
        if not _begins(came, self._kind):
            if came[:1] == _TLS_HELLO:
                raise Stranger("spoke TLS, which COLLX_TLS=1 asks for", _Frame(REFUSAL).packed())
            raise Stranger("did not speak the protocol")
        self._came = came
        if self.wanted:
            return b""
        self._came = b""
        frame = _parsed(came)
        return self._challenge(came, frame) if self._kind == HELLO else self._verdict(frame)

    def _challenge(self, came: bytes, frame: _Frame) -> bytes:
        if frame.purpose not in PURPOSES or not frame.rank < frame.size or frame.mac != _NONE or frame.text:
            raise Stranger("did not speak the protocol")
        challenge = _Frame(CHALLENGE, nonce=os.urandom(32)).packed()
        self._kind, self._hello, self._session = PROOF, frame, _session(self._secret, came, challenge)
        return challenge

    def _verdict(self, frame: _Frame) -> bytes:
        if not frame.proves(self._session, _CONNECTS):
            raise Stranger("had another secret", _Frame(REFUSAL).packed())
        hello, own = self._hello, self._own
        caller = Admitted(hello.rank, hello.purpose, hello.communicator)
        answer = _Frame(WELCOME, hello.purpose, own.rank, own.size, hello.rank, hello.communicator, own.digest)
        wrong = self._mistaken() or self._refused(caller)
        if wrong:
            refusal = dataclasses.replace(answer, kind=REFUSAL, text=wrong.encode()[:151])
            raise Stranger(wrong, refusal.signed(self._session, _ANSWERS))
        self.admitted = caller
        return answer.signed(self._session, _ANSWERS)

    def _mistaken(self) -> str:
        hello, own = self._hello, self._own
        if hello.job != own.digest:
            return f"this is rank {own.rank} of another job that has the same secret"
        if hello.size != own.size:
            return f"rank {hello.rank} says that the job has {hello.size} ranks, rank {own.rank} says {own.size}"
        if hello.peer != own.rank:
            return f"rank {hello.rank} looked for rank {hello.peer} where rank {own.rank} is"
        return f"another process is rank {own.rank} too" if hello.rank == own.rank else ""


def greet(
    connection: socket.socket, secret: bytes, own: Identity, peer: int, purpose: int, communicator: int, deadline: float
) -> None:
    """Prove to rank `peer`, to whom this nonblocking socket is connected, who one is, and have it do the same.

    Not one byte more than that is read, so whatever the peer sends next is still to come. `deadline` is a time of
    `time.monotonic`. Raises Unanswered where the peer hung up before it had decided, and BootstrapError with the
    reason where it refuses, is somebody else, or has not answered at the deadline. The socket remains the caller's.
    """
    hello = _Frame(HELLO, purpose, own.rank, own.size, peer, communicator, own.digest, os.urandom(32))
    session = b""
    try:
        _send(connection, hello.packed(), deadline)
        challenge = _received(connection, deadline, CHALLENGE)
        session = _session(secret, hello.packed(), challenge)
        _send(connection, _Frame(PROOF).signed(session, _CONNECTS), deadline)
        answer = _parsed(_received(connection, deadline, WELCOME, REFUSAL))
    except Stranger:
        use = "does another program use this port, or COLLX_TLS=1?"
        raise _failed(own, connection, f"is no rank of a collx job; {use}") from None
    except TimeoutError:
        raise _failed(own, connection, f"did not answer in time as rank {peer}; is it overloaded or stopped?") from None
    if not answer.proves(session, _ANSWERS):
        remedy = "give all hosts the same secret"
        raise _failed(own, connection, f"has another secret, or is of another job; {remedy} (COLLX_SECRET_FILE)")
    if answer.kind == REFUSAL:
        raise _failed(own, connection, f"refused: {answer.text.decode(errors='replace')}")
    asked = _Frame(WELCOME, purpose, peer, own.size, own.rank, communicator, own.digest, mac=answer.mac)
    if answer != asked:  # it knows the secret all the same
        raise _failed(own, connection, f"is rank {answer.rank} of {answer.size}, but rank {peer} was looked for")


def _send(connection: socket.socket, data: bytes, deadline: float) -> None:
    while data:
        try:
            data = data[connection.send(data) :]
        except BlockingIOError:
            _await(connection, select.POLLOUT, deadline)
        except ConnectionError as error:
            raise Unanswered(*error.args) from None


def _received(connection: socket.socket, deadline: float, *kinds: bytes) -> bytes:
    came = b""
    while len(came) < FRAME_BYTES:
        try:
            piece = connection.recv(FRAME_BYTES - len(came))
        except BlockingIOError:
            _await(connection, select.POLLIN, deadline)
            continue
        except ConnectionError as error:
            raise Unanswered(*error.args) from None
        if not piece:
            raise Unanswered("it hung up before it had answered")
        came += piece
        if not _begins(came, *kinds):
            raise Stranger("did not speak the protocol")
    return came


def _await(connection: socket.socket, events: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection, events)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError


def _failed(own: Identity, connection: socket.socket, what: str) -> BootstrapError:
    try:
        where = shown(connection.getpeername())
    except OSError:  # it has hung up since
        where = "the address it connected to"
    return BootstrapError(f"rank {own.rank} of {own.size}: whoever listens at {where} {what}")
