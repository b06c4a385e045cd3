"""Schedules of a few ranks, where they are not alike and all would be too many: round by round, what the busiest of
those looked at takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from collx.cost.network import Network, Port
from collx.cost.timing import Timing
from collx.schedule import Op, Recv, Schedule, Send


class _Share(NamedTuple):
    """One rank's part in a round: its messages' latency and overheads, what it reduces in blocks, and its ports."""

    alpha: float
    overhead: float
    reduced: int
    ports: frozenset[Port]


class _Round(NamedTuple):
    shares: list[_Share]
    loads: dict[Port, float]  # blocks, each for the seconds that a byte takes there


class Sample:
    """The rounds of some ranks, of `rounds` in all; rounds that no rank looked at takes part in are like the others.
    For the bytes in all, each rank stands for as many as its weight; on what ranks share, for a `crowd` that does as it
    does."""

    def __init__(
        self,
        schedules: Mapping[int, Schedule],
        weights: Mapping[int, float],
        network: Network,
        rounds: int,
        crowd: int = 1,
    ) -> None:
        self.crowd = crowd
        longest = max(len(schedule.rounds) for schedule in schedules.values())
        self.rounds = rounds
        self.blocks = next(iter(schedules.values())).blocks
        self.largest = 0
        self.by_link: dict[str, float] = {}
        found = [_Round([], {}) for _ in range(longest)]
        for rank, schedule in schedules.items():
            for number, ops in enumerate(schedule.rounds):
                if ops:
                    self._add(found[number], rank, weights[rank], ops, network)
        self.seen = [each for each in found if each.shares]

    def _add(self, found: _Round, rank: int, weight: float, ops: tuple[Op, ...], network: Network) -> None:
        alpha = overhead = 0.0
        reduced, ports, written = 0, set[Port](), set[tuple[Port, tuple[int, ...]]]()
        for source, to, op in _messages(rank, ops):
            blocks, route = len(op.blocks), network.route(source, to, to)
            alpha, overhead = max(alpha, route.link.alpha), overhead + route.link.overhead
            if isinstance(op, Send):
                self.largest = max(self.largest, blocks)
                self.by_link[route.link.name] = self.by_link.get(route.link.name, 0) + blocks * weight
            elif op.reduce:
                reduced += blocks
            for port, beta in route.out if isinstance(op, Send) else route.into:
                ports.add(port)
                if not (route.written and (port, op.blocks) in written):
                    each = blocks * beta * (self.crowd if route.link.shared else 1)
                    found.loads[port] = found.loads.get(port, 0.0) + each
                if isinstance(op, Send):
                    written.add((port, op.blocks))
        if ports:
            found.shares.append(_Share(alpha, overhead, reduced, frozenset(ports)))

    def timed(self, block: float, gamma: float) -> Timing:
        """As `timing.timed` has it, each round beginning when all are done with the one before."""
        lasting = [
            max(
                share.alpha + share.overhead + share.reduced * block * gamma
                + max(loads[port] for port in share.ports) * block
                for share in shares
            )
            for shares, loads in self.seen
        ]  # fmt: skip
        if not lasting:
            return Timing(0.0, self.rounds, 0.0)
        busy: dict[Port, float] = {}
        for _, loads in self.seen:
            for port, load in loads.items():
                busy[port] = busy.get(port, 0.0) + load * block
        seconds = sum(lasting) * max(self.rounds / len(lasting), 1.0)
        return Timing(seconds, self.rounds, max(busy.values()))


def _messages(rank: int, ops: tuple[Op, ...]) -> Iterator[tuple[int, int, Send | Recv]]:
    for op in ops:
        if isinstance(op, Send):
            yield rank, op.to, op
        elif isinstance(op, Recv):
            yield op.source, rank, op
