"""The TCP sockets of all connections between ranks."""

from __future__ import annotations

import contextlib
import socket

# bbr, some systems' default, sends by timers what is there at once: a third as fast between near hosts. A connection
# that has once been under it goes on with timers, whatever is asked for later; so this is asked for before it is made.
CONGESTION = b"cubic"


def new_stream(family: int) -> socket.socket:
    """A socket to connect, or to listen with; what that accepts is like it. Congestion control is cubic where the
    system lets this user choose it, else the system's own."""
    stream = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.suppress(PermissionError, FileNotFoundError):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    return stream
