"""What the ranks and the keeper of a `Store` say to each other: one byte of kind, four of length, and so many more.

A question's body is its fields, each with its length before it. Lengths have limits, and memory is taken for what has
come, not for what is announced.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Sequence

KEY_BYTES = 1 << 10
VALUE_BYTES = 8 << 20
_BODY_BYTES = 2 * VALUE_BYTES + KEY_BYTES + 12
_HEADER, _LENGTH = struct.Struct("!BI"), struct.Struct("!I")
_PIECE = 1 << 16


class Op(enum.IntEnum):
    """What a question asks for."""

    SET = 1
    GET = 2
    WAIT = 3
    ADD = 4
    COMPARE_SET = 5
    GIVE_UP = 6  # no answer is wanted any more, but to hear what was missing


class Status(enum.IntEnum):
    """What an answer is."""

    DONE = 1
    MISSING = 2
    WRONG = 3


_FIELDS = {Op.SET: 2, Op.GET: 1, Op.ADD: 2, Op.COMPARE_SET: 3, Op.GIVE_UP: 0}  # WAIT has as many as there are keys


class Malformed(ValueError):
    """These are no frames of a store."""


def question(op: Op, fields: Sequence[bytes]) -> bytes:
    body = b"".join(_LENGTH.pack(len(field)) + field for field in fields)
    return _HEADER.pack(op, len(body)) + body


def answer(status: Status, value: bytes) -> bytes:
    return _HEADER.pack(status, len(value)) + value


def fields_of(kind: int, body: bytes) -> tuple[Op, list[bytes]]:
    """The question with this body. Raises Malformed."""
    fields, at = list[bytes](), 0
    while at < len(body):
        if at + _LENGTH.size > len(body):
            raise Malformed("a question ends within a length")
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(body, at)[0]
        if at > len(body):
            raise Malformed("a question ends within a field")
        fields.append(body[begin:at])
    try:
        op = Op(kind)
    except ValueError:
        raise Malformed(f"there is no question {kind}") from None
    if len(fields) != _FIELDS.get(op, len(fields)):
        raise Malformed(f"{op.name} has not {len(fields)} fields")
    keys, values = (fields, []) if op is Op.WAIT else (fields[:1], fields[1:])
    if any(len(key) > KEY_BYTES for key in keys) or any(len(value) > VALUE_BYTES for value in values):
        raise Malformed("a field is longer than it may be")
    return op, fields


class Frames:
    """Cuts what comes from a socket into frames, and reads nothing beyond the one that it is in."""

    def __init__(self) -> None:
        self._came = bytearray()

    def read(self, connection: socket.socket) -> tuple[int, bytes] | None:
        """Kind and body of the next frame; None where it is not all there yet. Raises Malformed for what is none, and
        OSError, where the other end has hung up too."""
        while self._wanted():
            try:
                piece = connection.recv(min(self._wanted(), _PIECE))
            except BlockingIOError:
                return None
            if not piece:
                raise ConnectionResetError("it hung up")
            self._came += piece
        kind, body = self._came[0], bytes(self._came[_HEADER.size :])
        self._came.clear()
        return kind, body

    def _wanted(self) -> int:
        """How many bytes are to come, as far as that is known."""
        if len(self._came) < _HEADER.size:
            return _HEADER.size - len(self._came)
        _, length = _HEADER.unpack_from(self._came)
        if length > _BODY_BYTES:
            raise Malformed(f"a body of {length} bytes, but at most {_BODY_BYTES} may come")
        return _HEADER.size + int(length) - len(self._came)
