"""Joins ranks by TCP: chooses this rank's address, opens its door, has it meet the others, and connects them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from collx import _core
from collx.errors import BootstrapError
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import STORE, Identity
from collx.transports.connections.route import (
    Route,
    bind_address,
    find_route,
    refuse_loopback,
    shown,
    split_address,
    targets,
    usual_route,
)
from collx.transports.connections.secret import find_secret, new_secret
from collx.transports.connections.visit import visit
from collx.transports.groups.machines import machine
from collx.transports.groups.tcp import Card, Hall, TcpGroup
from collx.transports.meeting.in_store import GRACE, met_in
from collx.transports.meeting.posted import Posted, find_posted, posted
from collx.transports.store.client import Store
from collx.transports.store.shelf import Shelf
from collx.transports.waiting import Pause

LOOPBACK = Route(socket.AF_INET, "127.0.0.1", "lo")
LOOK = 1.0  # seconds for a try to reach rank 0 where a file says that it is, which may be out of date

# Every rank's text, in rank order, for one's own and a deadline of `time.monotonic`. Collective. Raises BootstrapError.
Exchange = Callable[[str, float], list[str]]
# Given the own door and card, opens the one and brings the other to the ranks: all cards, and the job's secret.
Meet = Callable[[Door, str], tuple[list[str], bytes]]
Post = Callable[[Door], AbstractContextManager[None]]  # tells the others where rank 0's door is, while they come


class Joining:
    """One process on its way into a job of `size` ranks, until `deadline`, a time of `time.monotonic`.

    `word` goes on its card. `apart`: ranks that could share memory connect as well. `alone`: all are on this host.

    `at`, `by_file` and `by` are collective, and return when the ranks have connected. They raise BootstrapError with
    the ranks that came and those that did not, or with what is wrong.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        environ: Mapping[str, str],
        deadline: float,
        *,
        word: str = "",
        apart: bool = False,
        alone: bool = False,
    ) -> None:
        self.rank, self.size, self.environ, self.deadline = rank, size, environ, deadline
        self.word, self.apart, self.alone = word, apart, alone
        self._meeting = "COLLX_SOCKET_IFNAME"  # what an address was chosen by

    def at(self, address: str, secret: bytes) -> TcpGroup:
        """Meet where rank 0 keeps a store, at HOST:PORT."""
        where, self._meeting = split_address(address), address
        route, job = self._route(*where), shown(where).encode()
        if self.rank == 0:
            return self._keep(route, where[1], job, secret)
        return self._come(route, job, secret, self._reach(where, route, job, secret, self.deadline))

    def by_file(self, path: str, secret: bytes | None) -> TcpGroup:
        """Meet where a file says that rank 0 is. No `secret`: rank 0 makes one, which the file tells too."""
        if self.rank > 0:
            return self._come(*self._followed(path, secret))
        route, job, key = self._usual_route(), os.urandom(8).hex(), secret or new_secret()

        def post(door: Door) -> AbstractContextManager[None]:
            address = shown((route.address, door.address[1]))
            return posted(path, Posted(address, job, "" if secret else key.hex()))

        return self._keep(route, 0, job.encode(), key, post)

    def by(self, exchange: Exchange) -> TcpGroup:
        """Meet by `exchange`, which tells rank 0's secret too, for where the environment leads to none."""
        given = find_secret(self.environ)

        def meet(door: Door, card: str) -> tuple[list[str], bytes]:
            texts = exchange(f"{new_secret().hex() if self.rank == 0 else ''}\n{card}", self.deadline)
            told, *_ = texts[0].partition("\n")
            secret = given or bytes.fromhex(told)
            door.open(secret)
            return [text.partition("\n")[2] for text in texts], secret

        return self._join(self._usual_route(), 0, b"exchanged", meet)

    def _keep(
        self, route: Route, port: int, job: bytes, secret: bytes, post: Post = lambda door: nullcontext()
    ) -> TcpGroup:
        """Rank 0, with the store behind its door."""
        shelf = Shelf()

        def meet(door: Door, card: str) -> tuple[list[str], bytes]:
            inside = shelf.behind(door)
            door.open(secret)
            with post(door):
                return self._in_store(inside, card), secret

        return self._join(route, port, job, meet, shelf)

    def _come(self, route: Route, job: bytes, secret: bytes, connection: socket.socket) -> TcpGroup:
        """Any other rank, with its connection to the store."""

        def meet(door: Door, card: str) -> tuple[list[str], bytes]:
            door.open(secret)
            return self._in_store(connection, card), secret

        return self._join(route, 0, job, meet)

    def _followed(self, path: str, secret: bytes | None) -> tuple[Route, bytes, bytes, socket.socket]:
        """What `_come` takes, by a file that rank 0 has left, or will."""
        pause, last = Pause(), BootstrapError(f"rank 0 of {self.size} left no address at {path} within the timeout")
        while time.monotonic() < self.deadline:
            if (found := find_posted(path)) is not None:
                if not secret and not found.secret:
                    raise BootstrapError(
                        f"rank {self.rank} of {self.size}: rank 0, who left {path}, has a secret of its own"
                        " (COLLX_SECRET_FILE or the like), and this rank has none; give all ranks the same"
                    )
                where, job, key = (
                    split_address(found.address),
                    found.job.encode(),
                    secret or bytes.fromhex(found.secret),
                )
                route, until = self._route(*where), min(self.deadline, time.monotonic() + LOOK)
                try:
                    return route, job, key, self._reach(where, route, job, key, until)
                except BootstrapError as error:
                    last = error
            pause()
        raise last

    def _join(self, route: Route, port: int, job: bytes, meet: Meet, shelf: Shelf | None = None) -> TcpGroup:
        identity, control = Identity(job, self.rank, self.size), _core.Control(self.rank, self.size)
        hall = Hall(control, shelf)
        with contextlib.ExitStack() as undone:
            undone.callback(control.close)
            listens = bind_address(route.family, route.address, self.environ), port
            door = Door(listens, b"", identity, hall.admit)
            undone.callback(door.close)
            card = Card(os.uname().nodename, machine(), route.address, door.address[1], route.interface, self.word)
            texts, secret = meet(door, card.text())
            group = TcpGroup(identity, list(map(Card.parsed, texts)), door, secret, control, self.apart)
            if any(other.machine != card.machine for other in group.cards):
                refuse_loopback(route, self.rank, self._meeting)
            group.meet(hall, self.deadline)
            undone.pop_all()
        return group

    def _reach(self, where: tuple[str, int], route: Route, job: bytes, secret: bytes, deadline: float) -> socket.socket:
        """The store of rank 0, which may come later."""
        return visit(where, secret, Identity(job, self.rank, self.size), 0, STORE, 0, deadline, route)

    def _in_store(self, connection: socket.socket, card: str) -> list[str]:
        left = max(self.deadline - time.monotonic(), 0.0)
        with contextlib.closing(Store.over(connection, self.rank, left + GRACE)) as store:
            return met_in(store, self.rank, self.size, card, self.deadline, lambda text: str(Card.parsed(text)))

    def _route(self, host: str, port: int) -> Route:
        try:
            return find_route(targets(host, port)[0], self.environ)
        except OSError as error:
            reason = f"{host} is not known here: {error.strerror}"
            raise BootstrapError(f"rank {self.rank} of {self.size}: {reason}; rank 0 is to be met there") from error

    def _usual_route(self) -> Route:
        """This host's address, where nothing says by which way the others come."""
        return LOOPBACK if self.alone else usual_route(self.environ)
