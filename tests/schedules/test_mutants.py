"""The prover proves something: schedules spoilt at random are rejected, or do the same work by the same proof."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from collx.collectives import COLLECTIVES
from collx.errors import ScheduleError
from collx.schedule import REGISTER, Copy, Op, Recv, Schedule, Send
from collx.verify.proof import Proof, prove_schedules
from tests.schedules.cases import KEYS, SEED, schedules

MUTANTS = 600


def test_mutants_are_rejected_or_equivalent() -> None:
    draw = random.Random(SEED)
    print(f"COLLX_TEST_SEED={SEED}")
    fates: Counter[str] = Counter()
    while sum(fates.values()) < MUTANTS:
        key = draw.choice(KEYS)
        algorithm = REGISTER[key]
        size = draw.choice([size for size in range(2, 12) if algorithm.sizes(size)])
        root = draw.randrange(size) if COLLECTIVES[key[0]].rooted else 0
        mutant = schedules(algorithm, size, root)
        proof = prove_schedules(key[0], mutant, root, uniform=algorithm.uniform)
        if (what := spoil(mutant, draw)) is not None:
            told = f"{key} on {size} ranks, root {root}, {what}"
            fates[fate(key[0], mutant, root, algorithm.uniform, algorithm.ordered, proof, told)] += 1
    print(dict(fates))
    assert fates["rejected"] >= 300


def fate(
    collective: str, mutant: list[Schedule], root: int, uniform: bool, ordered: bool, proof: Proof, told: str
) -> str:
    """`rejected`, or why the mutant is equivalent: it is proved to do what the original does."""
    try:
        found = prove_schedules(collective, mutant, root, uniform=uniform)
    except ScheduleError:
        return "rejected"
    if (found.rounds, found.volume) != (proof.rounds, proof.volume) or (ordered and not found.ordered):
        return "rejected"
    assert runs_right(collective, mutant, root), f"{told}: proved, but wrong"
    return "equivalent"


def spoil(mutant: list[Schedule], draw: random.Random) -> str | None:
    """Change one thing in one rank's schedule; None where the change drawn changes nothing."""
    rank = draw.randrange(len(mutant))
    places = [(number, index) for number, ops in enumerate(mutant[rank].rounds) for index in range(len(ops))]
    if not places:
        return None
    number, index = draw.choice(places)
    rounds = mutant[rank].rounds
    ops = list(rounds[number])
    kind = draw.choice(["drop", "redirect", "swap", "duplicate", "block", "reduce", "order", "later"])
    before = repr(rounds)
    if kind == "drop":
        del ops[index]
    elif kind == "redirect":
        ops[index] = redirected(ops[index], draw.randrange(len(mutant)))
    elif kind == "swap":
        other = draw.randrange(len(rounds))
        rounds[number], rounds[other] = rounds[other], rounds[number]
        ops = list(rounds[number])
    elif kind == "duplicate":
        rounds.insert(draw.randrange(len(rounds) + 1), (ops[index],))
        return f"rank {rank}: {ops[index]} of round {number} twice"
    elif kind == "block":
        ops[index] = with_other_block(ops[index], mutant[rank].blocks, draw)
    elif kind == "reduce":
        ops[index] = with_reduce(ops[index], draw.choice(("", "left", "right")))
    elif kind == "order":
        ops[index] = with_blocks_shuffled(ops[index], draw)
    else:
        rounds.insert(number + 1, (ops.pop(index),))
    rounds[number] = tuple(ops)
    return f"rank {rank}, round {number}: {kind}" if repr(rounds) != before else None


def redirected(op: Op, peer: int) -> Op:
    if isinstance(op, Send):
        return Send(op.blocks, to=peer)
    return Recv(op.blocks, source=peer, reduce=op.reduce or False) if isinstance(op, Recv) else op


def with_reduce(op: Op, reduce: str) -> Op:
    if isinstance(op, Recv):
        return Recv(op.blocks, source=op.source, reduce=reduce)  # type: ignore[arg-type]
    return Copy(op.src, op.dst, reduce) if isinstance(op, Copy) else op  # type: ignore[arg-type]


def _changed(blocks: tuple[int, ...], cut: int, draw: random.Random) -> tuple[int, ...]:
    if not blocks:
        return (draw.randrange(cut),)
    index = draw.randrange(len(blocks))
    return (*blocks[:index], draw.randrange(2 * cut), *blocks[index + 1 :])


def with_other_block(op: Op, cut: int, draw: random.Random) -> Op:
    if isinstance(op, Send):
        return Send(_changed(op.blocks, cut, draw), to=op.to)
    if isinstance(op, Recv):
        return Recv(_changed(op.blocks, cut, draw), source=op.source, reduce=op.reduce or False)
    return Copy(_changed(op.src, cut, draw), op.dst, op.reduce or False)


def with_blocks_shuffled(op: Op, draw: random.Random) -> Op:
    if isinstance(op, Copy):
        return op
    blocks = draw.sample(op.blocks, len(op.blocks))
    if isinstance(op, Send):
        return Send(blocks, to=op.to)
    return Recv(blocks, source=op.source, reduce=op.reduce or False)


def runs_right(collective: str, mutant: list[Schedule], root: int) -> bool:
    """Run it once more by another way: on sets of (rank, block) in plain dictionaries, round by round."""
    spec, size, cut = COLLECTIVES[collective], len(mutant), mutant[0].blocks
    held = [{b: frozenset([(r, b)]) for b in spec.before(r, size, root, cut)} for r in range(size)]
    queues: dict[tuple[int, int], list[list[frozenset[tuple[int, int]]]]] = {}
    at, posted = [0] * size, [False] * size
    progress = True
    while progress:
        progress = False
        for rank in range(size):
            if at[rank] == len(mutant[rank].rounds):
                continue
            ops, held_before = mutant[rank].rounds[at[rank]], dict(held[rank])
            if not posted[rank]:
                for op in ops:
                    if isinstance(op, Send):
                        queues.setdefault((rank, op.to), []).append([held_before[b] for b in op.blocks])
                posted[rank] = progress = True
            recvs = [op for op in ops if isinstance(op, Recv)]
            if not all(queues.get((op.source, rank)) for op in recvs):
                continue
            for op in ops:
                if isinstance(op, Recv):
                    arrived, into = queues[op.source, rank].pop(0), op.blocks
                elif isinstance(op, Copy):
                    arrived, into = [held_before[b] for b in op.src], op.dst
                else:
                    continue
                for block, value in zip(into, arrived, strict=True):
                    held[rank][block] = value | held[rank][block] if op.reduce else value
            at[rank], posted[rank], progress = at[rank] + 1, False, True
    return all(
        held[rank][block] == wanted(collective, rank, size, root, block)
        for rank in range(size)
        for block in spec.after(rank, size, root, cut)
        if (collective, rank) != ("exscan", 0)
    )


def wanted(collective: str, rank: int, size: int, root: int, block: int) -> frozenset[tuple[int, int]]:
    result = COLLECTIVES[collective].result
    if result == "reduction":
        return frozenset((peer, block) for peer in range(size))
    if result == "prefix":
        return frozenset((peer, block) for peer in range(rank + (collective == "scan")))
    if result == "exchange":
        return frozenset([(block, size + rank)])
    return frozenset([(root if collective in ("broadcast", "scatter") else block, block)])


@pytest.mark.parametrize(
    "key", [("all_reduce", "ring"), ("broadcast", "circulant"), ("all_to_all", "bruck")], ids=":".join
)
def test_every_dropped_op_is_missed(key: tuple[str, str]) -> None:
    algorithm, size = REGISTER[key], 6
    for rank in range(size):
        for number, ops in enumerate(algorithm.build(rank, size).rounds):
            for index in range(len(ops)):
                mutant = schedules(algorithm, size)
                mutant[rank].rounds[number] = ops[:index] + ops[index + 1 :]
                with pytest.raises(ScheduleError):
                    prove_schedules(key[0], mutant, uniform=algorithm.uniform)
