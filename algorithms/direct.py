"""Direct exchange: one round in which everybody sends to everybody, and folds in rank order."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import Blocks, Copy, Recv, Schedule, Send, algorithm

SOURCE = "the one-shot and two-shot kernels of TensorRT-LLM and vLLM; linear in Open MPI"


def _others(rank: int, size: int) -> list[int]:
    """All other ranks, the next one first, so that not all send to the same rank at the same time."""
    return [(rank + step) % size for step in range(1, size)]


def _folded(blocks: Blocks, rank: int, size: int) -> list[Recv]:
    """Receives of everybody's `blocks`, folded in rank order around one's own."""
    return [
        Recv(blocks, source=peer, reduce="left" if peer < rank else "right") for peer in range(size) if peer != rank
    ]


@algorithm(
    "all_reduce",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: size - 1,
    wins="tiny buffers on few ranks: one round",
    source=SOURCE,
    ordered=True,
)
def all_reduce(rank: int, size: int) -> Schedule:
    """Everybody reads everybody's buffer and folds all of them in rank order."""
    schedule = Schedule(1)
    if size == 1:
        return schedule
    return schedule.round(*(Send(0, to=peer) for peer in _others(rank, size)), *_folded(0, rank, size))


@algorithm(
    "reduce_scatter",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: Fraction(size - 1, size),
    wins="small to medium buffers on few ranks: one round, the fewest bytes, rank order",
    source=SOURCE,
    ordered=True,
)
def reduce_scatter(rank: int, size: int) -> Schedule:
    """Send every rank its block and fold what comes for one's own."""
    schedule = Schedule(size)
    if size == 1:
        return schedule
    return schedule.round(*(Send(peer, to=peer) for peer in _others(rank, size)), *_folded(rank, rank, size))


@algorithm(
    "all_gather",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: Fraction(size - 1, size),
    wins="small blocks on few ranks, and any size where one publication serves all readers",
    source=SOURCE,
)
def all_gather(rank: int, size: int) -> Schedule:
    """Send one's own block to all."""
    schedule = Schedule(size)
    if size == 1:
        return schedule
    peers = _others(rank, size)
    return schedule.round(*(Send(rank, to=peer) for peer in peers), *(Recv(peer, source=peer) for peer in peers))


@algorithm(
    "all_reduce",
    "two_shot",
    rounds=lambda size: min(2 * (size - 1), 2),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="medium to large buffers on few ranks: two rounds, the fewest bytes, rank order",
    source=SOURCE,
    ordered=True,
)
def two_shot(rank: int, size: int) -> Schedule:
    """Direct reduce-scatter, then direct all-gather."""
    return reduce_scatter(rank, size).then(all_gather(rank, size))


@algorithm(
    "all_to_all",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: Fraction(size - 1, size),
    wins="small to medium blocks on few ranks: one round",
    source=SOURCE,
)
def all_to_all(rank: int, size: int) -> Schedule:
    """Send every rank its block at once."""
    schedule = Schedule(size)
    peers = _others(rank, size)
    return schedule.round(
        *(Send(schedule.scratch(peer), to=peer) for peer in peers),
        *(Recv(peer, source=peer) for peer in peers),
        Copy(schedule.scratch(rank), rank),
    )


@algorithm(
    "broadcast",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: size - 1,
    wins="any size on few ranks where one publication serves all readers",
    source=SOURCE,
)
def broadcast(rank: int, size: int) -> Schedule:
    """The root sends to all."""
    schedule = Schedule(1)
    if rank > 0:
        return schedule.round(Recv(0, source=0))
    return schedule.round(*(Send(0, to=peer) for peer in _others(rank, size)))


@algorithm(
    "reduce",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: min(size - 1, 1),
    wins="few ranks, and ops that need rank order: one round",
    source=SOURCE,
    ordered=True,
)
def reduce(rank: int, size: int, root: int = 0) -> Schedule:
    """All send to the root, which folds in rank order; rank order is why the real root is needed."""
    if rank != root:
        return Schedule(1).round(Send(0, to=root))
    return Schedule(1).round(*_folded(0, rank, size))


@algorithm(
    "scatter",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: Fraction(size - 1, size),
    wins="few ranks, or large blocks: no byte passes through a third rank",
    source=SOURCE,
)
def scatter(rank: int, size: int) -> Schedule:
    """The root sends every rank its block."""
    schedule = Schedule(size)
    if rank > 0:
        return schedule.round(Recv(rank, source=0))
    return schedule.round(*(Send(peer, to=peer) for peer in _others(rank, size)))


@algorithm(
    "gather",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: Fraction(min(size - 1, 1), size),
    wins="few ranks, or large blocks: no byte passes through a third rank",
    source=SOURCE,
)
def gather(rank: int, size: int) -> Schedule:
    """The scatter backwards."""
    return scatter(rank, size).reversed(reduce=False)


@algorithm(
    "scan",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: size - 1,
    wins="tiny buffers on few ranks: one round",
    source=SOURCE,
    ordered=True,
)
def scan(rank: int, size: int) -> Schedule:
    """Send to all ranks after oneself, and fold what those before have sent."""
    sends = [Send(0, to=peer) for peer in range(rank + 1, size)]
    return Schedule(1).round(*sends, *(Recv(0, source=peer, reduce="left") for peer in range(rank)))


@algorithm(
    "exscan",
    "direct",
    rounds=lambda size: min(size - 1, 1),
    volume=lambda size: size - 1,
    wins="tiny buffers on few ranks: one round",
    source=SOURCE,
    ordered=True,
)
def exscan(rank: int, size: int) -> Schedule:
    """As the scan; one's own contribution gives way to that of the rank before, and the others are put in front."""
    schedule = Schedule(1)
    landed = {peer: schedule.scratch(peer) for peer in range(rank - 1)}
    sends = [Send(0, to=peer) for peer in range(rank + 1, size)]
    recvs = [Recv(landed.get(peer, 0), source=peer) for peer in range(rank)]
    schedule.round(*sends, *recvs)
    return schedule.round(*(Copy(block, 0, reduce="left") for block in landed.values()))
