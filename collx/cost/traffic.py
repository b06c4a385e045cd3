"""Ranks' schedules as messages on their way: who sends how many blocks in which round, through which ports, and in
which round of the receiver they are due."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from collx.cost.network import Network, Port
from collx.errors import ScheduleError
from collx.schedule import Recv, Schedule, Send


@dataclass(slots=True)
class Message:
    """`blocks` blocks on their way. `out` and `into` are the ports on either side, each with the seconds that a byte
    takes. `free` says that another message of the round has paid for those on its way out: a rank writes once what it
    sends to several. `to` is the receiver's number and `due` its round."""

    blocks: int
    link: str
    alpha: float
    overhead: float
    out: tuple[tuple[int, float], ...]
    into: tuple[tuple[int, float], ...]
    free: bool
    to: int
    due: int = -1
    reduced: bool = False


@dataclass(slots=True)
class Traffic:
    """What ranks do. `sent[i][k]` are the messages that the i-th of them sends in its k-th round, `received[i][k]`
    those that the round waits for; `processor[i]` is the number of who does it."""

    blocks: int
    sent: list[list[list[Message]]] = field(default_factory=list)
    received: list[list[list[Message]]] = field(default_factory=list)
    processor: list[int] = field(default_factory=list)
    ports: int = 0

    largest: int = 0  # blocks of the largest message
    by_link: dict[str, float] = field(default_factory=dict)  # blocks over each class of link


class _Numbers(dict[Hashable, int]):
    """Numbers for whatever is asked for, in the order of the asking."""

    def __missing__(self, key: Hashable) -> int:
        return self.setdefault(key, len(self))


def itself(rank: int) -> int:
    return rank


def traffic(schedules: Mapping[int, Schedule], network: Network, player: Callable[[int], int] = itself) -> Traffic:
    """The messages of the ranks in `schedules`, each of which stands for all ranks that `player` says it plays.

    The k-th Send from one to another meets the k-th Recv, as lanes keep order. Raises ScheduleError where a message has
    no other end: a schedule is wrong, or ranks are not as alike as `player` has it.
    """
    ports, processors = _Numbers(), _Numbers()
    numbers = {rank: number for number, rank in enumerate(schedules)}
    found = Traffic(next(iter(schedules.values())).blocks)
    lanes: dict[tuple[int, int], list[Message]] = {}
    recvs: list[list[list[Recv]]] = []
    for rank, schedule in schedules.items():
        found.processor.append(processors[network.processor(rank)])
        rounds = [ops for ops in schedule.rounds if any(isinstance(op, Send | Recv) for op in ops)]
        recvs.append([[op for op in ops if isinstance(op, Recv)] for ops in rounds])
        found.sent.append([])
        for ops in rounds:
            sends = [op for op in ops if isinstance(op, Send)]
            players = [player(op.to) for op in sends]
            messages = _sent(rank, sends, players, network, ports, numbers)
            found.sent[-1].append(messages)
            for message in messages:
                found.largest = max(found.largest, message.blocks)
                found.by_link[message.link] = found.by_link.get(message.link, 0) + message.blocks
                lanes.setdefault((numbers[rank], message.to), []).append(message)
    found.received = _met(lanes, recvs, lambda source: numbers[player(source)])
    found.ports = len(ports)
    return found


def _sent(
    rank: int,
    sends: list[Send],
    players: list[int],
    network: Network,
    ports: dict[Hashable, int],
    numbers: Mapping[int, int],
) -> list[Message]:
    """The messages of one round, in order."""
    sent: list[Message] = []
    written: set[tuple[Port, tuple[int, ...]]] = set()
    for op, played in zip(sends, players, strict=True):
        route = network.route(rank, op.to, played)
        first = (route.out[0][0], op.blocks)
        out, into = (tuple((ports[port], beta) for port, beta in side) for side in (route.out, route.into))
        link = route.link
        free = route.written and first in written
        sent.append(Message(len(op.blocks), link.name, link.alpha, link.overhead, out, into, free, numbers[played]))
        written.add(first)
    return sent


def _met(
    lanes: Mapping[tuple[int, int], list[Message]], recvs: list[list[list[Recv]]], number_of: Callable[[int], int]
) -> list[list[list[Message]]]:
    """The messages that each round waits for, which learn when they are due."""
    coming = {lane: iter(messages) for lane, messages in lanes.items()}
    received: list[list[list[Message]]] = []
    for number, rounds in enumerate(recvs):
        received.append([])
        for due, ops in enumerate(rounds):
            messages: list[Message] = []
            for op in ops:
                message = next(coming.get((number_of(op.source), number), iter(())), None)
                if message is None or message.blocks != len(op.blocks):
                    raise ScheduleError(f"rank {number}, round {due}: {op} meets no Send of as many blocks")
                message.due, message.reduced = due, op.reduce is not None
                messages.append(message)
            received[-1].append(messages)
    left = next(((lane, message) for lane, rest in coming.items() for message in rest), None)
    if left is not None:
        raise ScheduleError(f"rank {left[0][0]} sends rank {left[0][1]} {left[1].blocks} blocks that nobody receives")
    return received
