"""Lowers a schedule to a plan: the moves of one rank for one size, dtype and op, with the order they need.

A move is the only thing an engine knows. It folds its sources from the left with the op and writes the
result to all its targets; a source or target is memory or a lane (the messages to or from one peer). A copy
has one memory source and one memory target, a send one memory source and lanes as targets, a receive one
lane as source, a fused receive-reduce both, and a direct all-reduce a source for every rank.

The plan is run `segments` times over, each time on one segment of every block: a segment is a run of the schedule
by itself, so moves wait for each other segment by segment (`Move.after`) and what was proved of the schedule
holds for every segment. Lanes carry, for every `window` segments, all moves in list order, each with its segments
in order. Both ends of a lane compute the same order, because both have the same segments and window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from collx.collectives import COLLECTIVES, Collective
from collx.schedule import Copy, Recv, Schedule, Send

GRAIN = 64  # bytes; segments start on a cache line of their block


class Space(IntEnum):
    """Where memory is: the caller's input, the caller's output, or the communicator's own workspace."""

    INPUT = 0
    OUTPUT = 1
    WORKSPACE = 2


@dataclass(frozen=True, slots=True)
class Lane:
    """The stream of messages to or from one peer."""

    peer: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Where each block of a move lies: (space, offset in bytes) per block."""

    spans: tuple[tuple[Space, int], ...]


Operand = Lane | Memory


@dataclass(slots=True)
class Move:
    """Fold `sources` from the left, write the result to every target; `lengths` are the blocks' bytes.

    `after` lists earlier moves that must have done a segment before this one does it. `follower` is a later
    move that only sends on what this one writes, so an engine may do both in one pass; `transient` says
    that nobody else reads it, so the write to memory may then be left out. `whole` moves need all segments of
    their sources at once (user-defined ops). A `scale` move divides by the size instead of folding. `kept`: what it
    reads is not overwritten in the same round, so a receiver may read it there, for as long as it takes: who overwrites
    it later waits for that receiver's rounds before, never for one that waits for this rank.
    """

    sources: tuple[Operand, ...]
    targets: tuple[Operand, ...]
    lengths: tuple[int, ...]
    after: tuple[int, ...] = ()
    follower: int = -1
    transient: bool = False
    whole: bool = False
    scale: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One rank's moves for one call shape. Holds no address, so it is cached and reused."""

    collective: str
    algorithm: str
    rank: int
    size: int
    root: int
    dtype: int
    op: int
    itemsize: int
    moves: tuple[Move, ...]
    segments: int
    window: int
    workspace: int
    input_bytes: int
    output_bytes: int
    count: str = ""  # what all ranks must pass alike, for people; empty where the bytes say it
    called: str = ""  # what the user called, where that is another name than the collective's
    ordered: bool = False  # reductions must keep rank order
    elements: tuple[int, ...] = ()  # only where it is MPI's own collective, without moves: those of each block
    inplace: bool = False  # likewise: the blocks that are both input and output lie in the same memory

    def step(self, length: int) -> int:
        """How many bytes of a block of `length` bytes each segment takes; the last ones may take less."""
        return segment_step(length, self.segments)


SIGNAL = (Space.WORKSPACE, -1)  # no memory: the place in the order of moves where a rank has heard of others


def segment_step(length: int, segments: int) -> int:
    if segments == 1:
        return length
    return -(-length // (segments * GRAIN)) * GRAIN


def segments_needed(blocks: int, block_bytes: int, capacity: int) -> int:
    """The fewest segments that let a message of `blocks` blocks of at most `block_bytes` fit into `capacity` bytes."""
    if blocks * block_bytes <= capacity:
        return 1
    room = capacity // blocks // GRAIN * GRAIN
    if room == 0:
        raise ValueError(f"a message of {blocks} blocks does not fit into slots of {capacity} bytes")
    return -(-block_bytes // room)


def balanced(count: int, parts: int) -> list[int]:
    """`count` elements in `parts` blocks as equal as whole elements allow, the larger ones first."""
    small, larger = divmod(count, parts)
    return [small + (part < larger) for part in range(parts)]


def lower(
    schedule: Schedule,
    collective: str,
    rank: int,
    size: int,
    root: int,
    sizes: Sequence[int],
    *,
    given_sizes: Sequence[int] = (),
    inplace: bool = False,
    whole: bool = False,
    scale: bool = False,
) -> tuple[list[Move], int]:
    """The moves of `rank` and the bytes of workspace they use.

    `sizes` are the buffer blocks' bytes, `given_sizes` those of all_to_all's input blocks. `inplace`: the
    blocks that are both input and output lie in the same memory. `whole`: reductions need whole blocks. `scale`:
    divide the result by the size.
    """
    lowering = _Lowering(schedule, COLLECTIVES[collective], rank, size, root, sizes, given_sizes, inplace, whole)
    for ops in schedule.rounds:
        lowering.round(ops)
    lowering.finish(scale)
    lowering.mark_followers()
    return lowering.moves, lowering.workspace


@dataclass(slots=True)
class _Lowering:
    schedule: Schedule
    spec: Collective
    rank: int
    size: int
    root: int
    sizes: Sequence[int]
    given_sizes: Sequence[int]
    inplace: bool
    whole: bool
    moves: list[Move] = field(default_factory=list)
    workspace: int = 0
    places: dict[int, tuple[Space, int]] = field(default_factory=dict)  # block -> where its value is now
    homes: dict[int, tuple[Space, int]] = field(default_factory=dict)  # block -> where it is written
    writer: dict[tuple[Space, int], int] = field(default_factory=dict)  # place -> the move that wrote it last
    readers: dict[tuple[Space, int], list[int]] = field(default_factory=dict)  # place -> moves that read it since
    read_by: dict[int, set[int]] = field(default_factory=dict)  # move -> the moves that read what it wrote
    wanted: range = range(0)

    def __post_init__(self) -> None:
        where = (self.rank, self.size, self.root, self.schedule.blocks)
        self.wanted = self.spec.after(*where)
        self.homes = self._laid_out(self.wanted, Space.OUTPUT)
        held = self.spec.before(*where)
        self.places = self._laid_out(held, Space.INPUT)
        if self.inplace:  # as far as the output has the same blocks: reduce_scatter's is one block of its input
            self.places.update({b: self.homes[b] for b in held if b in self.homes})

    def _laid_out(self, blocks: range, space: Space) -> dict[int, tuple[Space, int]]:
        offset, places = 0, {}
        for block in blocks:
            places[block] = (space, offset)
            offset += self._bytes(block)
        return places

    def _bytes(self, block: int) -> int:
        blocks = self.schedule.blocks
        if self.given_sizes and blocks <= block < 2 * blocks:
            return self.given_sizes[block - blocks]
        return self.sizes[block % blocks]

    def _home(self, block: int) -> tuple[Space, int]:
        if block not in self.homes:
            self.homes[block] = self._allocated(self._bytes(block))
        return self.homes[block]

    def _allocated(self, length: int) -> tuple[Space, int]:
        place = (Space.WORKSPACE, self.workspace)
        self.workspace += max(-(-length // GRAIN), 1) * GRAIN
        return place

    def _memory(self, blocks: tuple[int, ...]) -> Memory:
        return Memory(tuple(self.places[b] for b in blocks))

    def _add(
        self, sources: Sequence[Operand], targets: Sequence[Operand], lengths: Sequence[int], **kind: bool
    ) -> None:
        """Append a move, after every earlier one whose reads or writes of the same memory conflict with it."""
        index, after = len(self.moves), set()
        reads = [place for source in sources for place in _occupied(source, lengths)]
        writes = [place for target in targets for place in _occupied(target, lengths)]
        for place in reads:
            after.add(self.writer.get(place, -1))
            self.read_by.setdefault(self.writer.get(place, -1), set()).add(index)
        for place in writes:
            after.add(self.writer.get(place, -1))
            after.update(self.readers.get(place, ()))
        for place in reads:
            self.readers.setdefault(place, []).append(index)
        for place in writes:
            self.writer[place] = index
            self.readers[place] = []
        self.moves.append(
            Move(tuple(sources), tuple(targets), tuple(lengths), tuple(sorted(after - {-1, index})), **kind)
        )

    def round(self, ops: Sequence[Send | Recv | Copy]) -> None:
        """Sends first, then what writes, with all reads taken from the places the round before left."""
        sends: dict[tuple[int, ...], list[int]] = {}
        writes: dict[tuple[int, ...], list[Recv | Copy]] = {}
        for op in ops:
            if isinstance(op, Send):
                sends.setdefault(op.blocks, []).append(op.to)
            else:
                writes.setdefault(op.blocks if isinstance(op, Recv) else op.dst, []).append(op)
        first = len(self.moves)
        for blocks, peers in sends.items():
            self._add([self._memory(blocks)], [Lane(p) for p in peers], self._lengths(blocks))
        overwritten = {self.homes[b] for blocks in writes for b in blocks if b in self.homes}
        folds = [(blocks, self._fold_sources(blocks, incoming, overwritten)) for blocks, incoming in writes.items()]
        for blocks, sources in folds:
            if self.whole and len(sources) > 1:
                sources = [self._landed(s, blocks) if isinstance(s, Lane) else s for s in sources]
            target = Memory(tuple(self._home(b) for b in blocks))
            self._add(sources, [target], self._lengths(blocks), whole=self.whole and len(sources) > 1)
        written_over = {earlier for move in self.moves[first + len(sends) :] for earlier in move.after}
        for index in range(first, first + len(sends)):
            self.moves[index].kept = index not in written_over
        for blocks, _ in folds:
            self.places.update({b: self._home(b) for b in blocks})

    def _lengths(self, blocks: Sequence[int]) -> list[int]:
        return [self._bytes(b) for b in blocks]

    def _fold_sources(
        self, blocks: tuple[int, ...], ops: Sequence[Recv | Copy], overwritten: set[tuple[Space, int]]
    ) -> list[Operand]:
        """What `ops` fold into `blocks`; copies of what the round overwrites are taken aside first."""
        left: list[Operand] = []
        right: list[Operand] = []
        for op in ops:
            source: Operand = Lane(op.source) if isinstance(op, Recv) else self._memory(op.src)
            if isinstance(source, Memory) and not overwritten.isdisjoint(source.spans):
                source = self._landed(source, blocks)
            (left if op.reduce == "left" else right).append(source)
        reducing = any(op.reduce for op in ops)
        return left + ([self._memory(blocks)] if reducing else []) + right

    def _landed(self, source: Operand, blocks: tuple[int, ...]) -> Operand:
        """Bring the source to workspace first. Ops that need whole blocks fold from memory only."""
        landing = Memory(tuple(self._allocated(length) for length in self._lengths(blocks)))
        self._add([source], [landing], self._lengths(blocks))
        return landing

    def finish(self, scale: bool) -> None:
        """Bring results that never left the input to the output; scale where the op asks for it."""
        left_behind = tuple(b for b in self.wanted if b in self.places and self.places[b] != self.homes[b])
        if left_behind:
            source, target = self._memory(left_behind), Memory(tuple(self.homes[b] for b in left_behind))
            lengths = tuple(self._lengths(left_behind))
            sender = next((m for m in self.moves if (m.sources, m.lengths) == ((source,), lengths)), None)
            if sender and not scale:  # it reads those blocks anyway
                sender.targets += (target,)
            else:
                self._add([source], [target], lengths)
        if scale and len(self.wanted):
            result = Memory(tuple(self.homes[b] for b in self.wanted))
            self._add([result], [result], self._lengths(self.wanted), scale=True)

    def mark_followers(self) -> None:
        """Find the moves that send on exactly what one earlier move writes."""
        for index, move in enumerate(self.moves):
            source = move.sources[0]
            if len(move.sources) > 1 or not isinstance(source, Memory) or move.whole or move.scale or not move.lengths:
                continue
            writers = [
                w for w in move.after if (self.moves[w].targets, self.moves[w].lengths) == ((source,), move.lengths)
            ]
            if len(writers) != 1 or self.moves[writers[0]].whole or self.moves[writers[0]].follower >= 0:
                continue
            leader = self.moves[writers[0]]
            leader.follower = index
            occupied = _occupied(source, move.lengths)
            passing = all(p[0] is Space.WORKSPACE or self.writer[p] != writers[0] for p in occupied)
            leader.transient = passing and self.read_by[writers[0]] == {index}


def _occupied(operand: Operand, lengths: Sequence[int]) -> list[tuple[Space, int]]:
    """The places an operand has in memory. Empty blocks have none: they lie where their neighbour begins.

    No blocks at all are a signal: to hear one is to write a place of its own, and to give one is to read it, so
    that what is signalled is what was heard.
    """
    if not isinstance(operand, Memory):
        return []
    if not lengths:
        return [SIGNAL]
    return [place for place, length in zip(operand.spans, lengths, strict=True) if length]
