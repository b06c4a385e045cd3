"""Broadcast of large buffers: everybody helps the root to send."""

from __future__ import annotations

from fractions import Fraction

from collx.schedule import REGISTER, Op, Schedule, Send, algorithm


@algorithm(
    "broadcast",
    "scatter_gather",
    rounds=lambda size: 2 * (size - 1).bit_length(),
    volume=lambda size: Fraction(2 * (size - 1), size),
    wins="medium buffers on many ranks",
    source="Barnett, Gupta, Payne, Shuler, van de Geijn, Watts: Interprocessor collective communication library (1994)",
)
def broadcast(rank: int, size: int) -> Schedule:
    """Scatter the buffer over a tree, then all-gather it; the root, which has it all, is sent nothing back."""
    scatter = REGISTER["scatter", "tree"].build(rank, size)
    gather = REGISTER["all_gather", "circulant"].build(rank, size)

    def needed(op: Op) -> bool:
        return op.to != 0 if isinstance(op, Send) else rank != 0

    return scatter.then(Schedule(size, [tuple(filter(needed, ops)) for ops in gather.rounds]))
