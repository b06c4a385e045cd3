"""Hierarchies in which one rank of each group, its leader, speaks for all: as few messages as there can be between
groups, and every byte through few hands."""

from __future__ import annotations

from fractions import Fraction

from collx.algorithms.hierarchical import (
    SOURCE,
    across,
    far_rounds,
    from_root,
    group_of,
    largest,
    near,
    total,
    within,
)
from collx.schedule import REGISTER, Groups, Schedule, over_groups

_AGREE = REGISTER["all_reduce", "recursive_doubling"]


def _first_of_each(groups: Groups) -> Groups:
    return tuple(group[:1] for group in groups)


def _among_leaders(collective: str, rank: int, groups: Groups, parts: Groups, blocks: int) -> Schedule:
    if rank != group_of(rank, groups)[0]:
        return Schedule(blocks)
    return across(collective, rank, _first_of_each(groups), parts, blocks)


def _told(groups: Groups) -> Fraction:
    """What a leader sends to tell its group the whole buffer."""
    return max(near("broadcast", len(group)).volume(len(group)) for group in groups)


def _near_rounds(groups: Groups) -> int:
    return near("broadcast", largest(groups)).rounds(largest(groups))


@over_groups(
    "broadcast",
    "leaders",
    rounds=lambda groups: far_rounds(groups) + _near_rounds(groups),
    volume=lambda groups: far_rounds(groups) + _told(groups),
    wins="several hosts: the fewest messages between them, each segment on its way at once",
    source=SOURCE,
)
def broadcast(rank: int, groups: Groups, root: int) -> Schedule:
    """From the root to one rank of each other group over a tree, from there to its group."""
    groups = from_root(groups, root)
    first = _among_leaders("broadcast", rank, groups, ((0,),), 1)
    return first.then(within("broadcast", rank, groups, [[0]], 1))


@over_groups(
    "reduce",
    "leaders",
    rounds=lambda groups: far_rounds(groups) + _near_rounds(groups),
    volume=lambda groups: min(total(groups) - 1, 1),
    wins="several hosts: the fewest messages between them",
    source=SOURCE,
)
def reduce(rank: int, groups: Groups, root: int) -> Schedule:
    """The broadcast backwards."""
    return broadcast(rank, groups, root).reversed()


@over_groups(
    "all_reduce",
    "leaders",
    rounds=lambda groups: 2 * _near_rounds(groups) + _AGREE.rounds(len(groups)),
    volume=lambda groups: _AGREE.volume(len(groups)) + _told(groups),
    wins="small buffers on several hosts: the fewest messages between them",
    source=SOURCE,
)
def all_reduce(rank: int, groups: Groups) -> Schedule:
    """Reduce to the first of each group, recursive doubling among these, broadcast from them."""
    leaders = [group[0] for group in groups]
    schedule = within("reduce", rank, groups, [[0]], 1)
    if rank in leaders:
        agreed = _AGREE.build(leaders.index(rank), len(leaders)).embedded(leaders, [[0]], 1)
        schedule = schedule.then(agreed)
    return schedule.then(within("broadcast", rank, groups, [[0]], 1))


@over_groups(
    "all_gather",
    "leaders",
    rounds=lambda groups: (
        near("gather", largest(groups)).rounds(largest(groups)) + far_rounds(groups) + _near_rounds(groups)
    ),
    volume=lambda groups: Fraction((len(groups) - 1) * largest(groups), total(groups)) + _told(groups),
    wins="small blocks on several hosts: the fewest messages between them",
    source=SOURCE,
)
def all_gather(rank: int, groups: Groups) -> Schedule:
    """Gather to the first of each group, all-gather among these, broadcast from them."""
    size, group = total(groups), group_of(rank, groups)
    gathered = within("gather", rank, groups, [[member] for member in group], size)
    exchanged = gathered.then(_among_leaders("all_gather", rank, groups, groups, size))
    return exchanged.then(within("broadcast", rank, groups, [range(size)], size))


def _handed_out(groups: Groups) -> Fraction:
    """What the busiest sends: who is no leader the whole buffer, and what it passes on in the end."""
    most = largest(groups)
    passed = near("gather", most).volume(most) * most - 1
    return (total(groups) + passed if most > 1 else Fraction(total(groups) - 1)) / total(groups)


@over_groups(
    "reduce_scatter",
    "leaders",
    rounds=lambda groups: (
        near("gather", largest(groups)).rounds(largest(groups)) + far_rounds(groups) + _near_rounds(groups)
    ),
    volume=_handed_out,
    wins="small buffers on several hosts: the fewest messages between them",
    source=SOURCE,
)
def reduce_scatter(rank: int, groups: Groups) -> Schedule:
    """Reduce to the first of each group, reduce-scatter among these, scatter from them."""
    size, group = total(groups), group_of(rank, groups)
    reduced = within("reduce", rank, groups, [range(size)], size)
    shared = reduced.then(_among_leaders("all_gather", rank, groups, groups, size).reversed())
    return shared.then(within("scatter", rank, groups, [[member] for member in group], size))
