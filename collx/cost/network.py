"""What messages go through on their way: ports, in each direction, that carry one message after the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from typing import NamedTuple, Protocol

from collx.topology import Link, Topology

Port = Hashable
CORE = "core"  # the link between ranks that share a core, and with it all that the core does


class Route(NamedTuple):
    """How messages from one rank to another go: the class of the link, and the ports on the sender's side and on the
    receiver's, each with the seconds that a byte takes there. `written` says that a rank that sends the same to several
    writes it once, as into memory that others read."""

    link: Link
    out: tuple[tuple[Port, float], ...]
    into: tuple[tuple[Port, float], ...]
    written: bool = False


class Network(Protocol):
    """Anything that knows its ranks, the ways between them, and which ranks have one processor together."""

    @property
    def size(self) -> int: ...

    def route(self, source: int, to: int, player: int) -> Route:
        """From rank `source` to rank `to`, coming in where `player` is: mostly `to` itself, else who stands for it."""
        ...

    def processor(self, rank: int) -> Hashable: ...


class Ports:
    """The network that a Topology stands for.

    A message takes the link of the outermost level that parts its ranks. Where that is shared, the whole group on each
    side has one port; so has each shared level further in, as what leaves a rack leaves a host too. Else the rank has a
    port of its own. Ranks on one core have processor and port together.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        levels = topology.levels
        self.on_core = bool(levels) and levels[-1].link.name == CORE
        self._known: dict[tuple[str, int, int], tuple[tuple[Port, float], ...]] = {}

    @property
    def size(self) -> int:
        return self.topology.size

    def processor(self, rank: int) -> Hashable:
        place = self.topology.places[rank]
        return place[:-1] if self.on_core else place

    def route(self, source: int, to: int, player: int) -> Route:
        here, there = self.topology.places[source], self.topology.places[to]
        parted = 0
        while here[parted] == there[parted]:
            parted += 1
        link = self.topology.levels[parted].link
        out, into = self._ports("out", source, parted), self._ports("in", player, parted)
        return Route(link, out, into, written=not link.shared)

    def _ports(self, way: str, rank: int, parted: int) -> tuple[tuple[Port, float], ...]:
        """From the rank to the level that parts it from its peer, or the other way."""
        found = self._known.get((way, rank, parted))
        if found is None:
            place, links = self.topology.places[rank], [level.link for level in self.topology.levels]
            ports: list[tuple[Port, float]] = [
                ((way, place[: depth + 1]), links[depth].beta)
                for depth in range(parted, len(links))
                if links[depth].shared
            ]
            if not links[parted].shared:
                ports.append(((way, self.processor(rank)), links[parted].beta))
            found = self._known[way, rank, parted] = tuple(ports)
        return found


def loads(
    messages: Iterable[tuple[int, int, Fraction]], ways: Callable[[int, int], Iterable[tuple[Port, Fraction]]]
) -> dict[Port, Fraction]:
    """What passes each port, of messages (source, to, bytes) that go by `ways(source, to)`: ports, and which part of
    the message goes there, as where there are several ways."""
    found: dict[Port, Fraction] = {}
    for source, to, nbytes in messages:
        for port, part in ways(source, to):
            found[port] = found.get(port, Fraction(0)) + nbytes * part
    return found
