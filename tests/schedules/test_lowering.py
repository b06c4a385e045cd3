"""Plans say all that an engine must know: run in any order they permit, they give NumPy's answer.

The engine here is the simplest there is and the most hostile: in one thread, it picks at random among all moves
of all ranks that may go next, and spoils what a plan calls transient.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest

from collx.plan import Lane, Memory, Move, Operand, lower
from collx.schedule import REGISTER, Algorithm, Copy, Recv, Schedule, Send
from collx.types import Array
from collx.verify import prove
from tests.calls import Call
from tests.oracle import expected, matrix_product, numpy_op
from tests.schedules.cases import KEYS, NAMES, SEED

POISON = 0x5A
ITEM = 8


@dataclass
class Rank:
    """One rank's plan, its memory by space, and how far it has come."""

    number: int
    moves: list[Move]
    spaces: list[Array]
    done: set[int] = field(default_factory=set)

    def lanes(self, operands: tuple[Operand, ...]) -> list[int]:
        return [operand.peer for operand in operands if isinstance(operand, Lane)]


class Simulation:
    def __init__(self, call: Call, given: list[Array], draw: random.Random) -> None:
        self.call, self.draw = call, draw
        self.queues: dict[tuple[int, int], deque[Array]] = {}
        self.ranks = [self.planned(rank, given[rank]) for rank in range(call.size)]

    def planned(self, rank: int, given: Array) -> Rank:
        call = self.call
        schedule = REGISTER[call.collective, call.algorithm].build(rank, call.size, call.root)
        sizes = [n * ITEM for n in call.blocks(rank, schedule.blocks)]
        given_sizes = [n * ITEM for n in call.matrix[rank]] if call.matrix else ()
        inplace, whole = call.placed(rank), call.op.function is not None
        moves, workspace = lower(
            schedule, call.collective, rank, call.size, call.root, sizes,
            given_sizes=given_sizes, inplace=inplace, whole=whole,
        )  # fmt: skip
        output = np.full(call.wanted(rank) * ITEM, POISON, np.uint8)
        source = given.copy().view(np.uint8)
        if inplace:
            before = sum(call.counts[:rank]) * ITEM if len(source) < len(output) else 0
            output[before : before + len(source)] = source
        return Rank(rank, moves, [source, output, np.full(workspace, POISON, np.uint8)])

    def run(self) -> list[Array]:
        while ready := [
            (rank, index) for rank in self.ranks for index in range(len(rank.moves)) if self.ready(rank, index)
        ]:
            self.execute(*self.draw.choice(ready))
        for rank in self.ranks:
            assert len(rank.done) == len(rank.moves), f"rank {rank.number} is stuck: {self.call}"
        assert not any(self.queues.values())
        return [rank.spaces[1].view(np.int64) for rank in self.ranks]

    def ready(self, rank: Rank, index: int, leader: int = -1) -> bool:
        move = rank.moves[index]
        if index in rank.done or not set(move.after) <= rank.done | {leader}:
            return False
        earlier = [m for i, m in enumerate(rank.moves[:index]) if i not in rank.done]
        sources, targets = rank.lanes(move.sources), rank.lanes(move.targets)
        if any(set(sources) & set(rank.lanes(m.sources)) or set(targets) & set(rank.lanes(m.targets)) for m in earlier):
            return False
        return all(self.queues.get((peer, rank.number)) for peer in sources)

    def execute(self, rank: Rank, index: int) -> None:
        move = rank.moves[index]
        follower = move.follower if move.follower >= 0 and self.ready(rank, move.follower, index) else -1
        values = [self.read(rank, source, move.lengths) for source in move.sources]
        result = reduce(numpy_op(self.call.op), (v.view(np.int64) for v in values)).view(np.uint8)
        spoilt = np.full_like(result, POISON)
        self.write(rank, move, spoilt if follower >= 0 and move.transient else result)
        rank.done.add(index)
        if follower >= 0:
            self.write(rank, rank.moves[follower], result)
            rank.done.add(follower)

    def read(self, rank: Rank, source: Operand, lengths: tuple[int, ...]) -> Array:
        if isinstance(source, Lane):
            return self.queues[source.peer, rank.number].popleft()
        parts = [rank.spaces[space][at : at + n] for (space, at), n in zip(source.spans, lengths, strict=True)]
        return np.concatenate([*parts, np.empty(0, np.uint8)])

    def write(self, rank: Rank, move: Move, value: Array) -> None:
        assert len(value) == sum(move.lengths)
        for target in move.targets:
            if isinstance(target, Lane):
                self.queues.setdefault((rank.number, target.peer), deque()).append(value.copy())
                continue
            assert isinstance(target, Memory)
            begin = 0
            for (space, at), length in zip(target.spans, move.lengths, strict=True):
                rank.spaces[space][at : at + length] = value[begin : begin + length]
                begin += length


def drawn_call(key: tuple[str, str], size: int, draw: random.Random) -> Call:
    """Uneven blocks, empty ones among them, but for algorithms that cannot have them."""
    collective, name = key
    uniform = REGISTER[key].uniform
    op = matrix_product() if REGISTER[key].ordered and draw.random() < 0.5 else Call(collective, name, size).op
    unit = 4 if op.function else 1

    def count() -> int:
        return 3 if uniform else unit * draw.choice([0, 0, 1, 2, 5])

    matrix = tuple(tuple(count() for _ in range(size)) for _ in range(size)) if collective == "all_to_all" else ()
    counts = () if collective in ("all_to_all", "barrier") else tuple(count() for _ in range(size))
    root = draw.randrange(size) if collective in ("broadcast", "reduce", "gather", "scatter") else 0
    return Call(
        collective, name, size, counts=counts, matrix=matrix, op=op, root=root, unit=unit, inplace=draw.random() < 0.5
    )


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
def test_plans_give_numpys_answer(key: tuple[str, str]) -> None:
    draw = random.Random(f"{SEED} {key}")
    for size in filter(REGISTER[key].sizes, range(1, 10)):
        for _ in range(4):
            call = drawn_call(key, size, draw)
            given = [
                np.random.default_rng(draw.randrange(1 << 32)).integers(-9, 9, call.given(rank)) for rank in range(size)
            ]
            outputs = Simulation(call, given, draw).run()
            for rank, wanted in enumerate(expected(call, given)):
                if (key[0], rank) != ("exscan", 0):
                    assert outputs[rank].tolist() == wanted.tolist(), f"rank {rank}, {call}, COLLX_TEST_SEED={SEED}"


def swapping(rank: int, size: int) -> Schedule:
    """An all_reduce of two ranks, the first of which swaps two blocks in one round."""
    schedule = Schedule(1)
    other = schedule.scratch(0)
    if rank == 1:
        return schedule.round(Send(0, to=0)).round(Recv(0, source=0))
    schedule.round(Recv(other, source=1)).round(Copy(0, other), Copy(other, 0))
    return schedule.round(Copy(other, 0, reduce="left")).round(Send(0, to=1))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_round_reads_what_the_round_before_left(inplace: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Algorithm(
        "all_reduce",
        "swapping",
        swapping,
        lambda size: 2,
        lambda size: Fraction(1),
        "",
        "",
        lambda size: size == 2,
        True,
    )
    prove(one, 2)
    monkeypatch.setitem(REGISTER, ("all_reduce", "swapping"), one)
    given = [np.array([3, 4]), np.array([30, 40])]
    for seed in range(10):
        call = Call("all_reduce", "swapping", 2, counts=(1, 1), inplace=inplace)
        outputs = Simulation(call, given, random.Random(seed)).run()
        assert [output.tolist() for output in outputs] == [[33, 44], [33, 44]]
