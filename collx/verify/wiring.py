"""The rules that can be read off the schedules: peers, blocks, conflicts, and which Send meets which Recv.

The k-th Send from one rank to another meets the k-th Recv there from it, whatever the timing, because lanes
keep order. What passes the rules is brought into the form that `execution` runs: moves, in the order and
with the grouping that `collx.plan` lowers rounds to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from collx.collectives import Collective
from collx.errors import ScheduleError
from collx.schedule import Copy, Op, Recv, Schedule, Send

SIGNAL = (0,)  # stands for what a barrier's messages carry: whom the sender has heard of


@dataclass(slots=True)
class Round:
    """The start of a round: `copied` are the source blocks of its copies, read before anything is written."""

    number: int
    communicates: bool
    copied: list[tuple[int, ...]]


@dataclass(slots=True)
class Publish:
    """One message of `blocks` on each of `lanes`."""

    number: int
    blocks: tuple[int, ...]
    lanes: list[int]


@dataclass(slots=True)
class Fold:
    """Fold into `blocks` from the left: lefts, the blocks themselves if `own`, rights. A source is a lane, or
    ~i for the round's i-th copy."""

    number: int
    blocks: tuple[int, ...]
    own: bool
    lefts: list[int] = field(default_factory=list)
    rights: list[int] = field(default_factory=list)


Move = Round | Publish | Fold


@dataclass(slots=True)
class Wiring:
    """What all ranks do, rule by rule in order. Lane a*size+b leads from rank a to rank b."""

    size: int
    blocks: int
    moves: list[list[Move]] = field(default_factory=list)
    sent: dict[int, list[tuple[int, tuple[int, ...]]]] = field(default_factory=dict)  # lane -> (round, blocks)...
    received: dict[int, list[tuple[int, tuple[int, ...]]]] = field(default_factory=dict)
    volumes: list[int] = field(default_factory=list)  # blocks sent by each rank
    uniform: bool = False  # whether blocks meet that are of one size only where all blocks are


def wired(spec: Collective, schedules: Sequence[Schedule], uniform: bool) -> Wiring:
    """Check the rules of rounds and messages. Raises ScheduleError."""
    size, blocks = len(schedules), schedules[0].blocks
    for rank, schedule in enumerate(schedules):
        if schedule.blocks != blocks:
            raise ScheduleError(f"rank {rank} cuts the buffer into {schedule.blocks} blocks, rank 0 into {blocks}")
    if blocks < 1 or (spec.per_rank and blocks != size):
        raise ScheduleError(f"{spec.name} on {size} ranks cannot be cut into {blocks} blocks")
    wiring = Wiring(size, blocks)
    for rank, schedule in enumerate(schedules):
        moves: list[Move] = []
        for number, ops in enumerate(schedule.rounds):
            if ops:
                moves += _round(wiring, spec, rank, number, ops)
        wiring.moves.append(moves)
        wiring.volumes.append(sum(len(op.blocks) for ops in schedule.rounds for op in ops if isinstance(op, Send)))
    _match(wiring, spec, schedules, uniform)
    return wiring


def _round(wiring: Wiring, spec: Collective, rank: int, number: int, ops: Sequence[Op]) -> list[Move]:
    """One round as moves: publications, then what writes, each in the order of first mention."""
    publications: dict[tuple[int, ...], Publish] = {}
    writes = _Writes(rank, number)
    copied: list[tuple[int, ...]] = []
    tos: set[int] = set()
    sources: set[int] = set()
    for op in ops:
        if isinstance(op, Send):
            _check_peer(wiring.size, rank, number, op, op.to, tos)
            lane = rank * wiring.size + op.to
            wiring.sent.setdefault(lane, []).append((number, op.blocks))
            blocks = _checked(spec, op.blocks, rank, number, op)
            if blocks not in publications:
                publications[blocks] = Publish(number, blocks, [])
            publications[blocks].lanes.append(lane)
        elif isinstance(op, Recv):
            _check_peer(wiring.size, rank, number, op, op.source, sources)
            lane = op.source * wiring.size + rank
            wiring.received.setdefault(lane, []).append((number, op.blocks))
            writes.add(op, _checked(spec, op.blocks, rank, number, op), lane)
        elif isinstance(op, Copy):
            copied.append(_checked(spec, op.src, rank, number, op))
            writes.add(op, _checked(spec, op.dst, rank, number, op), ~(len(copied) - 1))
        else:
            raise ScheduleError(f"rank {rank}, round {number}: {op!r} is no Send, Recv or Copy")
    return [Round(number, bool(tos or sources), copied), *publications.values(), *writes.folds.values()]


def _check_peer(size: int, rank: int, number: int, op: Op, peer: int, known: set[int]) -> None:
    wrong = None
    if not 0 <= peer < size:
        wrong = f"there is no rank {peer} among {size}"
    elif peer == rank:
        wrong = "a rank does not talk to itself, use Copy"
    elif peer in known:
        wrong = "a second one for this peer in one round; name all its blocks in one"
    if wrong:
        raise ScheduleError(f"rank {rank}, round {number}: {op}: {wrong}")
    known.add(peer)


def _checked(spec: Collective, blocks: tuple[int, ...], rank: int, number: int, op: Op) -> tuple[int, ...]:
    if spec.result == "heard":
        if blocks:
            raise ScheduleError(f"rank {rank}, round {number}: {op}: a barrier has no data, send empty blocks")
        return SIGNAL
    if blocks and min(blocks) < 0:
        raise ScheduleError(f"rank {rank}, round {number}: {op}: there is no block {min(blocks)}")
    return blocks


@dataclass(slots=True)
class _Writes:
    """What one round writes. Several ops may only fold into one and the same list of blocks."""

    rank: int
    number: int
    folds: dict[tuple[int, ...], Fold] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)

    def add(self, op: Recv | Copy, blocks: tuple[int, ...], source: int) -> None:
        fold = self.folds.get(blocks)
        reduces = op.reduce is not None or blocks is SIGNAL
        if fold is None:
            fold = self.folds[blocks] = Fold(self.number, blocks, reduces)
            before = len(self.written)
            self.written.update(blocks)
            twice = len(self.written) < before + len(blocks)
        else:
            twice = bool(blocks) and not (reduces and fold.own)
        if twice:
            raise ScheduleError(
                f"rank {self.rank}, round {self.number}: {op} writes a block that the round writes already"
            )
        (fold.lefts if op.reduce == "left" else fold.rights).append(source)


def _match(wiring: Wiring, spec: Collective, schedules: Sequence[Schedule], uniform: bool) -> None:
    """Pair the messages of every lane, and compare both ends."""
    size, blocks = wiring.size, wiring.blocks

    def classes(rank: int, named: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What decides a block's size: its number, or in all_to_all whence and whither."""
        if spec.result != "exchange":
            return [(block % blocks,) for block in named]
        return [(rank, block - size) if size <= block < 2 * size else (block % size, rank) for block in named]

    for lane in wiring.sent.keys() | wiring.received.keys():
        sender, receiver = divmod(lane, size)
        sent, received = wiring.sent.get(lane, []), wiring.received.get(lane, [])
        for (number, given), (later, taken) in zip(sent, received, strict=False):
            wrong = None
            if len(given) != len(taken):
                wrong = f"{len(given)} blocks into {len(taken)}"
            elif not wiring.uniform and (spec.result == "exchange" or given != taken):
                wiring.uniform = classes(sender, given) != classes(receiver, taken)
                if wiring.uniform and not uniform:
                    wrong = "blocks of different sizes; name equal ones or register as uniform"
            if wrong:
                ends = f"rank {sender}, round {number} sends {given}; rank {receiver}, round {later} receives {taken}"
                raise ScheduleError(f"{ends}: {wrong}")
        if len(sent) > len(received):
            number, given = sent[len(received)]
            raise ScheduleError(f"rank {sender}, round {number}: rank {receiver} has no Recv for {given} sent to it")
        if len(received) > len(sent):
            later, taken = received[len(sent)]
            raise ScheduleError(f"rank {receiver}, round {later}: rank {sender} has no Send for {taken} due from it")
    for rank, schedule in enumerate(schedules):
        for number, ops in enumerate(schedule.rounds):
            for op in ops:
                if isinstance(op, Copy) and not wiring.uniform and classes(rank, op.src) != classes(rank, op.dst):
                    wiring.uniform = True
                    if not uniform:
                        raise ScheduleError(f"rank {rank}, round {number}: {op}: blocks of different sizes")
