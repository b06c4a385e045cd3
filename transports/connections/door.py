"""Where a rank lets in ranks of other hosts, and nobody else: a listening socket with a thread of its own.

Whoever connects may be anybody: a port scanner, a browser, a rank of another job, an attacker. Until it has proved
itself (`handshake`) it has two seconds, one frame of memory, and a place among at most 64; where those are taken the
oldest gives way. It is shown out without a word to the program but one line, now and then, that counts them.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

from collx.errors import BootstrapError
from collx.transports.connections.handshake import DATA, Accepting, Admitted, Identity, Stranger
from collx.transports.connections.route import shown, targets
from collx.transports.connections.stream import new_stream
from collx.transports.connections.tls import Tls, find_tls, why

PENDING = 64
PATIENCE = 2.0  # seconds for a whole handshake
FAIRNESS = 0.02  # seconds that a visitor may stay however many others come
SILENCE = 0.005  # the same for one that has said nothing: ranks speak first, and at once
REPORT = 5.0  # seconds in which those shown out are counted before a line tells of them; twice as long for the next
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger("collx")
_doors = weakref.WeakSet["Door"]()


class _Visitor:
    """Somebody who has not proved anything yet."""

    def __init__(self, connection: socket.socket, greeting: Accepting, came: float) -> None:
        self.connection, self.greeting, self.came = connection, greeting, came

    @property
    def gives_way(self) -> float:
        """From when on it does, to one who needs its place."""
        return self.came + (FAIRNESS if self.greeting.begun else SILENCE)


class _Tally:
    """Counts who was shown out, and tells of them in a line now and then; ever more seldom, as they may be many."""

    def __init__(self, whose: str, where: str) -> None:
        self.due = float("inf")  # when to tell
        self._whose, self._where, self._latest = whose, where, "an address unknown"
        self._all = collections.Counter[str]()
        self._untold, self._interval = 0, REPORT

    def count(self, reason: str, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._latest = shown(connection.getpeername())
        self.due = min(self.due, time.monotonic() + self._interval)
        self._all[reason] += 1
        self._untold += 1

    def tell(self) -> None:
        """One line for all that no line told of."""
        if self._untold:
            line = "%s: %d visitors of %s were shown out, the last of them from %s; in all, %s"
            _log.warning(line, self._whose, self._untold, self._where, self._latest, self.reasons())
            self._interval *= 2
        self._untold, self.due = 0, float("inf")

    def reasons(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self._all.most_common())


class Door:
    """Listens at `address` (host and port; 0 is any free one) from the moment it is made, lets in from `open` on.

    `admitted` is called in the door's thread with the nonblocking socket of each rank that has proved itself, which is
    the callee's from then on; a rank is let in once for each purpose, but for data: communicators come and go, and
    whoever has them knows how long. What it raises is logged, and closes the socket. Raises BootstrapError where nobody
    can listen at `address`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        identity: Identity,
        admitted: Callable[[socket.socket, Admitted], None],
    ) -> None:
        self._secret, self._identity, self._let_in = secret, identity, admitted
        self.tls: Tls | None = None  # from `open` on, where the job uses it
        self._listener = _listening(address, identity)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._tally = _Tally(f"collx rank {identity.rank}", shown(self.address))
        self._here = set[Admitted]()
        self._visitors = dict[socket.socket, _Visitor]()  # the oldest first
        self._rest = 0.0  # nobody is let in before
        self._listening = False
        self._selector = selectors.DefaultSelector()
        self._ended, self._end = socket.socketpair()
        self.watch(self._ended, selectors.EVENT_READ, lambda: None)
        self._thread = threading.Thread(target=self._run, name="collx-door", daemon=True)
        _doors.add(self)

    def open(self, secret: bytes | None = None) -> None:
        """Let in who knows the secret: this one, where it was not known when the door was made."""
        self._secret = secret or self._secret
        self.tls = find_tls(os.environ, self._secret)
        self._thread.start()

    def close(self) -> None:
        """Let nobody in any more, and close all that is watched; what was admitted and is not watched lives on.
        Idempotent."""
        self._end.close()
        if self._thread.ident is None:
            self._drop()
        elif self._thread is not threading.current_thread():  # that may be where garbage is collected
            self._thread.join()

    def watch(self, connection: socket.socket, events: int, callback: Callable[[], None]) -> None:
        """Call back in the door's thread whenever `connection`, the door's from then on, is ready for `events` (of
        `selectors`); with 0, no more. For that thread, or before `open`."""
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        if events:
            self._selector.register(connection, events, callback)

    def forget(self, who: Admitted) -> None:
        """Let this rank in for this purpose again: the connection that it had is no more."""
        self._here.discard(who)

    def reasons(self) -> str:
        """Who was shown out so far, for an error to tell; "" where nobody was."""
        return self._tally.reasons()

    def _run(self) -> None:
        while self._end.fileno() >= 0:
            self._turn()
        self._tally.tell()
        self._drop()

    def _turn(self) -> None:
        """Whatever happens next. Those who are there have their say before anybody's time is up: it may be this process
        that was held up."""
        now, opens, moments = time.monotonic(), self._rest, [self._tally.due]
        if self._visitors:
            came = next(iter(self._visitors.values())).came
            moments.append(came + PATIENCE)
            if len(self._visitors) >= PENDING:
                opens = max(opens, self._next_to_go().gives_way)
        self._listen(opens <= now)
        moments += [opens] * (opens > now)
        due = min(moments)
        for key, _ in self._selector.select(None if due == float("inf") else max(due - time.monotonic(), 0.0)):
            try:
                key.data()
            except Exception as error:  # of `admitted` and whoever watches: the door stays
                _log.error("collx rank %d: %s at its door: %s", self._identity.rank, type(error).__name__, error)
        now = time.monotonic()
        while self._visitors and (visitor := next(iter(self._visitors.values()))).came + PATIENCE <= now:
            self._show_out(visitor, f"had said too little after {PATIENCE:g} s")
        if now >= self._tally.due:
            self._tally.tell()

    def _listen(self, wanted: bool) -> None:
        if wanted != self._listening:
            self._listening = wanted
            self.watch(self._listener, selectors.EVENT_READ if wanted else 0, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                self._rest = time.monotonic() + FAIRNESS
                if self._visitors:
                    self._show_out(self._next_to_go(), "took the last descriptor")
            return  # else it has hung up already
        if len(self._visitors) >= PENDING:
            self._show_out(self._next_to_go(), "gave way to others")
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            try:
                connection = self.tls.accepted(connection)
            except OSError:
                return  # it has hung up already, or there is no descriptor to be had
        visitor = _Visitor(connection, Accepting(self._secret, self._identity, self._refused), time.monotonic())
        self._visitors[connection] = visitor
        self.watch(connection, selectors.EVENT_READ, lambda: self._hear(visitor))
        self._hear(visitor)  # it may have spoken already

    def _next_to_go(self) -> _Visitor:
        return min(self._visitors.values(), key=lambda visitor: visitor.gives_way)

    def _refused(self, who: Admitted) -> str:
        if who in self._here:
            return f"rank {who.rank} is here already; have two processes the same launcher's variables?"
        return ""

    def _hear(self, visitor: _Visitor) -> None:
        connection = visitor.connection
        if connection not in self._visitors:  # shown out since the selector named it
            return
        try:
            data = connection.recv(visitor.greeting.wanted)
            if not data:
                raise Stranger(why(connection) or "hung up")
            answer = visitor.greeting.feed(data)
            if connection.send(answer) < len(answer):  # its buffer is empty, unless it does not read
                raise Stranger("did not read")
        except BlockingIOError:
            return
        except OSError:
            self._show_out(visitor, "hung up")
        except Stranger as stranger:
            with contextlib.suppress(OSError):
                connection.send(stranger.answer)
            self._show_out(visitor, str(stranger))
        else:
            if visitor.greeting.admitted is not None:
                self._admit(visitor, visitor.greeting.admitted)

    def _admit(self, visitor: _Visitor, who: Admitted) -> None:
        del self._visitors[visitor.connection]
        self.watch(visitor.connection, 0, lambda: None)
        if who.purpose != DATA:
            self._here.add(who)
        try:
            self._let_in(visitor.connection, who)
        except BaseException:
            self.forget(who)
            visitor.connection.close()
            raise

    def _show_out(self, visitor: _Visitor, reason: str) -> None:
        self.watch(visitor.connection, 0, lambda: None)
        del self._visitors[visitor.connection]
        self._tally.count(reason, visitor.connection)
        visitor.connection.close()  # last: who notices may look at the rest

    def _drop(self) -> None:
        """Close all that is the door's own."""
        watched = self._selector.get_map()
        for key in list(watched.values()) if watched else ():
            cast(socket.socket, key.fileobj).close()
        self._visitors.clear()
        self._selector.close()
        for connection in (self._listener, self._end):
            connection.close()


def _drop_inherited() -> None:
    """A process that was forked from a rank is none: it must not keep the port, nor answer there."""
    for door in list(_doors):
        door._drop()


os.register_at_fork(after_in_child=_drop_inherited)


def _listening(address: tuple[str, int], identity: Identity) -> socket.socket:
    """At the first of the addresses that the host may have, and this one has."""
    failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for family, target in targets(*address):
            try:
                return _bound(family, target)
            except OSError as error:
                failed = error
    except OSError as error:  # nobody knows the name
        failed = error
    remedy = {
        errno.EADDRINUSE: "; another program or job listens there, or two processes are this rank",
        errno.EADDRNOTAVAIL: "; it is no address of this host: give rank 0's, or COLLX_BIND_ALL=1 behind NAT",
    }
    raise BootstrapError(
        f"rank {identity.rank} of {identity.size} cannot listen at {shown(address)}: {failed.strerror}"
        f"{remedy.get(failed.errno or 0, '')}"
    )


def _bound(family: int, target: Any) -> socket.socket:
    listener = new_stream(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the job before may linger
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(target)
        listener.listen(4096)  # a full one makes ranks wait a second for their next try
        listener.setblocking(False)
        return listener
    except BaseException:
        listener.close()
        raise
