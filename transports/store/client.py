"""A small store that all ranks of a job share: keys with bytes, kept by rank 0 and lost with it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from collx.errors import ClosedError, RankFailedError, TimeoutError
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import STORE, Identity
from collx.transports.connections.route import shown, split_address
from collx.transports.connections.secret import need_secret
from collx.transports.connections.visit import visit
from collx.transports.store.frames import KEY_BYTES, VALUE_BYTES, Frames, Malformed, Op, Status, question
from collx.transports.store.shelf import Shelf

TIMEOUT = 300.0  # seconds
GRACE = 5.0  # seconds past a deadline for rank 0 to say what was missing


class Store:
    """Keys with values for all ranks of a job, as `torch.distributed.TCPStore` has them.

    `Store("HOST:PORT", rank, size)` on each rank: rank 0 keeps it and listens there (port 0: any free one, `address`
    tells), the others connect. Keys are texts of at most 1 KiB, values are bytes (a text is taken as UTF-8) of at most
    8 MiB. Every call has a deadline, `timeout` seconds if it is given none of its own. Threads may share a Store; they
    take turns, so one that waits keeps the others from setting what it waits for. Closed by `close` or `with`; when
    rank 0 closes its own, the others' calls fail.

    The ranks prove to each other that they know a secret: `secret`, or what COLLX_SECRET_FILE leads to (see
    docs/security.md). What they say afterwards is encrypted under COLLX_TLS=1 alone.

    Raises BootstrapError where there is no secret, nobody can listen or be reached, or two processes are one rank.
    """

    def __init__(
        self, address: str, rank: int, size: int, timeout: float = TIMEOUT, *, secret: bytes | None = None
    ) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank is {rank}, but must be from 0 to size - 1, and size is {size}")
        place = split_address(address)
        secret = need_secret(os.environ, rank) if secret is None else secret
        identity = Identity(b"collx.Store", rank, size)
        door = None
        if rank == 0:
            shelf = Shelf()
            door = Door(place, secret, identity, shelf.admit)
            connection, place = shelf.behind(door), door.address
            door.open()
        else:
            connection = visit(place, secret, identity, 0, STORE, 0, time.monotonic() + timeout)
        self._take(connection, rank, timeout, door)
        self.address = shown(place)

    @classmethod
    def over(cls, connection: socket.socket, rank: int, timeout: float = TIMEOUT) -> Store:
        """The store at the other end of a nonblocking socket that a Shelf serves; the socket is the Store's."""
        store = cls.__new__(cls)
        store._take(connection, rank, timeout, None)
        store.address = ""
        return store

    def _take(self, connection: socket.socket, rank: int, timeout: float, door: Door | None) -> None:
        self._connection, self._rank, self._timeout, self._door = connection, rank, timeout, door
        self._frames, self._turn = Frames(), threading.Lock()
        self._broken, self._closed = "", False

    def set(self, key: str, value: bytes | str, timeout: float | None = None) -> None:
        """Set a key, also one that has a value already."""
        self._ask(Op.SET, [_key(key), _value(value)], timeout)

    def get(self, key: str, timeout: float | None = None) -> bytes:
        """The value of a key, as soon as it has one. Raises TimeoutError where nobody sets it in time."""
        return self._ask(Op.GET, [_key(key)], timeout)

    def wait(self, keys: Iterable[str], timeout: float | None = None) -> None:
        """Return when all keys have values. Raises TimeoutError with those that have none at the deadline."""
        if isinstance(keys, str):
            raise TypeError(f"keys is {keys!r}, but must be a list of keys")
        self._ask(Op.WAIT, [_key(key) for key in keys], timeout)

    def add(self, key: str, amount: int, timeout: float | None = None) -> int:
        """Add to a key that counts, from 0 on, and return the sum. Its value is the number in decimal digits.

        Raises ValueError where the key's value is no number, or the sum has more than 64 bits.
        """
        return int(self._ask(Op.ADD, [_key(key), b"%d" % amount], timeout))

    def compare_set(self, key: str, expected: bytes | str, desired: bytes | str, timeout: float | None = None) -> bytes:
        """Set a key to `desired` if its value is `expected`, or if it has none and `expected` is empty. Returns the
        value it has then; `expected` where it has none."""
        return self._ask(Op.COMPARE_SET, [_key(key), _value(expected), _value(desired)], timeout)

    def close(self) -> None:
        """End the connection, and on rank 0 the store; calls of other threads under way raise. Idempotent."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes who waits
        with self._turn:
            self._connection.close()
        if self._door is not None:
            self._door.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, op: Op, fields: list[bytes], timeout: float | None) -> bytes:
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        if not self._turn.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise TimeoutError(f"rank {self._rank}: another thread has used this store until the deadline")
        try:
            return self._asked(op, fields, deadline)
        finally:
            self._turn.release()

    def _asked(self, op: Op, fields: list[bytes], deadline: float) -> bytes:
        if self._closed or self._broken:
            why = self._broken or "it is closed"
            raise ClosedError(f"rank {self._rank}: this store can no longer be used: {why}")
        self._broken = "a call was interrupted"  # unless its answer is taken in
        what = f"rank {self._rank}: {op.name.lower()} in the store"
        try:
            self._send(question(op, fields), deadline)
            answer = self._answer(deadline)
            if answer is None:  # this and the answer may cross
                self._send(question(Op.GIVE_UP, []), deadline + GRACE)
                answer = self._answer(deadline + GRACE)
        except (OSError, Malformed) as error:
            if self._closed:
                raise ClosedError(f"{what} failed: another thread has closed it") from None
            self._broken = f"rank 0, which keeps it, has ended or closed it ({error})"
            raise RankFailedError(f"{what} failed: {self._broken}; see its output", (0,)) from None
        if answer is None:
            self._broken = "rank 0, which keeps it, does not answer"
            raise TimeoutError(f"{what} failed: {self._broken}; is it stopped?")
        self._broken = ""
        status, value = answer
        if status == Status.MISSING:
            raise TimeoutError(f"{what}: no rank has set {value.decode()} within the timeout")
        if status == Status.WRONG:
            raise ValueError(f"{what}: {fields[0].decode()!r}: {value.decode()}")
        return value

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                if not self._ready(select.POLLOUT, deadline):
                    raise ConnectionError("it does not read") from None

    def _answer(self, deadline: float) -> tuple[int, bytes] | None:
        """What rank 0 says; None at the deadline."""
        while (found := self._frames.read(self._connection)) is None:
            if not self._ready(select.POLLIN, deadline):
                return None
        return found

    def _ready(self, events: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._connection, events)
        return bool(poll.poll(max(deadline - time.monotonic(), 0.0) * 1000))


def _key(key: str) -> bytes:
    return _field("a key", key, KEY_BYTES)


def _value(value: bytes | str) -> bytes:
    return _field("a value", value, VALUE_BYTES)


def _field(name: str, field: bytes | str, most: int) -> bytes:
    data = field.encode() if isinstance(field, str) else bytes(memoryview(field))
    if len(data) > most:
        raise ValueError(f"{name} of {len(data)} bytes, but at most {most} can be kept")
    return data
