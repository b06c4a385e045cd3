"""The vocabulary of collective algorithms: Send, Recv and Copy, gathered in rounds into a Schedule.

A schedule says, for one rank, which blocks it sends, receives and copies in which round. It holds no
address, no dtype and no size in bytes. The same object is proved (`verify`), lowered (`plan`), priced,
explained and run.

Blocks are numbered. `0 .. blocks-1` cut the rank's working buffer; numbers from `blocks` on are scratch
(`Schedule.scratch(i)`), and scratch block i is as large as buffer block `i % blocks`. The working buffer
starts as the collective's input and ends as its result, see `collectives.py`; only all_to_all keeps them
apart: its input blocks are scratch blocks 0..size-1, its result is the buffer.

A round is concurrent: every Send and Copy in it reads what the round before left, every Recv and Copy
writes for the round after. Per round and peer there is at most one Send and one Recv.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache, wraps
from itertools import groupby
from typing import Literal, Self

Blocks = int | Iterable[int]
Order = Literal["left", "right"]


def _numbers(blocks: Blocks) -> tuple[int, ...]:
    return (blocks,) if isinstance(blocks, int) else tuple(blocks)


class Send:
    """Send `blocks` (a number, a range or a tuple, in that order) to rank `to`. Empty blocks: a bare signal."""

    __slots__ = ("blocks", "to")

    def __init__(self, blocks: Blocks, to: int) -> None:
        self.blocks = _numbers(blocks)
        self.to = to

    def __repr__(self) -> str:
        return f"Send({self.blocks}, to={self.to})"


class Recv:
    """Receive `blocks` from rank `source`; `reduce` combines them with what the blocks hold.

    `reduce="right"` (or True) makes it `block op received`, `"left"` makes it `received op block`. Several
    reducing receives into one block in one round are one fold from the left: the "left" ones in the order
    they are listed, then the block itself, then the "right" ones; they must name the same blocks.
    """

    __slots__ = ("blocks", "reduce", "source")

    def __init__(self, blocks: Blocks, source: int, reduce: Order | bool = False) -> None:
        self.blocks = _numbers(blocks)
        self.source = source
        self.reduce: Order | None = "right" if reduce is True else (reduce or None)

    def __repr__(self) -> str:
        order = f", reduce={self.reduce!r}" if self.reduce else ""
        return f"Recv({self.blocks}, source={self.source}{order})"


class Copy:
    """Copy blocks `src` onto blocks `dst` of the same rank; `reduce` as in Recv, with src as the received side."""

    __slots__ = ("dst", "reduce", "src")

    def __init__(self, src: Blocks, dst: Blocks, reduce: Order | bool = False) -> None:
        self.src = _numbers(src)
        self.dst = _numbers(dst)
        self.reduce: Order | None = "right" if reduce is True else (reduce or None)
        if len(self.src) != len(self.dst):
            raise ValueError(f"Copy of {len(self.src)} blocks onto {len(self.dst)}")

    def __repr__(self) -> str:
        order = f", reduce={self.reduce!r}" if self.reduce else ""
        return f"Copy({self.src}, {self.dst}{order})"


Op = Send | Recv | Copy


@dataclass(slots=True)
class Schedule:
    """One rank's rounds for one collective over a buffer cut into `blocks` blocks."""

    blocks: int
    rounds: list[tuple[Op, ...]] = field(default_factory=list)

    def round(self, *ops: Op) -> Self:
        """Append one round; with no ops the rank sits this round out."""
        self.rounds.append(ops)
        return self

    def scratch(self, index: int) -> int:
        """The number of scratch block `index`."""
        return self.blocks + index

    def then(self, other: Schedule) -> Schedule:
        """This schedule, and `other` after it, on the same blocks."""
        if other.blocks != self.blocks:
            raise ValueError(f"then() joins schedules of {self.blocks} and {other.blocks} blocks")
        return Schedule(self.blocks, self.rounds + other.rounds)

    def relabelled(self, order: Sequence[int]) -> Schedule:
        """The schedule with rank i played by rank `order[i]`; where blocks stand for ranks they follow.

        Called on the schedule of rank i this gives the schedule of rank `order[i]`.
        """
        if self.blocks != len(order):
            return self._played(order, lambda block: (block,), self.blocks)
        return self._played(
            order, lambda block: (block - block % self.blocks + order[block % self.blocks],), self.blocks
        )

    def embedded(self, ranks: Sequence[int], parts: Sequence[Iterable[int]], blocks: int) -> Schedule:
        """The schedule among some of more ranks: rank i is played by `ranks[i]`, and block i, scratch blocks counted
        on, stands for the blocks `parts[i]` of a buffer cut into `blocks`.

        What is left without blocks is not sent, and nothing is copied onto itself.
        """
        stood = [tuple(part) for part in parts]
        return self._played(ranks, stood.__getitem__, blocks)

    def _played(self, ranks: Sequence[int], stood: Callable[[int], tuple[int, ...]], blocks: int) -> Schedule:
        def named(numbers: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(block for number in numbers for block in stood(number))

        def renamed(op: Op) -> Op | None:
            match op:
                case Send():
                    sent = named(op.blocks)
                    return Send(sent, ranks[op.to]) if sent or not op.blocks else None
                case Recv():
                    received = named(op.blocks)
                    there = received or not op.blocks
                    return Recv(received, ranks[op.source], op.reduce or False) if there else None
                case Copy():
                    pairs = zip(named(op.src), named(op.dst), strict=True)
                    moved = [(src, dst) for src, dst in pairs if src != dst]
                    sources, targets = [src for src, _ in moved], [dst for _, dst in moved]
                    return Copy(sources, targets, op.reduce or False) if moved else None

        rounds = [tuple(new for op in ops if (new := renamed(op)) is not None) for ops in self.rounds]
        return Schedule(blocks, rounds)

    def reversed(self, reduce: Order | bool = "right") -> Schedule:
        """The schedule run backwards: what was received is sent, what was sent comes back and is reduced.

        Turns broadcast into reduce and all_gather into reduce_scatter; with `reduce=False` scatter into gather.
        Not for schedules with copies.
        """

        def turned(op: Op) -> Op:
            match op:
                case Send():
                    return Recv(op.blocks, source=op.to, reduce=reduce)
                case Recv(reduce=None):
                    return Send(op.blocks, to=op.source)
            raise ValueError(f"{op} has no reverse")

        return Schedule(self.blocks, [tuple(turned(op) for op in ops) for ops in reversed(self.rounds)])


def rotation(rank: int, size: int, root: int) -> list[int]:
    """The order that lets rank `root` play rank 0: place i is played by rank (i + root) % size."""
    return [(i + root) % size for i in range(size)]


# -- the register ------------------------------------------------------------------------------------

Builder = Callable[..., Schedule]
Groups = tuple[tuple[int, ...], ...]  # every rank once, in groups of those that sit near each other


def any_size(size: int) -> bool:
    """Sizes that most algorithms take: all of them."""
    return size >= 1


def powers_of_two(size: int) -> bool:
    """Sizes that are powers of two."""
    return size >= 1 and size & (size - 1) == 0


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A registered algorithm: its builder, its closed forms, and what a reader and the selector must know.

    `rounds(size)` is the longest chain of rounds over all ranks. `volume(size)` is the most that any rank
    sends, in units of the collective's buffer (the whole working buffer; for all_to_all one rank's input).
    `ordered` says that reductions keep rank order, as non-commutative ops need. `uniform` says that all
    blocks must be of one size, so the algorithm cannot serve v-variants. `wins` is one line on when to
    prefer it, `source` the paper or library it is from.

    An algorithm that sees groups of ranks has `over`, which gives the same one for the groups given: then `groups` has
    them, and it takes their size only; where they are of different sizes its closed forms are upper bounds. Without, it
    sees one group of all ranks.
    """

    collective: str
    name: str
    builder: Builder
    rounds: Callable[[int], int]
    volume: Callable[[int], Fraction]
    wins: str
    source: str
    sizes: Callable[[int], bool] = any_size
    ordered: bool = False
    uniform: bool = False
    groups: Groups = ()
    over: Callable[[Groups], Algorithm] | None = None

    @property
    def shipped(self) -> bool:
        """Whether it comes with collx, so that it was proved for every size and all ranks have it."""
        return getattr(self.builder, "__module__", "").startswith("collx.algorithms.")

    @property
    def exact(self) -> bool:
        """Whether the closed forms are just that, and no upper bounds."""
        return len(set(map(len, self.groups))) <= 1

    def build(self, rank: int, size: int, root: int = 0) -> Schedule:
        """The schedule of `rank`; builders without a `root` argument are relabelled so that `root` plays 0."""
        if _takes_root(self.builder):
            return self.builder(rank, size, root)
        if root == 0:
            return self.builder(rank, size)
        return self.builder((rank - root) % size, size).relabelled(rotation(rank, size, root))


@lru_cache(maxsize=1024)
def _takes_root(builder: Builder) -> bool:
    try:
        return "root" in inspect.signature(builder).parameters
    except ValueError:  # a function in C that does not tell its parameters
        return False


def largest_message(algorithm: Algorithm, size: int, root: int = 0) -> int:
    """The most blocks that any rank sends in one message. Builds every rank's schedule, once; for every root only of
    algorithms that see groups, as otherwise another root but lets ranks change places."""
    return _largest_message(algorithm, size, root if algorithm.over else 0)


@lru_cache(maxsize=4096)
def _largest_message(algorithm: Algorithm, size: int, root: int) -> int:
    rounds = (ops for rank in range(size) for ops in algorithm.build(rank, size, root).rounds)
    return max((len(op.blocks) for ops in rounds for op in ops if isinstance(op, Send)), default=0)


@lru_cache(maxsize=4096)
def along(algorithm: Algorithm, order: tuple[int, ...]) -> Algorithm:
    """The algorithm with its rank i played by rank `order[i]`, so that the neighbours in `order` are its neighbours."""
    places = {rank: place for place, rank in enumerate(order)}

    def build(rank: int, size: int, root: int) -> Schedule:
        return algorithm.build(places[rank], size, places[root]).relabelled(order)

    return replace(
        algorithm, builder=build, sizes=lambda size: size == len(order) and algorithm.sizes(size), ordered=False
    )


def grouped(members: Iterable[Hashable]) -> Groups:
    """The ranks by what `members` has for each, such as the name of its host, in the order of first mention."""
    groups = dict[Hashable, list[int]]()
    for rank, member in enumerate(members):
        groups.setdefault(member, []).append(rank)
    return tuple(map(tuple, groups.values()))


def runs(groups: Groups) -> Groups:
    """The groups cut into ranks that follow each other, in rank order."""
    group_of = {rank: number for number, group in enumerate(groups) for rank in group}
    return tuple(tuple(run) for _, run in groupby(range(len(group_of)), key=group_of.__getitem__))


REGISTER: dict[tuple[str, str], Algorithm] = {}


def algorithm(
    collective: str,
    name: str,
    *,
    rounds: Callable[[int], int],
    volume: Callable[[int], Fraction | int],
    wins: str,
    source: str,
    sizes: Callable[[int], bool] = any_size,
    ordered: bool = False,
    uniform: bool = False,
) -> Callable[[Builder], Builder]:
    """Register the decorated builder `(rank, size[, root]) -> Schedule` as `collective`'s algorithm `name`."""

    def register(builder: Builder) -> Builder:
        if (collective, name) in REGISTER:
            raise ValueError(f"{collective} has an algorithm {name!r} already")
        exact = lambda size: Fraction(volume(size))  # noqa: E731
        REGISTER[collective, name] = Algorithm(
            collective, name, builder, rounds, exact, wins, source, sizes, ordered, uniform
        )
        return builder

    return register


def over_groups(
    collective: str,
    name: str,
    *,
    rounds: Callable[[Groups], int],
    volume: Callable[[Groups], Fraction | int],
    wins: str,
    source: str,
    ordered: bool = False,
    uniform: bool = False,
) -> Callable[[Builder], Builder]:
    """Register the decorated builder `(rank, groups[, root]) -> Schedule`, as `algorithm` does. An `ordered` one is
    given the `runs` of the groups."""

    def register(builder: Builder) -> Builder:
        def of(groups: Callable[[int], Groups]) -> Algorithm:
            @wraps(builder)
            def build(rank: int, size: int, *root: int) -> Schedule:
                return builder(rank, groups(size), *root)

            exact = lambda size: Fraction(volume(groups(size)))  # noqa: E731
            longest = lambda size: rounds(groups(size))  # noqa: E731
            return Algorithm(collective, name, build, longest, exact, wins, source, ordered=ordered, uniform=uniform)

        @lru_cache(maxsize=1024)
        def over(groups: Groups) -> Algorithm:
            ranks = sorted(rank for group in groups for rank in group)
            if not all(groups) or ranks != list(range(len(ranks))):
                raise ValueError(f"groups must have every rank once, and none be empty: {groups}")
            groups = runs(groups) if ordered else groups
            return replace(of(lambda size: groups), groups=groups, sizes=lambda size: size == len(ranks), over=over)

        if (collective, name) in REGISTER:
            raise ValueError(f"{collective} has an algorithm {name!r} already")
        REGISTER[collective, name] = replace(of(lambda size: (tuple(range(size)),)), over=over)
        return builder

    return register
