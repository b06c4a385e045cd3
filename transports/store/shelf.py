"""Where rank 0 keeps what is in a `Store`, in the thread of its door."""

from __future__ import annotations

import contextlib
import selectors
import socket

from collx.transports.connections.door import Door
from collx.transports.connections.handshake import Admitted
from collx.transports.store.frames import Frames, Malformed, Op, Status, answer, fields_of

_LISTED = 8  # missing keys that an answer names


class _Reader:
    """One rank at the shelf."""

    def __init__(self, connection: socket.socket, who: Admitted | None) -> None:
        self.connection, self.who = connection, who
        self.frames = Frames()
        self.unsent = b""
        self.asked: tuple[Op, list[bytes]] | None = None  # what waits for `missing`
        self.missing = set[bytes]()


class Shelf:
    """The keys and values of a `Store`. All of it but `behind` is for the door's thread."""

    def __init__(self) -> None:
        self._values = dict[bytes, bytes]()
        self._waiting = dict[bytes, set[_Reader]]()
        self._door: Door | None = None

    def behind(self, door: Door) -> socket.socket:
        """Be served by the thread of `door`, before it opens. Returns the keeper's own way in, for `Store.over`."""
        self._door = door
        own, end = socket.socketpair()
        own.setblocking(False)
        end.setblocking(False)
        self._serve(_Reader(end, None))
        return own

    def admit(self, connection: socket.socket, who: Admitted) -> None:
        """Serve a rank that has been let in."""
        self._serve(_Reader(connection, who))

    def _serve(self, reader: _Reader) -> None:
        assert self._door is not None
        events = selectors.EVENT_WRITE if reader.unsent else selectors.EVENT_READ
        self._door.watch(reader.connection, events, lambda: self._turn(reader))

    def _turn(self, reader: _Reader) -> None:
        """Send what is left of an answer, or take in one question."""
        try:
            if reader.unsent:
                self._send(reader)
            elif (frame := reader.frames.read(reader.connection)) is not None:
                self._take(reader, *fields_of(*frame))
        except (OSError, Malformed):
            self._leave(reader)

    def _take(self, reader: _Reader, op: Op, fields: list[bytes]) -> None:
        if op is Op.GIVE_UP:
            if reader.asked is not None:  # else the answer is under way
                self._answer(reader, Status.MISSING, _listed(reader.missing))
            return
        if reader.asked is not None:
            raise Malformed("a question before the answer to the last")
        if op not in (Op.GET, Op.WAIT):
            self._answer(reader, *self._changed(op, *fields))
            return
        reader.asked, reader.missing = (op, fields), set(fields) - self._values.keys()
        for key in reader.missing:
            self._waiting.setdefault(key, set()).add(reader)
        if not reader.missing:
            self._found(reader)

    def _changed(self, op: Op, key: bytes, value: bytes, desired: bytes = b"") -> tuple[Status, bytes]:
        """Do what changes a value; the answer to it."""
        if op is Op.SET:
            self._set(key, value)
            return Status.DONE, b""
        if op is Op.COMPARE_SET:
            present = self._values.get(key)
            if present == value or (present is None and not value):
                self._set(key, desired)
                return Status.DONE, desired
            return Status.DONE, value if present is None else present
        try:
            total = int(self._values.get(key, b"0")) + int(value)
        except ValueError:
            return Status.WRONG, b"what it has is no number"
        if not -(1 << 63) <= total < 1 << 63:
            return Status.WRONG, b"the sum has more than 64 bits"
        self._set(key, b"%d" % total)
        return Status.DONE, b"%d" % total

    def _set(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
        for reader in self._waiting.pop(key, ()):
            reader.missing.discard(key)
            if not reader.missing:
                try:
                    self._found(reader)
                except OSError:
                    self._leave(reader)

    def _found(self, reader: _Reader) -> None:
        assert reader.asked is not None
        op, fields = reader.asked
        self._answer(reader, Status.DONE, self._values[fields[0]] if op is Op.GET else b"")

    def _answer(self, reader: _Reader, status: Status, value: bytes) -> None:
        self._forget(reader)
        reader.unsent = answer(status, value)
        self._send(reader)

    def _send(self, reader: _Reader) -> None:
        with contextlib.suppress(BlockingIOError):
            reader.unsent = reader.unsent[reader.connection.send(reader.unsent) :]
        self._serve(reader)

    def _forget(self, reader: _Reader) -> None:
        """Let a reader wait for nothing any more."""
        for key in reader.missing:
            readers = self._waiting.get(key, set())
            readers.discard(reader)
            if not readers:
                self._waiting.pop(key, None)
        reader.asked, reader.missing = None, set()

    def _leave(self, reader: _Reader) -> None:
        assert self._door is not None
        self._forget(reader)
        self._door.watch(reader.connection, 0, lambda: None)
        reader.connection.close()
        if reader.who is not None:
            self._door.forget(reader.who)


def _listed(missing: set[bytes]) -> bytes:
    keys = [repr(key.decode(errors="replace")) for key in sorted(missing)]
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{', '.join(keys[:_LISTED])}{more}".encode()
