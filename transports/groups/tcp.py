"""The processes of one job on several machines: how they find each other, and what connects them.

Every rank has a *door* where the others prove that they belong to the job, and a *card* that says where it is. When all
cards are known, each process makes one *control connection* with every process on another machine, for as long as the
job lasts. *Data connections* are made when a communicator first wants one: the lower rank dials, and a higher one that
wants it asks through the control connection.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from collx import _core
from collx.errors import BootstrapError, TransportError
from collx.transports.connections.dialer import Dialer
from collx.transports.connections.door import Door
from collx.transports.connections.handshake import CONTROL, DATA, Admitted, Identity
from collx.transports.connections.route import Route
from collx.transports.connections.tls import finish, keep_alive
from collx.transports.connections.visit import visit
from collx.transports.groups.machines import Machines
from collx.transports.lanes import Wires
from collx.transports.store.shelf import Shelf
from collx.transports.verdict import named

FOREVER = 1e6  # seconds; a rank that is stopped answers when it goes on


class Card(NamedTuple):
    """One rank as the others know it: its host, what it shares with ranks whose memory it can share (`machine`), where
    its door is, and a `word` of whoever uses the group."""

    host: str
    machine: str
    address: str
    port: int
    interface: str
    word: str

    def __str__(self) -> str:
        return f"{self.route} on {self.host}"

    @property
    def route(self) -> Route:
        """By what others reach it."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return Route(family, self.address, self.interface)

    def text(self) -> str:
        return "\n".join(map(str, self))

    @classmethod
    def parsed(cls, text: str) -> Self:
        host, machine, address, port, interface, word = text.split("\n")
        return cls(host, machine, address, int(port), interface, word)


class Hall:
    """What a rank's door leads to; on rank 0 to the store as well, where the ranks meet in one."""

    def __init__(self, control: _core.Control, shelf: Shelf | None = None) -> None:
        self._control, self._shelf = control, shelf
        self._changed = threading.Condition()
        self._come = dict[int, socket.socket]()  # control connections by rank

    def admit(self, connection: socket.socket, who: Admitted) -> None:
        """In the door's thread, for each rank that has proved itself."""
        if who.purpose == DATA:
            self._control.attach(who.communicator, who.rank, connection.detach())
        elif who.purpose == CONTROL:
            keep_alive(connection)
            with self._changed:
                self._come[who.rank] = connection
                self._changed.notify_all()
        elif self._shelf is not None:
            self._shelf.admit(connection, who)
        else:
            connection.close()

    def connections(self, ranks: Sequence[int], deadline: float) -> dict[int, socket.socket]:
        """The control connections that these ranks have made by `deadline`, at best all."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._come.keys() >= set(ranks), timeout=max(deadline - time.monotonic(), 0.0)
            )
            return {rank: self._come.pop(rank) for rank in ranks if rank in self._come}


class TcpGroup(Machines):
    """This process among those of a job, and the connections to those on other machines; `apart`: to all others."""

    def __init__(
        self, own: Identity, cards: Sequence[Card], door: Door, secret: bytes, control: _core.Control, apart: bool
    ) -> None:
        super().__init__(own.rank, [card.host for card in cards], [card.machine for card in cards])
        self.cards, self.apart = tuple(cards), apart
        digest = hashlib.blake2b("\n".join(card.text() for card in cards).encode(), digest_size=4).digest()
        self.epoch = int.from_bytes(digest, "little")
        self.control = control
        self._own, self._door, self._secret = own, door, secret
        self._dialer: Dialer | None = None
        self._closed = False

    @property
    def far(self) -> list[int]:
        """The ranks that connections lead to."""
        near = [self.rank] if self.apart else self.near(range(self.size))
        return [rank for rank in range(self.size) if rank not in near]

    def meet(self, hall: Hall, deadline: float) -> None:
        """Make the control connections. Collective; the lower rank dials. Raises BootstrapError at `deadline`, a time
        of `time.monotonic`, with the ranks that there is no connection to."""
        for peer in self.far:
            if peer > self.rank:
                connection = self._visit(peer, CONTROL, 0, deadline)
                keep_alive(connection)
                self.control.add(peer, connection.detach())
        lower = [peer for peer in self.far if peer < self.rank]
        found = hall.connections(lower, deadline)
        for peer, connection in found.items():
            self.control.add(peer, connection.detach())
        if missing := [peer for peer in lower if peer not in found]:
            places = "; ".join(f"rank {peer} is at {self.cards[peer]}" for peer in missing[:4])
            raise BootstrapError(
                f"rank {self.rank} of {self.size}, at {self.cards[self.rank]}: {named(missing)} came, but did not"
                f" connect within the timeout of init; {places}; does a firewall keep them from each other?"
            )
        here = weakref.ref(self)

        def dial(communicator: int, peer: int) -> None:
            group = here()
            if group is not None:
                group._dial(communicator, peer)

        self._dialer = Dialer(self.control, dial)

    def connect(self, members: Sequence[int], label: str) -> Wires:
        """What leads to the far ones of `members`, who all give the same label, which they use only once. Nothing is
        sent for it. Raises TransportError where the label's number is another's."""
        number = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=4).digest(), "little")
        if self.control.holds(number):
            raise TransportError(
                f"rank {self.rank}: {label} has the same number as another communicator, one chance in 2**32; split"
                " again"
            )
        here = len(self.near(members))
        tls = ", by TLS" if self._door.tls else ""
        places = tuple(f"{self.cards[member]}{tls}" for member in members)
        return Wires(self.control, number, self.epoch, tuple(members), here, places)

    def close(self) -> None:
        """Say goodbye to all. Idempotent; for when no communicator is left."""
        if self._closed:  # the end of the interpreter collects what was closed before
            return
        self._closed = True
        if self._dialer is not None:
            self._dialer.close()
        self._door.close()
        self.control.close()
        finish()

    def __del__(self) -> None:
        self.close()

    def _dial(self, communicator: int, peer: int) -> None:
        """Make a data connection, as long as the peer is there."""

        def over() -> bool:
            return self._closed or bool(self.control.lost(peer))

        try:
            connection = self._visit(peer, DATA, communicator, time.monotonic() + FOREVER, over)
        except BootstrapError as error:
            if not over():
                self.control.fail(communicator, peer, str(error))
        else:
            self.control.attach(communicator, peer, connection.detach())

    def _visit(
        self, peer: int, purpose: int, communicator: int, deadline: float, over: Callable[[], bool] = bool
    ) -> socket.socket:
        card, own = self.cards[peer], self.cards[self.rank]
        where, source = (card.address, card.port), own.route
        return visit(where, self._secret, self._own, peer, purpose, communicator, deadline, source, over)
