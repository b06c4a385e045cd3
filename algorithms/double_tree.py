"""Two binary trees over the same ranks, half of the buffer down each: who is inner in one is a leaf in the other,
so every rank sends and receives all the time."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Recv, Schedule, Send, algorithm

SOURCE = "Sanders, Speck, Träff: Two-tree algorithms for full bandwidth broadcast, reduction and scan (2009)"


def _middle(low: int, high: int, tree: int) -> int:
    """The root of the subtree over ranks low..high-1: in tree 0 even ranks are inner, in tree 1 odd ones."""
    inner = range(low + (low + tree) % 2, high, 2)
    return inner[len(inner) // 2] if inner else low


def _family(rank: int, low: int, high: int, tree: int, above: int) -> tuple[int, list[int], int]:
    """Parent, children and depth of `rank` in the tree over low..high-1, whose root has parent `above`."""
    parent, depth = above, 0
    while (node := _middle(low, high, tree)) != rank:
        low, high = (low, node) if rank < node else (node + 1, high)
        parent, depth = node, depth + 1
    return parent, [_middle(a, b, tree) for a, b in ((low, rank), (rank + 1, high)) if a < b], depth


def _height(size: int) -> int:
    """The rounds it takes to reach all ranks from the roots of both trees."""
    return (size + 1).bit_length() - 1 if size > 1 else 0


def _down(rank: int, first: int, size: int) -> Schedule:
    """Block t from the root of tree t to all; the trees span the ranks from `first` on."""
    families = [_family(rank, first, size, tree, -1) for tree in (0, 1)]
    schedule = Schedule(2)
    for step in range(_height(size - first)):
        sends = [Send(t, to=c) for t, (_, children, depth) in enumerate(families) if depth == step for c in children]
        recvs = [Recv(t, source=parent) for t, (parent, _, depth) in enumerate(families) if depth == step + 1]
        schedule.round(*sends, *recvs)
    return schedule


@algorithm(
    "all_reduce",
    "double_tree",
    rounds=lambda size: 2 * _height(size),
    volume=lambda size: Fraction(min(size, 4), 2) if size > 1 else 0,
    wins="medium buffers on many ranks: few rounds and every link in use",
    source=SOURCE,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Reduce half of the buffer up each tree, then broadcast it down the same tree."""
    down = _down(rank, 0, size)
    return down.reversed().then(down)


@algorithm(
    "broadcast",
    "double_tree",
    rounds=lambda size: 1 + _height(size - 1) if size > 1 else 0,
    volume=lambda size: min(size - 1, 1),
    wins="medium to large buffers on many ranks: few rounds, and no rank sends more than the buffer",
    source=SOURCE,
)
def broadcast(rank: int, size: int) -> Schedule:
    """The root hands one half to the root of each tree over the other ranks."""
    schedule = Schedule(2)
    if size == 1:
        return schedule
    roots = [_middle(1, size, tree) for tree in (0, 1)]
    halves = {peer: [t for t in (0, 1) if roots[t] == peer] for peer in roots}
    if rank == 0:
        schedule.round(*(Send(blocks, to=peer) for peer, blocks in halves.items()))
        return schedule.then(Schedule(2, [()] * _height(size - 1)))
    schedule.round(*([Recv(halves[rank], source=0)] if rank in halves else []))
    return schedule.then(_down(rank, 1, size))


@algorithm(
    "reduce",
    "double_tree",
    rounds=lambda size: 1 + _height(size - 1) if size > 1 else 0,
    volume=lambda size: min(size - 1, 1),
    wins="medium to large buffers on many ranks: few rounds, and no rank sends more than the buffer",
    source=SOURCE,
)
def reduce(rank: int, size: int) -> Schedule:
    """The broadcast backwards."""
    return broadcast(rank, size).reversed()
