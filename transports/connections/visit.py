"""How a rank gets in at the door of another, which may be opened later than it comes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from collx.errors import BootstrapError
from collx.transports.connections.handshake import Identity, Unanswered, greet
from collx.transports.connections.route import Route, shown, targets
from collx.transports.connections.stream import new_stream
from collx.transports.connections.tls import Tls, find_tls, why

ATTEMPT = 3.0  # seconds to wait for a connection before trying anew: the kernel's own next try may be far


def visit(
    address: tuple[str, int],
    secret: bytes,
    own: Identity,
    peer: int,
    purpose: int,
    communicator: int,
    deadline: float,
    source: Route | None = None,
    over: Callable[[], bool] = bool,
) -> socket.socket:
    """A nonblocking socket to rank `peer`, whose door is at `address` or will be, after both have proved themselves.

    From `source`, where that is given. Tries until `deadline`, a time of `time.monotonic`, or until it is
    `over`. Raises BootstrapError with the reason: what `greet` raises, or why the last try came to nothing.
    """
    tls, pause = find_tls(os.environ, secret), 0.001

    def prove(connection: socket.socket) -> None:
        try:
            greet(connection, secret, own, peer, purpose, communicator, deadline)
        except Unanswered:
            if reason := why(connection):
                raise BootstrapError(
                    f"rank {own.rank} of {own.size}: whoever listens at {shown(connection.getpeername())} {reason}; do"
                    " all ranks have COLLX_TLS=1, with certificates that all trust?"
                ) from None
            raise

    while True:
        try:
            return _let_in(address, source, tls, prove, deadline)
        except OSError as error:
            if time.monotonic() + pause >= deadline or over():
                loops = "; by loopback a host reaches itself alone" if source and source.loopback else ""
                raise BootstrapError(
                    f"rank {own.rank} of {own.size} did not reach rank {peer} at {shown(address)}"
                    f"{f' from {source}' if source else ''} within the timeout: {error.strerror or error}{loops}"
                ) from None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _let_in(
    address: tuple[str, int],
    source: Route | None,
    tls: Tls | None,
    prove: Callable[[socket.socket], None],
    deadline: float,
) -> socket.socket:
    """One try at each of the addresses that the name may have. Raises the last one's OSError."""
    failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, target in targets(*address):
        try:
            with contextlib.ExitStack() as stack:
                attempt = min(deadline, time.monotonic() + ATTEMPT)
                connection = stack.enter_context(_connected(family, target, source, attempt))
                if tls is not None:
                    connection = stack.enter_context(tls.connected(connection))
                prove(connection)
                stack.pop_all()
                return connection
        except OSError as error:
            failed = error
    raise failed


def _connected(family: int, target: Any, source: Route | None, deadline: float) -> socket.socket:
    connection = new_stream(family)
    try:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        if source:
            connection.bind((source.address, 0))
        connection.connect(target)
        if connection.getsockname() == connection.getpeername():  # to a port nobody has, TCP may connect to itself
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    except BaseException:
        connection.close()
        raise
