"""The cards by which ranks of one host know each other, and how they travel with a file descriptor each.

All frames have one fixed size and layout; nothing is unpickled, and no length is taken from a peer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

FRAME = struct.Struct("=8sIIId228s")  # kind, rank, size, pid, seconds that its sender still waits, host name or reason
CARD, REFUSAL = b"collx1:c", b"collx1:r"
CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
# What a send gets while peers have yet to read. The kernel limits descriptors under way per user, not per socket,
# so there is nothing to poll for.
BUSY = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)


@dataclass(frozen=True, slots=True)
class Card:
    """One rank as the others know it. `fd` belongs to whoever holds the card."""

    rank: int
    size: int
    pid: int
    host: str
    fd: int


def new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(credentials)[1])


def packed(kind: bytes, card: Card, remaining: float, text: str) -> bytes:
    """A frame; `text` is cut to the room there is."""
    return FRAME.pack(kind, card.rank, card.size, card.pid, remaining, text.encode()[:228])


def text_of(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")


def send(connection: socket.socket, frame: bytes, fd: int, deadline: float) -> None:
    """Send on a nonblocking socket; nothing happens where the receiver is dead: whoever needs it finds out."""
    while time.monotonic() < deadline:
        try:
            socket.send_fds(connection, [frame], [fd])
            return
        except ConnectionError:
            return
        except OSError as error:
            if error.errno not in BUSY:
                raise
        time.sleep(0.001)
    raise TimeoutError("a rank that came has stopped reading")


def receive(connection: socket.socket, nbytes: int) -> tuple[bytes, list[int]]:
    """One message of at most `nbytes` bytes, and the descriptors that came with it, to be closed by the caller.
    Raises OSError with EMFILE where this process may have no more of them."""
    frame, fds, flags, _ = socket.recv_fds(connection, nbytes, 4, socket.MSG_CMSG_CLOEXEC)
    if flags & socket.MSG_TRUNC:
        frame = b""  # longer than any of ours
    if flags & socket.MSG_CTRUNC and not fds:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return frame, fds


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
