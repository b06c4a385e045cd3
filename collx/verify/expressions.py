"""Symbolic values: what a block holds, as the tree of contributions that were combined into it.

Trees are hash-consed: equal trees are the same number, so that proofs compare numbers.
"""

from __future__ import annotations

LIMIT = 1 << 32  # more trees than memory holds


class Expressions:
    """All values that occur in one proof. A value is a number; the lists tell what it stands for.

    `block` is the block whose contributions it combines, `ranks` the ranks they are from as a set of bits,
    `shape` the first value that equals it but for swapped operands: floating-point results are equal bit by
    bit where shapes are. `span` is (low, high) where its leaves are the ranks low..high-1 from left to right.
    """

    __slots__ = ("_joined", "_leaves", "_shapes", "block", "ranks", "shape", "span")

    def __init__(self) -> None:
        self.block: list[int] = []
        self.ranks: list[int] = []
        self.shape: list[int] = []
        self.span: list[tuple[int, int] | None] = []
        self._leaves: dict[tuple[int, int], int] = {}
        self._joined: dict[int, int] = {}
        self._shapes: dict[int, int] = {}

    def _added(self, block: int, ranks: int, span: tuple[int, int] | None) -> int:
        self.block.append(block)
        self.ranks.append(ranks)
        self.span.append(span)
        return len(self.ranks) - 1

    def leaf(self, rank: int, block: int) -> int:
        """What `rank` contributes to `block`."""
        value = self._leaves.get((rank, block))
        if value is None:
            value = self._leaves[rank, block] = self._added(block, 1 << rank, (rank, rank + 1))
            self.shape.append(value)
        return value

    def join(self, left: int, right: int) -> int:
        """`left op right`. Raises ValueError where they are of different blocks or share a contribution."""
        value = self._joined.get(left * LIMIT + right)
        return self._new(left, right) if value is None else value

    def _new(self, left: int, right: int) -> int:
        if self.block[left] != self.block[right]:
            raise ValueError(f"{self.told(left)} would be reduced with {self.told(right)}")
        if self.ranks[left] & self.ranks[right]:
            twice = told_ranks(self.ranks[left] & self.ranks[right])
            raise ValueError(f"block {self.block[left]} would take in the contribution of {twice} twice")
        before, after = self.span[left], self.span[right]
        span = (before[0], after[1]) if before and after and before[1] == after[0] else None
        value = self._added(self.block[left], self.ranks[left] | self.ranks[right], span)
        one, two = self.shape[left], self.shape[right]
        self.shape.append(self._shapes.setdefault(min(one, two) * LIMIT + max(one, two), value))
        self._joined[left * LIMIT + right] = value
        return value

    def told(self, value: int) -> str:
        """A value in words."""
        return f"block {self.block[value]} of {told_ranks(self.ranks[value])}"


def told_ranks(ranks: int) -> str:
    """A set of ranks in words, the first few by number."""
    members = [rank for rank in range(ranks.bit_length()) if ranks >> rank & 1]
    if len(members) == 1:
        return f"rank {members[0]}"
    if len(members) > 6:
        return f"{len(members)} ranks ({', '.join(map(str, members[:5]))}, ...)"
    return f"ranks {', '.join(map(str, members))}"
