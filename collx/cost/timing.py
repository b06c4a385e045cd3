"""How long traffic takes: the events of one run, in the order of their times."""

from __future__ import annotations

from heapq import heappop, heappush
from operator import itemgetter
from typing import NamedTuple

from collx.cost.traffic import Message, Traffic
from collx.errors import ScheduleError


class Timing(NamedTuple):
    """When the last rank ends, the longest chain of rounds, and for how long the busiest port or processor is busy."""

    seconds: float
    rounds: int
    busiest: float


def timed(traffic: Traffic, block: float, gamma: float) -> Timing:
    """Run the traffic with blocks of `block` bytes, and `gamma` seconds to reduce a byte.

    A round's sends cost its processor their overhead, one after the other. A message takes `alpha` seconds to its
    receiver's side. A port carries one message after the other, first come first served; as networks share a port among
    messages rather than let them queue, one that waits there keeps none of its other ports from their work. A round
    ends when all that it waits for has come, has cost its overhead and is reduced. Raises ScheduleError on a deadlock.
    """
    run = _Run(traffic, block, gamma)
    run.to_the_end()
    return Timing(max(run.clock), max(run.depth), max([*run.used, *run.worked]))


class _Run:
    def __init__(self, traffic: Traffic, block: float, gamma: float) -> None:
        ranks, processors = len(traffic.sent), max(traffic.processor) + 1
        self.traffic, self.block, self.gamma = traffic, block, gamma
        # When, number, a message (none where a rank begins a round), the chain of rounds before it (or the rank), and
        # when its tail has left its sender's side, if it has.
        self.events: list[tuple[float, int, Message | None, int, float]] = []
        self.number = 0  # of the last event, so that those of one moment stay in order
        self.clock, self.depth = [0.0] * ranks, [0] * ranks  # the end of each rank's last round; chains of rounds
        self.at = [-1] * ranks
        self.missing = [[len(messages) for messages in rounds] for rounds in traffic.received]
        self.came: dict[tuple[int, int], list[tuple[float, int, Message]]] = {}  # by rank and round, with chains
        self.free, self.used = [0.0] * traffic.ports, [0.0] * traffic.ports
        self.idle, self.worked = [0.0] * processors, [0.0] * processors

    def to_the_end(self) -> None:
        for rank in range(len(self.clock)):
            self._begin(rank)
        events = self.events
        while events:
            now, _, message, who, tail = heappop(events)
            if message is None:
                self._begin(who)
            elif tail < 0:
                self._send(now, message, who)
            else:
                self._arrive(now, message, who, tail)
        if any(at < len(sent) for at, sent in zip(self.at, self.traffic.sent, strict=True)):
            raise ScheduleError("the ranks wait for each other; `collx verify` tells where")

    def _push(self, when: float, message: Message | None, who: int, tail: float = -1.0) -> None:
        self.number += 1
        heappush(self.events, (when, self.number, message, who, tail))

    def _begin(self, rank: int) -> None:
        """The rank's next round: what it sends is on its way."""
        self.at[rank] = turn = self.at[rank] + 1
        if turn == len(self.traffic.sent[rank]):
            return
        processor = self.traffic.processor[rank]
        now = max(self.clock[rank], self.idle[processor])
        for message in self.traffic.sent[rank][turn]:
            now += message.overhead
            self.worked[processor] += message.overhead
            self._push(now, message, self.depth[rank])
        self.idle[processor] = self.clock[rank] = now
        if not self.missing[rank][turn]:
            self._end(rank)

    def _send(self, now: float, message: Message, chain: int) -> None:
        """The message comes to the ports on its sender's side."""
        tail = now
        for port, beta in message.out:
            tail = max(tail, now if message.free else self._through(port, now, message.blocks * beta))
        self._push(now + message.alpha, message, chain, tail + message.alpha)

    def _arrive(self, now: float, message: Message, chain: int, tail: float) -> None:
        """The message's head is at the ports on its receiver's side."""
        for port, beta in message.into:
            tail = max(tail, self._through(port, now, message.blocks * beta))
        to, due = message.to, message.due
        self.came.setdefault((to, due), []).append((tail, chain, message))
        self.missing[to][due] -= 1
        if self.at[to] == due and not self.missing[to][due]:
            self._end(to)

    def _through(self, port: int, now: float, loading: float) -> float:
        lasting = loading * self.block
        self.used[port] += lasting
        self.free[port] = through = max(now, self.free[port]) + lasting
        return through

    def _end(self, rank: int) -> None:
        """All that the rank's round waits for is on its last port."""
        processor = self.traffic.processor[rank]
        now = max(self.clock[rank], self.idle[processor])
        depth = self.depth[rank]
        for arrival, chain, message in sorted(self.came.pop((rank, self.at[rank]), ()), key=itemgetter(0)):
            cost = message.overhead + (message.blocks * self.block * self.gamma if message.reduced else 0.0)
            now = max(now, arrival) + cost
            self.worked[processor] += cost
            depth = max(depth, chain)
        self.idle[processor] = self.clock[rank] = now
        self.depth[rank] = depth + 1
        self._push(now, None, rank)
