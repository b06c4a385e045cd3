"""From the schedules of all ranks to a plan for GPUs.

The schedules are run once, here, with messages that only say where their bytes lie: who receives one reads it there.
So what is sent costs nothing, and what is left is a program of folds, right when they are done one after the other.
`passes` make it shorter and find which of them may be done at once.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from collx.collectives import COLLECTIVES
from collx.cuda.passes import compacted, forwarded, merged, needed, scaled, stepped
from collx.cuda.plan import DevicePlan, Fold, Place
from collx.plan import GRAIN, Lane, Memory, Move, Operand, Space, balanced
from collx.plan import lower as moves_of
from collx.request import Request
from collx.schedule import Algorithm, Schedule

LINE = 128  # bytes; where the algorithm may cut the buffer as it likes, its blocks begin with a line of the GPU's cache


def lower(
    request: Request,
    algorithm: Algorithm,
    size: int,
    workers: Sequence[int],
    inplace: Sequence[bool] = (),
    given: Sequence[Sequence[int]] = (),
) -> DevicePlan:
    """The plan of all ranks, the same on all of them: `workers` has by rank the one that does its folds.

    What ranks may call differently must be known of all: `inplace` of every request, where that is not this one's, and
    `given` of every request, where they do not agree. For no custom op, which only the host can run.
    """
    if request.custom:
        raise ValueError("a user's op sees NumPy arrays, so no GPU runs it")
    averages = request.op is not None and request.op.name == "avg" and size > 1
    network = _Network(workers)
    for rank in range(size):
        schedule = algorithm.build(rank, size, request.root)
        sizes, sent = _block_bytes(request, schedule, rank, given)
        moves, workspace = moves_of(
            schedule, request.collective, rank, size, request.root, sizes,
            given_sizes=sent, inplace=inplace[rank] if inplace else request.inplace,
        )  # fmt: skip
        network.moves.append(moves)
        network.workspace.append(workspace)
    program = network.run()
    if averages:
        program = scaled(program, workers)
    program, workspace = compacted(needed(forwarded(merged(program))))
    return DevicePlan(algorithm.name, stepped(program), workspace)


def _block_bytes(
    request: Request, schedule: Schedule, rank: int, given: Sequence[Sequence[int]]
) -> tuple[list[int], list[int]]:
    """Of a rank's buffer blocks, and of its input blocks in an all_to_all."""
    itemsize = request.dtype.itemsize
    elements: Sequence[int] = request.elements
    sent: Sequence[int] = request.given
    if given:
        elements, sent = [row[rank] for row in given], given[rank]
    elif not COLLECTIVES[request.collective].per_rank:
        elements = shares(request.elements[0], schedule.blocks, itemsize)
    return [count * itemsize for count in elements], [count * itemsize for count in sent]


def shares(count: int, parts: int, itemsize: int) -> list[int]:
    """`count` elements in `parts` blocks of whole lines, as equal as can be; the last has what is left."""
    line = LINE // itemsize
    lines, rest = divmod(count, line)
    elements = [number * line for number in balanced(lines, parts)]
    elements[-1] += rest
    return elements


@dataclass(eq=False, slots=True)
class _Message:
    """Blocks on their way, which are still where they were sent from."""

    places: list[Place]
    lengths: tuple[int, ...]


@dataclass(slots=True)
class _Network:
    """Runs the moves of all ranks on paper, and writes down what they do to memory.

    What a rank overwrites before somebody has read it is set aside first, in the rank's workspace: at once, where its
    own round does so, as who does it would wait for all readers otherwise, and these perhaps for it.
    """

    workers: Sequence[int]
    moves: list[list[Move]] = field(default_factory=list)
    workspace: list[int] = field(default_factory=list)
    program: list[Fold] = field(default_factory=list)
    lanes: defaultdict[tuple[int, int], deque[_Message]] = field(default_factory=lambda: defaultdict(deque))
    unread: defaultdict[Place, dict[_Message, None]] = field(default_factory=lambda: defaultdict(dict))

    def run(self) -> list[Fold]:
        """Rank by rank as far as each comes, the last first: what goes from rank to rank in their order, as prefixes
        do, is read before it is overwritten."""
        left = {rank: deque(moves) for rank, moves in reversed(list(enumerate(self.moves)))}
        while any(left.values()):
            moved = False
            for rank, moves in left.items():
                while moves and self._done(rank, moves[0]):
                    moves.popleft()
                    moved = True
            if not moved:
                raise ValueError("the ranks' schedules wait for each other")
        return self.program

    def _done(self, rank: int, move: Move) -> bool:
        """Do the move, if all is there that it receives."""
        if not all(self.lanes[source.peer, rank] for source in move.sources if isinstance(source, Lane)):
            return False
        sources = [self._places(rank, source, move.lengths) for source in move.sources]
        for target in move.targets:
            if isinstance(target, Memory):
                self._fold(rank, sources, self._places(rank, target, move.lengths), move.lengths)
        peers = [target.peer for target in move.targets if isinstance(target, Lane)]
        if peers:
            (places,) = sources
            if not move.kept:
                places = [self._aside(place, n) if n else place for place, n in zip(places, move.lengths, strict=True)]
            for peer in peers:
                self._send(rank, peer, _Message(list(places), move.lengths))
        return True

    def _places(self, rank: int, operand: Operand, lengths: tuple[int, ...]) -> list[Place]:
        if isinstance(operand, Memory):
            return [Place(rank, space, offset) for space, offset in operand.spans]
        message = self.lanes[operand.peer, rank].popleft()
        if message.lengths != lengths:
            raise ValueError(f"rank {operand.peer} sends blocks of {message.lengths} bytes, {rank} receives {lengths}")
        for place in message.places:
            self.unread[place].pop(message, None)
        return message.places

    def _send(self, rank: int, peer: int, message: _Message) -> None:
        self.lanes[rank, peer].append(message)
        for place, length in zip(message.places, message.lengths, strict=True):
            if length:  # an empty block lies where its neighbour begins
                self.unread[place][message] = None

    def _fold(self, rank: int, sources: list[list[Place]], targets: list[Place], lengths: tuple[int, ...]) -> None:
        for *from_places, target, length in zip(*sources, targets, lengths, strict=True):
            if length:
                self._keep(target, length)
                self.program.append(Fold(tuple(from_places), (target,), length, self.workers[rank]))

    def _keep(self, place: Place, length: int) -> None:
        """Before it is overwritten."""
        messages = self.unread.pop(place, None)
        if messages:
            aside = self._aside(place, length)
            for message in messages:
                message.places = [aside if other == place else other for other in message.places]
                self.unread[aside][message] = None

    def _aside(self, place: Place, length: int) -> Place:
        aside = Place(place.rank, Space.WORKSPACE, self.workspace[place.rank])
        self.workspace[place.rank] += -(-length // GRAIN) * GRAIN
        self.program.append(Fold((place,), (aside,), length, self.workers[place.rank]))
        return aside
