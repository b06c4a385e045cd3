"""Who stands for whom: the few ranks whose schedules tell what all ranks do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple, Protocol

from collx.cost.network import Ports
from collx.cost.sample import Sample
from collx.cost.timing import Timing, timed
from collx.cost.traffic import Traffic, traffic
from collx.errors import ScheduleError
from collx.schedule import Algorithm, Op, Recv, Schedule, Send
from collx.topology import Topology

FEW = 16  # up to so many ranks all of them are looked at,
SOME = 8192  # and of more, if they are not alike, where rank 0's rounds and messages times ranks are no more
BROAD = 512  # messages of a rank in one round from which on they are summed up, not followed
RUN = 64  # rounds of one kind in a row, of which the rest goes as the last half of these
SEEN = 256  # rounds, at least, by which it is seen whether ranks do alike
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fall evenly, and on no power of two


class Priced(Protocol):
    """What has a price: cut into `blocks` blocks, of which the longest message has `largest` and each class of link
    carries so many."""

    @property
    def blocks(self) -> int: ...

    @property
    def largest(self) -> int: ...

    @property
    def by_link(self) -> Mapping[str, float]: ...

    def timed(self, block: float, gamma: float) -> Timing: ...


class Whole:
    """All of the traffic of some ranks, of whom each stands for `copies`."""

    def __init__(self, of: Traffic, copies: float = 1.0) -> None:
        self.of, self.blocks, self.largest = of, of.blocks, of.largest
        self.by_link = {name: blocks * copies for name, blocks in of.by_link.items()}

    def timed(self, block: float, gamma: float) -> Timing:
        return timed(self.of, block, gamma)


class Begun(NamedTuple):
    """The beginning of long runs of rounds, `half` and `full`; the rest goes on for `times` what the second half
    does."""

    half: Whole
    full: Whole
    times: float
    rounds: int

    @property
    def blocks(self) -> int:
        return self.full.blocks

    @property
    def largest(self) -> int:
        return self.full.largest

    @property
    def by_link(self) -> Mapping[str, float]:
        half = self.half.by_link
        return {name: self._on(half.get(name, 0.0), full) for name, full in self.full.by_link.items()}

    def timed(self, block: float, gamma: float) -> Timing:
        half, full = self.half.timed(block, gamma), self.full.timed(block, gamma)
        return Timing(self._on(half.seconds, full.seconds), self.rounds, self._on(half.busiest, full.busiest))

    def _on(self, half: float, full: float) -> float:
        return full + self.times * (full - half)


@lru_cache(maxsize=512)
def representatives(algorithm: Algorithm, topology: Topology) -> Priced:
    """Of few ranks all. Of many, one group of the outermost level, where all groups do alike, or one rank of it that
    talks to all; of its rounds those that differ. Else some groups here and there, round by round."""
    size, network = topology.size, Ports(topology)

    def build(ranks: Iterable[int]) -> dict[int, Schedule]:
        return {rank: algorithm.build(rank, size) for rank in ranks}

    if size <= FEW:
        return Whole(traffic(build(range(size)), network))
    group, rounds = _group(topology), algorithm.rounds(size)
    if group is not None:
        first, *others = build([0, *_others(size, group)]).items()
        if max(len(ops) for ops in first[1].rounds) > 2 * BROAD and _alike(dict([first]), dict(others[:1]), group):
            return Sample(dict([first]), {0: size}, network, rounds, crowd=group)
        ranks = build(range(group))
        if _alike(ranks, dict(others), group):
            try:
                folded = _folded(ranks, network, group, size / group, rounds)
                folded.timed(1.0, 0.0)  # which ends, if they are as alike as they look
                return folded
            except ScheduleError:
                pass
    if size * sum(len(ops) + 1 for ops in algorithm.build(0, size).rounds) <= SOME:
        return Whole(traffic(build(range(size)), network))
    weights = _spread(size, group or 1)
    return Sample(build(weights), weights, network, rounds)


def _folded(ranks: Mapping[int, Schedule], network: Ports, group: int, copies: float, rounds: int) -> Priced:
    def player(rank: int) -> int:
        return rank % group

    runs = [len(list(run)) for _, run in groupby(ranks[0].rounds, key=_kind)]
    lasting, full = sum(runs), sum(min(run, RUN) for run in runs)
    if lasting <= 4 * RUN or lasting < 2 * full:
        return Whole(traffic(ranks, network, player), copies)

    def begun(length: int) -> Whole:
        kept = {rank: _beginnings(schedule, runs, length) for rank, schedule in ranks.items()}
        return Whole(traffic(kept, network, player), copies)

    half = sum(min(run, RUN // 2) for run in runs)
    return Begun(begun(RUN // 2), begun(RUN), (lasting - full) / (full - half), rounds)


def _beginnings(schedule: Schedule, runs: Iterable[int], length: int) -> Schedule:
    kept, at = Schedule(schedule.blocks), 0
    for run in runs:
        kept.rounds += schedule.rounds[at : at + min(run, length)]
        at += run
    return kept


def _kind(ops: tuple[Op, ...]) -> list[tuple[bool, int, bool]]:
    """What rounds have in common that take about as long."""
    return sorted((sends, blocks, reduces) for sends, blocks, _, reduces in _messages(ops))


def _group(topology: Topology) -> int | None:
    """How many ranks each group of the outermost level has, where all have as many, alike, and follow each other."""
    places, network = topology.places, Ports(topology)
    group = topology.size // (places[-1][0] + 1)
    even = all(place == (rank // group, *places[rank % group][1:]) for rank, place in enumerate(places))
    return group if even and network.processor(0) != network.processor(topology.size - 1) else None


def _others(size: int, group: int) -> list[int]:
    """Some ranks whose schedules must be like those of the first group: the first of a middle group and both ends of
    the last: where groups are no power of two in number, some of them do more than others."""
    return [size // group // 2 * group, size - 1, size - group]


def _alike(ranks: Mapping[int, Schedule], others: Mapping[int, Schedule], group: int) -> bool:
    """Whether `others` do what those do who stand for them in the first group, in all rounds or in some of many."""

    def shape(rank: int, schedule: Schedule) -> list[list[tuple[object, ...]]]:
        return [
            sorted((*kind, peer % group, peer // group == rank // group) for *kind, peer, _ in _messages(ops))
            for ops in schedule.rounds[:: 1 + len(schedule.rounds) // SEEN]
        ]

    return all(shape(rank, schedule) == shape(rank % group, ranks[rank % group]) for rank, schedule in others.items())


def _messages(ops: tuple[Op, ...]) -> Iterable[tuple[bool, int, int, bool]]:
    """Whether each message of a round is sent, its blocks, the peer, and whether it is reduced."""
    for op in ops:
        if isinstance(op, Send):
            yield True, len(op.blocks), op.to, False
        elif isinstance(op, Recv):
            yield False, len(op.blocks), op.source, op.reduce is not None


def _spread(size: int, group: int) -> dict[int, float]:
    """Ranks to look at, and how many each stands for. Trees have their levels at the ends, in the middle, and halfway
    again and again: the groups there stand for themselves, and for all others some that are like most."""
    groups = size // group
    levels = {at // group for at in [0, size - 1, *(size >> halved for halved in range(1, size.bit_length()))]}
    typical = {int(groups * (number * GOLDEN % 1)) for number in range(1, 9)} - levels
    each = (groups - len(levels)) / max(len(typical), 1)
    weights = dict.fromkeys(sorted(levels), 1.0) | dict.fromkeys(sorted(typical), each)
    return {number * group + at: weight for number, weight in weights.items() for at in range(group)}
