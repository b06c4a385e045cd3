"""Hierarchies over groups of ranks, such as those of one host: the algorithms for few ranks within each group, and
across groups in *lanes*, one rank of each. There are as many lanes as the smallest group has ranks; the others of a
larger one give and get what is theirs within it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from collx.schedule import REGISTER, Algorithm, Groups, Recv, Schedule, Send, over_groups

SOURCE = (
    "Karonis et al.: Exploiting hierarchy in parallel computer networks (IPDPS 2000); Cho et al.: BlueConnect (2019)"
)
FEW = 16  # ranks that do best where each talks to each

_FAR = {"all_gather": "pat", "all_reduce": "pat", "broadcast": "tree", "barrier": "dissemination"}
_MANY = {"all_gather": "pat", "reduce_scatter": "pat", "all_to_all": "pairwise"}


def near(collective: str, size: int) -> Algorithm:
    """What ranks of one group do, and those of few groups where no rank need pass anything on."""
    return REGISTER[collective, "direct" if size <= FEW else _MANY.get(collective, "tree")]


def far(collective: str, count: int) -> Algorithm:
    """What a lane does: few messages."""
    return REGISTER[collective, _FAR[collective]] if collective in _FAR else near(collective, count)


def group_of(rank: int, groups: Groups) -> tuple[int, ...]:
    return next(group for group in groups if rank in group)


def from_root(groups: Groups, root: int) -> Groups:
    """The groups with the root's first, and the root first in it."""
    first = group_of(root, groups)
    others = (group for group in groups if group is not first)
    return ((root, *(rank for rank in first if rank != root)), *others)


def within(collective: str, rank: int, groups: Groups, parts: Sequence[Iterable[int]], blocks: int) -> Schedule:
    """The group of `rank` runs a collective, in which block i stands for `parts[i]`."""
    group = group_of(rank, groups)
    return near(collective, len(group)).build(group.index(rank), len(group)).embedded(group, parts, blocks)


def across(collective: str, rank: int, groups: Groups, parts: Sequence[Iterable[int]], blocks: int) -> Schedule:
    """The lane of `rank`, if it is on one, runs a collective, in which block i stands for `parts[i]`."""
    place = group_of(rank, groups).index(rank)
    if place >= lanes(groups):
        return Schedule(blocks)
    heads = [group[place] for group in groups]
    return far(collective, len(heads)).build(heads.index(rank), len(heads)).embedded(heads, parts, blocks)


def lanes(groups: Groups) -> int:
    return min(map(len, groups))


def largest(groups: Groups) -> int:
    return max(map(len, groups))


def total(groups: Groups) -> int:
    return sum(map(len, groups))


def near_rounds(groups: Groups) -> int:
    """Those of one collective within the groups."""
    return near("all_gather", largest(groups)).rounds(largest(groups))


def far_rounds(groups: Groups) -> int:
    """Those of one collective across, where what is known doubles in each."""
    return (len(groups) - 1).bit_length()


def _carried(rank: int, groups: Groups) -> list[list[int]]:
    """For each group, whose blocks the lane of `rank` carries: its rank there, and some of those without a lane."""
    place, count = group_of(rank, groups).index(rank), lanes(groups)
    return [list(group[place::count]) if place < count else [] for group in groups]


def _brought(rank: int, groups: Groups) -> list[list[int]]:
    """For each rank of the group of `rank`, the blocks of other groups that it has from its lane."""
    group, count = group_of(rank, groups), lanes(groups)
    others = [other for other in groups if other is not group]
    return [
        [block for other in others for block in other[place::count]] if place < count else []
        for place in range(len(group))
    ]


def _pieces(place: int, groups: Groups) -> range:
    """The blocks of one lane, as many as there are groups."""
    return range(place * len(groups), (place + 1) * len(groups)) if place < lanes(groups) else range(0)


@over_groups(
    "all_reduce",
    "hierarchical",
    rounds=lambda groups: 2 * near_rounds(groups) + 2 * far_rounds(groups),
    volume=lambda groups: (2 * (largest(groups) - 1) + Fraction(2 * (len(groups) - 1), len(groups))) / lanes(groups),
    wins="medium to large buffers on several hosts, in whatever order their ranks come",
    source=SOURCE,
)
def all_reduce(rank: int, groups: Groups) -> Schedule:
    """Reduce-scatter within each group, all-reduce each share across groups, all-gather within."""
    place, blocks = group_of(rank, groups).index(rank), lanes(groups) * len(groups)
    shares = [_pieces(other, groups) for other in range(largest(groups))]
    pieces = [[block] for block in shares[place]]
    scattered = within("reduce_scatter", rank, groups, shares, blocks)
    reduced = scattered.then(across("all_reduce", rank, groups, pieces, blocks))
    return reduced.then(within("all_gather", rank, groups, shares, blocks))


def _gather_volume(groups: Groups) -> Fraction:
    most, count = largest(groups), len(groups)
    carried = -(-most // lanes(groups))
    return Fraction(most - 1 + (count - 1) * carried + (most - 1) * (count - 1) * carried, total(groups))


@over_groups(
    "all_gather",
    "hierarchical",
    rounds=lambda groups: near_rounds(groups) * (1 + (len(groups) > 1)) + far_rounds(groups),
    volume=_gather_volume,
    wins="medium to large blocks on several hosts, in whatever order their ranks come",
    source=SOURCE,
)
def all_gather(rank: int, groups: Groups) -> Schedule:
    """All-gather within each group, exchange with one rank of each other group, all-gather what that brought."""
    size = total(groups)
    own = within("all_gather", rank, groups, [[member] for member in group_of(rank, groups)], size)
    exchanged = own.then(across("all_gather", rank, groups, _carried(rank, groups), size))
    return exchanged.then(within("all_gather", rank, groups, _brought(rank, groups), size))


@over_groups(
    "reduce_scatter",
    "hierarchical",
    rounds=lambda groups: near_rounds(groups) * (1 + (len(groups) > 1)) + far_rounds(groups),
    volume=lambda groups: Fraction(total(groups) - 1, total(groups)),
    wins="medium to large buffers on several hosts, in whatever order their ranks come",
    source=SOURCE,
)
def reduce_scatter(rank: int, groups: Groups) -> Schedule:
    """The all-gather backwards: only what a group has reduced of others' blocks leaves it."""
    return all_gather(rank, groups).reversed()


def _broadcast_volume(groups: Groups) -> Fraction:
    count = lanes(groups)
    first = max(near("broadcast", len(group)).volume(len(group)) for group in groups)
    return max(first, Fraction(largest(groups) - 1, count)) + Fraction(far_rounds(groups), count)


@over_groups(
    "broadcast",
    "hierarchical",
    rounds=lambda groups: near_rounds(groups) * (1 + (len(groups) > 1)) + far_rounds(groups),
    volume=_broadcast_volume,
    wins="large buffers on several hosts with more than one connection's worth of network",
    source=SOURCE,
)
def broadcast(rank: int, groups: Groups, root: int) -> Schedule:
    """Broadcast within the root's group; each of it sends a share across; the other groups all-gather the shares."""
    groups, blocks = from_root(groups, root), lanes(groups)
    group = group_of(rank, groups)
    place = group.index(rank)
    shares = [[other] if other < blocks else [] for other in range(len(group))]
    first = within("broadcast", rank, groups, [range(blocks)], blocks) if group is groups[0] else Schedule(blocks)
    shared = first.then(across("broadcast", rank, groups, [[place]], blocks))
    return shared if group is groups[0] else shared.then(within("all_gather", rank, groups, shares, blocks))


@over_groups(
    "reduce",
    "hierarchical",
    rounds=lambda groups: near_rounds(groups) * (1 + (len(groups) > 1)) + far_rounds(groups),
    volume=lambda groups: min(total(groups) - 1, 1),
    wins="large buffers on several hosts with more than one connection's worth of network",
    source=SOURCE,
)
def reduce(rank: int, groups: Groups, root: int) -> Schedule:
    """The broadcast backwards."""
    return broadcast(rank, groups, root).reversed()


def _passed_on(groups: Groups) -> Fraction:
    """The most blocks that pass through a rank which is not the root."""
    size, count, carried = largest(groups), len(groups), -(-largest(groups) // lanes(groups))
    inside = near("gather", size).volume(size) * size * (1 + (count - 1) * carried)
    return max(inside, far("gather", count).volume(count) * count * carried) / total(groups)


@over_groups(
    "scatter",
    "hierarchical",
    rounds=lambda groups: (
        near("scatter", largest(groups)).rounds(largest(groups))
        + far("scatter", len(groups)).rounds(len(groups))
        + (largest(groups) > lanes(groups))
    ),
    volume=lambda groups: Fraction(total(groups) - 1, total(groups)),
    wins="small blocks on several hosts: the root's group shares the messages to the others",
    source=SOURCE,
)
def scatter(rank: int, groups: Groups, root: int) -> Schedule:
    """Scatter within the root's group what each rank's lane takes, then along the lanes; others get it last."""
    groups, size, count = from_root(groups, root), total(groups), lanes(groups)
    group = group_of(rank, groups)
    place = group.index(rank)
    schedule = Schedule(size)
    if group is groups[0]:
        due = [[member, *brought] for member, brought in zip(group, _brought(rank, groups), strict=True)]
        schedule = within("scatter", rank, groups, due, size)
    schedule = schedule.then(across("scatter", rank, groups, _carried(rank, groups), size))
    if group is groups[0] or len(group) == count:
        return schedule
    if place < count:
        return schedule.round(*(Send(member, to=member) for member in group[place + count :: count]))
    return schedule.round(Recv(rank, source=group[place % count]))


@over_groups(
    "gather",
    "hierarchical",
    rounds=lambda groups: (
        near("scatter", largest(groups)).rounds(largest(groups))
        + far("scatter", len(groups)).rounds(len(groups))
        + (largest(groups) > lanes(groups))
    ),
    volume=_passed_on,
    wins="small blocks on several hosts: the root's group shares the messages from the others",
    source=SOURCE,
)
def gather(rank: int, groups: Groups, root: int) -> Schedule:
    """The scatter backwards."""
    return scatter(rank, groups, root).reversed(reduce=False)


def _exchanged(groups: Groups) -> Fraction:
    """What a rank sends within its group, and then across for all of it."""
    size = total(groups)
    first = [(len(group), sum(-(-len(other) // len(group)) for other in groups)) for group in groups]
    return Fraction(max(size - served + (served - 1) * members for members, served in first), size)


@over_groups(
    "all_to_all",
    "hierarchical",
    rounds=lambda groups: near("all_to_all", largest(groups)).rounds(largest(groups)) + len(groups) - 1,
    volume=_exchanged,
    wins="small blocks on several hosts: a message between two hosts carries the blocks of all ranks of one",
    source=SOURCE,
    uniform=True,
)
def all_to_all(rank: int, groups: Groups) -> Schedule:
    """Hand each block to the rank of one's group that serves its receiver, which sends it what the group has for it."""
    schedule, group = Schedule(total(groups)), group_of(rank, groups)
    place, mine = group.index(rank), groups.index(group)

    def served(member: int) -> list[int]:
        return [receiver for other in groups for receiver in other[member :: len(group)]]

    def held(sender: int, receiver: int) -> int:
        if receiver == rank:
            return sender
        return schedule.scratch(receiver if sender == rank else schedule.blocks * (1 + group.index(sender)) + receiver)

    taken = [[held(sender, receiver) for receiver in served(place)] for sender in group]
    given = [[schedule.scratch(receiver) for receiver in served(member)] for member in range(len(group))]
    schedule = within("all_to_all", rank, groups, taken + given, schedule.blocks)
    for step in range(1, len(groups)):
        to, source = groups[(mine + step) % len(groups)], groups[(mine - step) % len(groups)]
        sends = [Send([held(sender, one) for sender in group], to=one) for one in to[place :: len(group)]]
        schedule.round(*sends, Recv(source, source=source[place % len(source)]))
    return schedule


@over_groups(
    "barrier",
    "hierarchical",
    rounds=lambda groups: 2 * (largest(groups) > 1) + far_rounds(groups),
    volume=lambda groups: 0,
    wins="several hosts: one rank of each speaks for all",
    source=SOURCE,
)
def barrier(rank: int, groups: Groups) -> Schedule:
    """Signals to the first of each group, dissemination among these, signals back."""
    group = group_of(rank, groups)
    leader, *others = group
    down = Schedule(1)
    if rank != leader:
        down.round(Recv((), source=leader))
    elif others:
        down.round(*(Send((), to=other) for other in others))
    up = down.reversed(reduce=False)
    leaders = tuple((each[0],) for each in groups)
    return up.then(across("barrier", rank, leaders, [[0]], 1)).then(down) if rank == leader else up.then(down)
