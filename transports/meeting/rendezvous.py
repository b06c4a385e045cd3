"""Where the ranks of one host meet: a Unix socket that rank 0 opens in a directory only their user can enter.

Every rank leaves its card there (rank, pid, host name, one file descriptor) and gets everybody else's. Once all
are in, socket and directory are unlinked: from then on nothing of the job has a name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import time
from collections.abc import Iterable
from typing import cast

from collx.errors import BootstrapError
from collx.transports.meeting.cards import (
    CARD,
    FRAME,
    REFUSAL,
    Card,
    close_all,
    new_socket,
    packed,
    peer_uid,
    receive,
    send,
    text_of,
)

DOOR = "door"
TWICE = "have two processes the same launcher's variables (COLLX_RANK and the like)?"
_log = logging.getLogger("collx")
VERDICT_GRACE = 1.0  # seconds a guest stays past its deadline for rank 0 to tell it who is missing


def meet(directory: str, rank: int, size: int, fd: int, deadline: float) -> list[Card]:
    """Everybody's card in rank order, one's own (with `fd` itself) included, once all `size` ranks are there.

    `deadline` is a time of `time.monotonic`; the earliest of all ranks' deadlines holds. Raises BootstrapError
    with the missing ranks, or with what is wrong with the directory, a rank or the file descriptors.
    """
    own = Card(rank, size, os.getpid(), socket.gethostname(), fd)
    try:
        place = _entered(directory, rank)
        try:
            cards = _received(place, directory, own, deadline) if rank == 0 else _visit(place, own, deadline)
        finally:
            os.close(place)
    except OSError as error:
        hint = "; raise `ulimit -n`" if error.errno == errno.EMFILE else ""
        raise BootstrapError(
            f"rank {rank} of {size} could not meet the others in {directory}: {error}{hint}"
        ) from error
    return [cards[r] for r in range(size)]


def _entered(directory: str, rank: int) -> int:
    """The directory, open, and proved to be the user's own: whoever could write there could join the job."""
    try:
        place = os.open(directory, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _closed(directory, rank) from None
    state = os.fstat(place)
    if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
        os.close(place)
        raise BootstrapError(
            f"rank {rank}: {directory} must belong to this user and have mode 0700, for ranks to meet there"
        )
    return place


def _closed(directory: str, rank: int) -> BootstrapError:
    return BootstrapError(
        f"rank {rank}: there is nobody to meet in {directory}: its job has started without this process, or has ended; "
        "a launcher's variables (COLLX_RANK and the like) serve each of its processes once"
    )


def _received(place: int, directory: str, own: Card, deadline: float) -> dict[int, Card]:
    with contextlib.closing(_Host(own, deadline)) as host:
        return host.receive(place, directory)


class _Host:
    """Rank 0 at the door."""

    def __init__(self, own: Card, deadline: float) -> None:
        self.own = own
        self.deadline = deadline
        self.cards = {own.rank: own}
        self.connections = dict[socket.socket, int | None]()  # to the rank it belongs to, once that is known
        self.shown_out = 0  # strangers
        self.selector = selectors.DefaultSelector()

    def receive(self, place: int, directory: str) -> dict[int, Card]:
        """Everybody's card, after everybody has been sent them."""
        with new_socket() as door:
            self._open(door, place, directory)
            try:
                while len(self.cards) < self.own.size:
                    self._turn(door)
            except (BootstrapError, OSError) as error:
                self._send_away(str(error) if isinstance(error, BootstrapError) else f"rank 0: {error}")
                raise
            finally:
                os.unlink(DOOR, dir_fd=place)
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        for connection, rank in self.connections.items():
            for card in self.cards.values() if rank is not None else ():
                send(connection, packed(CARD, card, 0.0, card.host), card.fd, self.deadline + VERDICT_GRACE)
        return self.cards

    def close(self) -> None:
        if self.shown_out:
            who = "of another user, or no ranks of this job,"
            _log.warning("collx rank 0: %d visitors of its Unix socket, %s were shown out", self.shown_out, who)
        self.selector.close()
        for connection in self.connections:
            connection.close()

    def _open(self, door: socket.socket, place: int, directory: str) -> None:
        try:
            door.bind(f"/proc/self/fd/{place}/{DOOR}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise BootstrapError(f"another rank 0 is in {directory} already; {TWICE}") from None
        door.listen(min(self.own.size, 128))
        self.selector.register(door, selectors.EVENT_READ)

    def _turn(self, door: socket.socket) -> None:
        """Whatever happens next at the door. Strangers and garbage are shown out and forgotten."""
        ready = self.selector.select(max(self.deadline - time.monotonic(), 0.0))
        if not ready and time.monotonic() >= self.deadline:
            raise BootstrapError(_missing(self.own.size, self.cards))
        for key, _ in ready:
            if key.fileobj is door:
                self._receive(door.accept()[0])
                continue
            guest = cast(socket.socket, key.fileobj)
            rank = self.connections[guest]
            if rank is not None:
                raise BootstrapError(f"rank {rank} of {self.own.size} ended before all ranks had come; see its output")
            arrived = _introduced(guest)
            if arrived is None:
                self.selector.unregister(guest)
                del self.connections[guest]
                guest.close()
                self.shown_out += 1
            else:
                self._admit(guest, *arrived)

    def _receive(self, guest: socket.socket) -> None:
        if peer_uid(guest) != os.geteuid():
            guest.close()
            self.shown_out += 1
            return
        guest.setblocking(False)
        self.connections[guest] = None
        self.selector.register(guest, selectors.EVENT_READ)

    def _admit(self, guest: socket.socket, card: Card, remaining: float) -> None:
        self.connections[guest] = card.rank
        wrong = ""
        if card.size != self.own.size:
            wrong = f"rank {card.rank} says that the job has {card.size} ranks, rank 0 says {self.own.size}"
        elif card.rank in self.cards:
            wrong = f"rank {card.rank} came twice, as process {self.cards[card.rank].pid} and as process {card.pid}"
        if wrong:
            os.close(card.fd)
            raise BootstrapError(f"{wrong}; {TWICE}")
        self.cards[card.rank] = card
        self.deadline = min(self.deadline, time.monotonic() + remaining)

    def _send_away(self, reason: str) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.send(packed(REFUSAL, self.own, 0.0, reason))
        close_all(card.fd for card in self.cards.values() if card is not self.own)


def _introduced(guest: socket.socket) -> tuple[Card, float] | None:
    """The card of whoever came to the door, or None where it is not one of us."""
    try:
        frame, fds = receive(guest, FRAME.size)
    except (BlockingIOError, ConnectionError):
        return None
    if len(frame) != FRAME.size or len(fds) != 1:
        close_all(fds)
        return None
    kind, rank, size, pid, remaining, host = FRAME.unpack(frame)
    if kind != CARD or not 0 < rank < size or not remaining >= 0:
        close_all(fds)
        return None
    return Card(rank, size, pid, text_of(host), fds[0]), remaining


def _visit(place: int, own: Card, deadline: float) -> dict[int, Card]:
    """Leave the own card at rank 0's door and wait for all the others'."""
    cards = dict[int, Card]()
    with _connected(place, own, deadline) as connection:
        try:
            if peer_uid(connection) != os.geteuid():
                raise BootstrapError(f"rank {own.rank}: whoever answers as rank 0 runs under another user")
            send(connection, packed(CARD, own, max(deadline - time.monotonic(), 0.0), own.host), own.fd, deadline)
            while len(cards) < own.size:
                connection.settimeout(max(deadline + VERDICT_GRACE - time.monotonic(), 0.001))
                card = _handed(connection, own)
                cards[card.rank] = card
        except TimeoutError:
            close_all(card.fd for card in cards.values())
            raise BootstrapError(f"rank {own.rank} of {own.size}: rank 0 did not answer within the timeout") from None
        except BaseException:
            close_all(card.fd for card in cards.values())
            raise
    os.close(cards[own.rank].fd)
    cards[own.rank] = own
    return cards


def _handed(connection: socket.socket, own: Card) -> Card:
    """The next card that rank 0 hands out."""
    try:
        frame, fds = receive(connection, FRAME.size)
    except ConnectionError:
        frame, fds = b"", []
    if len(frame) != FRAME.size:
        raise BootstrapError(f"rank {own.rank}: rank 0 of {own.size} ended before all ranks had come; see its output")
    kind, rank, size, pid, _, text = FRAME.unpack(frame)
    if kind != CARD or len(fds) != 1:
        close_all(fds)
        raise BootstrapError(text_of(text))
    return Card(rank, size, pid, text_of(text), fds[0])


def _connected(place: int, own: Card, deadline: float) -> socket.socket:
    """A connection to rank 0, which may come later than we do."""
    pause = 0.0005
    while True:
        connection = new_socket()
        try:
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{place}/{DOOR}")
            return connection
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            connection.close()
        except BaseException:
            connection.close()
            raise
        if os.fstat(place).st_nlink == 0:
            raise _closed("its directory", own.rank)
        if time.monotonic() >= deadline:
            raise BootstrapError(f"rank 0 of {own.size}, whom all others meet, did not come within the timeout")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def _missing(size: int, came: Iterable[int]) -> str:
    absent = sorted(set(range(size)) - set(came))
    names = ", ".join(map(str, absent[:16])) + (f" and {len(absent) - 16} more" if len(absent) > 16 else "")
    return f"rank{'s' * (len(absent) > 1)} {names} of {size} did not come within the timeout of init"
