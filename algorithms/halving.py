"""Recursive doubling and halving. Sizes that are no power of two fold first: of the first ranks every odd one
gives its part to the even one before it, and gets the result from there in the end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from collx.schedule import Blocks, Op, Recv, Schedule, Send, algorithm

SOURCE = "Rabenseifner: Optimization of collective reduction operations (ICCS 2004)"


def _levels(size: int) -> int:
    """How often the ranks that stay can be halved."""
    return size.bit_length() - 1


def _extra(size: int) -> int:
    """How many ranks fold away."""
    return size - (1 << _levels(size))


def _folds(rank: int, size: int) -> bool:
    return rank < 2 * _extra(size) and rank % 2 == 1


def _place(rank: int, size: int) -> int:
    """The place of a rank that stays among those that stay."""
    return rank // 2 if rank < 2 * _extra(size) else rank - _extra(size)


def _player(place: int, size: int) -> int:
    """The rank at a place."""
    return 2 * place if place < _extra(size) else place + _extra(size)


def _folding(rank: int, size: int, inner: Schedule, give: Callable[[int], Op], back: Callable[[int], Op]) -> Schedule:
    """`inner` for the ranks that stay; `give` and `back` are the ops before and after it, made for the other rank
    of a pair."""
    schedule = Schedule(inner.blocks)
    if _extra(size) == 0:
        return inner
    pair = [rank ^ 1] if rank < 2 * _extra(size) else []
    schedule.round(*(give(other) for other in pair))
    schedule.rounds += [()] * len(inner.rounds) if _folds(rank, size) else inner.rounds
    return schedule.round(*(back(other) for other in pair))


def _doubling(place: int, size: int, blocks: int, owned: Callable[[int], tuple[int, ...]]) -> Schedule:
    """All-gather of the `owned` blocks of every place, the far partner first and the longest message to the nearest."""
    schedule, held = Schedule(blocks), [place]
    for bit in reversed(range(_levels(size))):
        theirs = [mine ^ (1 << bit) for mine in held]
        peer = _player(place ^ (1 << bit), size)
        schedule.round(
            Send([block for mine in held for block in owned(mine)], to=peer),
            Recv([block for other in theirs for block in owned(other)], source=peer),
        )
        held += theirs
    return schedule


def _gathered(size: int) -> int:
    """The blocks that rank 0 sends in all_gather, which are the most."""
    levels, extra = _levels(size), _extra(size)
    return (1 << levels) - 1 + sum(-(-extra >> bit) for bit in range(1, levels + 1)) + (size - 1 if extra else 0)


@algorithm(
    "all_gather",
    "doubling",
    rounds=lambda size: _levels(size) + (2 if _extra(size) else 0),
    volume=lambda size: Fraction(_gathered(size), size),
    wins="powers of two: few rounds, and the long messages stay near",
    source=SOURCE,
)
def all_gather(rank: int, size: int) -> Schedule:
    """Exchange all that is held with partners at half the distance in every round."""

    def owned(place: int) -> tuple[int, ...]:
        player = _player(place, size)
        return (player, player + 1) if place < _extra(size) else (player,)

    def give(other: int) -> Op:
        return Send(rank, to=other) if _folds(rank, size) else Recv(other, source=other)

    def back(other: int) -> Op:
        if _folds(rank, size):
            return Recv([block for block in range(size) if block != rank], source=other)
        return Send([block for block in range(size) if block != other], to=other)

    return _folding(rank, size, _doubling(_place(rank, size), size, size, owned), give, back)


@algorithm(
    "reduce_scatter",
    "halving",
    rounds=lambda size: _levels(size) + (2 if _extra(size) else 0),
    volume=lambda size: Fraction(size - 1, size),
    wins="powers of two: few rounds, and the long messages stay near",
    source=SOURCE,
)
def reduce_scatter(rank: int, size: int) -> Schedule:
    """Doubling backwards: exchange half of what is left with partners at twice the distance in every round."""
    return all_gather(rank, size).reversed()


@algorithm(
    "all_reduce",
    "halving_doubling",
    rounds=lambda size: 2 * _levels(size) + (2 if _extra(size) else 0),
    volume=lambda size: 2 - Fraction(2, 1 << _levels(size)) + (1 if _extra(size) else 0),
    wins="medium to large buffers on powers of two",
    source=SOURCE,
)
def halving_doubling(rank: int, size: int) -> Schedule:
    """Halving to as many blocks as ranks stay, then doubling."""
    power = 1 << _levels(size)
    doubling = _doubling(_place(rank, size), size, power, lambda place: (place,))
    whole: Blocks = range(power)

    def give(other: int) -> Op:
        return Send(whole, to=other) if _folds(rank, size) else Recv(whole, source=other, reduce="right")

    def back(other: int) -> Op:
        return Recv(whole, source=other) if _folds(rank, size) else Send(whole, to=other)

    both = doubling.reversed().then(doubling)
    return _folding(rank, size, both, give, back)


@algorithm(
    "all_reduce",
    "recursive_doubling",
    rounds=lambda size: _levels(size) + (2 if _extra(size) else 0),
    volume=lambda size: _levels(size) + (1 if _extra(size) else 0),
    wins="small buffers: the fewest rounds on powers of two, rank order",
    source="Thakur, Rabenseifner, Gropp: Optimization of collective communication in MPICH (IJHPCA 2005), section 4.5",
    ordered=True,
)
def recursive_doubling(rank: int, size: int) -> Schedule:
    """Exchange the whole buffer with partners at twice the distance in every round."""
    place, exchanges = _place(rank, size), Schedule(1)
    for bit in range(_levels(size)):
        peer = _player(place ^ (1 << bit), size)
        exchanges.round(Send(0, to=peer), Recv(0, source=peer, reduce="right" if rank < peer else "left"))

    def give(other: int) -> Op:
        return Send(0, to=other) if _folds(rank, size) else Recv(0, source=other, reduce="right")

    def back(other: int) -> Op:
        return Recv(0, source=other) if _folds(rank, size) else Send(0, to=other)

    return _folding(rank, size, exchanges, give, back)
