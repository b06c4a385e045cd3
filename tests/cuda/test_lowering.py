"""Plans for GPUs say all that ranks must wait for: whoever does its part of a step first, the result is NumPy's.

Here a plan is run on memory in which input and output may be one, as a user's may. Ranks do their parts of a step one
after the other, in random order, and no two may touch the same byte in it that one of them writes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from collx.collectives import COLLECTIVES
from collx.cuda.lowering import LINE, lower, shares
from collx.cuda.plan import DevicePlan, Fold, Place, Step
from collx.plan import Space
from collx.request import Request
from collx.schedule import REGISTER, Algorithm, Copy, Groups, Recv, Schedule, Send
from collx.types import Array, ReduceOp
from tests.calls import Call
from tests.oracle import expected, inputs, matrix_product, numpy_op
from tests.schedules.cases import KEYS, NAMES, SEED

POISON = 0x5A
SUM, AVG = ReduceOp("sum"), ReduceOp("avg")
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Spot:
    """Some bytes of a buffer."""

    buffer: Array
    begin: int

    def view(self, offset: int, nbytes: int) -> Array:
        assert nbytes
        assert 0 <= offset <= offset + nbytes <= self.buffer.nbytes - self.begin
        return self.buffer[self.begin + offset : self.begin + offset + nbytes]


class Machine:
    """The memory of all ranks, and what runs plans on it."""

    def __init__(self, call: Call, given: Sequence[Array], inplace: Sequence[bool], workspace: int) -> None:
        self.call, self.spots = call, dict[tuple[int, Space], Spot]()
        for rank, contribution in enumerate(given):
            data = contribution.copy().view(np.uint8)
            source, target = Spot(data, 0), Spot(np.full(self.wanted(rank), POISON, np.uint8), 0)
            shift = sum(call.counts[:rank]) * call.dtype.itemsize if COLLECTIVES[call.collective].per_rank else 0
            if inplace[rank] and len(data) < len(target.buffer):
                source = Spot(target.buffer, shift)
                target.buffer[shift : shift + len(data)] = data
            elif inplace[rank] and len(target.buffer):
                target = Spot(data, shift if len(target.buffer) < len(data) else 0)
            for space, spot in zip(Space, (source, target, Spot(np.full(workspace, POISON, np.uint8), 0)), strict=True):
                self.spots[rank, space] = spot

    def wanted(self, rank: int) -> int:
        return self.call.wanted(rank) * self.call.dtype.itemsize

    def at(self, place: Place, nbytes: int) -> Array:
        return self.spots[place.rank, place.space].view(place.offset, nbytes)

    def run(self, plan: DevicePlan, combine: Callable[[Array, Array], Array], draw: random.Random) -> list[Array]:
        parts_by_rank = [plan.done_by(rank) for rank in range(self.call.size)]
        for number, step in enumerate(plan.steps):
            check_step(step, self.at)
            parts = [part[number] for part in parts_by_rank]
            for part in draw.sample(parts, len(parts)):
                for wave in part:
                    for fold in draw.sample(wave, len(wave)):
                        self.execute(fold, combine)
        outputs = [self.spots[rank, Space.OUTPUT] for rank in range(self.call.size)]
        return [
            spot.buffer[spot.begin : spot.begin + self.wanted(rank)].view(self.call.dtype)
            for rank, spot in enumerate(outputs)
        ]

    def execute(self, fold: Fold, combine: Callable[[Array, Array], Array]) -> None:
        values = [self.at(source, fold.nbytes).view(self.call.dtype) for source in fold.sources]
        result = reduce(combine, values).copy()
        if fold.scale:
            result = (result / self.call.size).astype(self.call.dtype)
        for target in fold.targets:
            self.at(target, fold.nbytes)[:] = result.view(np.uint8)


def check_step(step: Step, at: Callable[[Place, int], Array]) -> None:
    """What one fold of a step writes no other touches, but of the same rank in another wave."""
    folds = [(fold, number) for number, wave in enumerate(step) for fold in wave]
    assert all(step), "a wave does nothing"

    def touched(places: Sequence[Place], nbytes: int) -> list[tuple[int, int]]:
        return [(view.__array_interface__["data"][0], nbytes) for view in (at(place, nbytes) for place in places)]

    spans = sorted(
        (begin, begin + nbytes, index, writes)
        for index, (fold, _) in enumerate(folds)
        for places, writes in ((fold.sources, False), (fold.targets, True))
        for begin, nbytes in touched(places, fold.nbytes)
    )
    for index, (begin, end, one, writes) in enumerate(spans):
        for other_begin, other_end, other, also in spans[index + 1 :]:
            if other_begin >= end:
                break
            if not (writes or also):
                continue
            if one == other:  # a fold may write where it reads, if that is the very place
                assert (begin, end) == (other_begin, other_end), folds[one]
                assert writes != also, folds[one]
                continue
            (fold, wave), (fold_too, wave_too) = folds[one], folds[other]
            assert fold.by == fold_too.by, (fold, fold_too)
            assert wave != wave_too, (fold, fold_too)


def request_of(call: Call, **traits: Any) -> Request:
    """Rank 0's."""
    spec, sent = COLLECTIVES[call.collective], call.matrix[0] if call.matrix else ()
    elements = call.counts if spec.per_rank else (sum(call.counts),)
    taken = tuple(row[0] for row in call.matrix) if call.matrix else elements
    return Request(
        call.collective, taken, call.dtype, op=call.op, root=call.root, given=sent, agreed=not call.matrix, **traits
    )


def check(call: Call, algorithm: Algorithm, workers: Sequence[int], draw: random.Random, ordered: bool = False) -> None:
    """Plan the call and run it; `ordered`: with an op that does not commute."""
    reduces = COLLECTIVES[call.collective].reduces
    inplace = [not call.matrix and draw.random() < 0.5 for _ in range(call.size)]
    if call.collective == "broadcast":
        inplace = [True] * call.size
    plan = lower(request_of(call), algorithm, call.size, workers, inplace, call.matrix)
    seen = (
        Call(**{name: getattr(call, name) for name in Call.__slots__} | {"op": matrix_product()}) if ordered else call
    )
    given = inputs(call, draw.randrange(1 << 32))
    wanted = expected(seen, given)
    combine = numpy_op(seen.op) if reduces else np.add
    outputs = Machine(call, given, inplace, plan.workspace).run(plan, combine, draw)
    assert len(plan.steps) <= 1 or len(set(workers)) > 1, "one rank alone waits for nobody"
    for rank, result in enumerate(outputs):
        if (call.collective, rank) != ("exscan", 0):
            assert result.tobytes() == wanted[rank].tobytes(), f"rank {rank}, {call}, COLLX_TEST_SEED={SEED}"


def drawn_call(key: tuple[str, str], size: int, draw: random.Random) -> Call:
    """Uneven blocks, empty ones among them, but for algorithms that cannot have them."""
    collective, name = key
    uniform, few = REGISTER[key].uniform, draw.choice([0, 1, 3, 13])
    op = AVG if draw.random() < 0.2 and COLLECTIVES[collective].result == "reduction" else SUM

    def count() -> int:
        return 4 * few if uniform else 4 * draw.choice([0, 0, 1, 2, 5, 16])

    matrix = tuple(tuple(count() for _ in range(size)) for _ in range(size)) if collective == "all_to_all" else ()
    counts = () if matrix or collective == "barrier" else tuple(count() for _ in range(size))
    root = draw.randrange(size) if COLLECTIVES[collective].rooted else 0
    dtype = np.dtype(np.float64 if op is AVG else np.int64)
    return Call(collective, name, size, counts=counts, matrix=matrix, dtype=dtype, op=op, root=root, unit=4)


def workers_of(size: int, draw: random.Random) -> list[tuple[int, ...]]:
    """Every rank for itself; one for all; two GPUs, in halves or turn by turn."""
    turns = tuple(min(rank % 2, size - 1) for rank in range(size))
    halves = tuple(0 if rank < size // 2 else size // 2 for rank in range(size))
    return draw.sample([tuple(range(size)), (0,) * size, turns, halves], 2)


@pytest.mark.parametrize("key", KEYS, ids=NAMES)
def test_plans_give_numpys_answer(key: tuple[str, str]) -> None:
    draw = random.Random(f"{SEED} {key}")
    for size in filter(REGISTER[key].sizes, range(1, 10)):
        for workers in workers_of(size, draw):
            call = drawn_call(key, size, draw)
            ordered = REGISTER[key].ordered and call.op is SUM and draw.random() < 0.5
            check(call, REGISTER[key], workers, draw, ordered)


@pytest.mark.parametrize("key", [key for key in KEYS if REGISTER[key].over], ids=":".join)
def test_algorithms_over_groups(key: tuple[str, str]) -> None:
    draw = random.Random(f"{SEED} {key}")
    everywhere: list[Groups] = [((0, 1), (2, 3)), ((0, 3, 4), (1, 2)), ((2,), (0, 1, 5), (3, 4))]
    for groups in everywhere:
        over = REGISTER[key].over
        assert over is not None
        size = sum(map(len, groups))
        workers = tuple(next(group[0] for group in groups if rank in group) for rank in range(size))
        check(drawn_call(key, size, draw), over(groups), workers, draw)


def swapping(rank: int, size: int) -> Schedule:
    """An all_reduce of two ranks, the first of which swaps two blocks in one round."""
    schedule = Schedule(1)
    other = schedule.scratch(0)
    if rank == 1:
        return schedule.round(Send(0, to=0)).round(Recv(0, source=0))
    schedule.round(Recv(other, source=1)).round(Copy(0, other), Copy(other, 0))
    return schedule.round(Copy(other, 0, reduce="left")).round(Send(0, to=1))


def racing(rank: int, size: int) -> Schedule:
    """An all_reduce of three ranks; the last one takes what the first has sent only when that has got something else,
    and sent it on by way of the second."""
    schedule = Schedule(1)
    mine, theirs = schedule.scratch(0), schedule.scratch(1)
    if rank == 0:
        schedule.round(Copy(0, mine), Send(0, to=1))
        return (
            schedule.round(Send(mine, to=2))
            .round(Recv(mine, source=1))
            .round(Send(mine, to=1))
            .round(Recv(0, source=2))
        )
    if rank == 1:
        schedule.round(Send(0, to=0), Recv(theirs, source=0)).round(Recv(mine, source=0))
        return schedule.round(Send(mine, to=2)).round(Recv(0, source=2))
    schedule.round(Recv(0, source=0, reduce="left"), Recv(0, source=1, reduce="left"))
    return schedule.round(Send(0, to=0), Send(0, to=1))


@pytest.mark.parametrize("build", [swapping, racing])
def test_what_is_overwritten_before_it_is_read_is_set_aside(build: Callable[[int, int], Schedule]) -> None:
    size = 2 if build is swapping else 3
    one = Algorithm("all_reduce", "own", build, lambda size: 9, lambda size: 9, "", "")  # type: ignore[arg-type,return-value]
    for workers in (tuple(range(size)), (0,) * size):
        for seed in range(8):
            call = Call("all_reduce", "own", size, counts=(5,), unit=1)
            check(call, one, workers, random.Random(seed))


def all_reduce(
    name: str, workers: Sequence[int], count: int = 4096, op: ReduceOp = SUM, inplace: bool = False
) -> DevicePlan:
    request = Request("all_reduce", (count,), FLOAT32, op=op, inplace=inplace)
    return lower(request, REGISTER["all_reduce", name], len(workers), workers)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", ["direct", "two_shot"])
@pytest.mark.parametrize("count", [1, 1000, 4096, 99_991])
def test_one_worker_folds_the_whole_buffer_at_once(name: str, count: int, inplace: bool) -> None:
    """Each byte is read once of every rank, and written once to every rank: nothing less gives all of them the sum."""
    source, target = Space.OUTPUT if inplace else Space.INPUT, Space.OUTPUT
    plan = all_reduce(name, (0,) * 4, count, inplace=inplace)
    ranks = range(4)
    whole = Fold(tuple(Place(r, source, 0) for r in ranks), tuple(Place(r, target, 0) for r in ranks), 4 * count, 0)
    assert plan.steps == (((whole,),),)
    assert plan.workspace == 0


def test_each_of_several_workers_folds_a_share_for_all() -> None:
    plan = all_reduce("two_shot", (0, 1, 2, 3), inplace=True)
    ((wave,),) = plan.steps
    assert [(fold.by, fold.nbytes, len(fold.sources), len(fold.targets)) for fold in wave] == [
        (rank, 4096, 4, 4) for rank in range(4)
    ]
    assert plan.workers == ((0, 1, 2, 3),)
    assert plan.done_by(2) == (((wave[2],),),)


def test_ranks_that_all_overwrite_what_all_read_set_it_aside() -> None:
    plan = all_reduce("direct", (0, 1, 2), inplace=True)
    assert [len(step) for step in plan.steps] == [1, 1]
    assert all(len(fold.sources) == 1 and fold.targets[0].space is Space.WORKSPACE for fold in plan.steps[0][0])
    assert plan.workspace == 4 * 4096


@pytest.mark.parametrize("name", ["direct", "two_shot", "ring", "tree"])
def test_averages_are_divided_where_they_are_made(name: str) -> None:
    for workers in ((0,) * 4, (0, 1, 2, 3)):
        scaled, summed = (all_reduce(name, workers, op=op) for op in (AVG, SUM))
        assert len(scaled.steps) == len(summed.steps)
        results = [fold for step in scaled.steps for wave in step for fold in wave if fold.scale]
        written = [place for fold in results for place in fold.targets]
        if name != "tree":
            assert sorted({place.rank for place in written}) == list(range(4))
        assert all(len(fold.sources) > 1 for fold in results)


def test_barriers_and_single_ranks_do_nothing() -> None:
    barrier = Request("barrier", (0,), np.dtype(np.bool_))
    assert lower(barrier, REGISTER["barrier", "dissemination"], 4, (0,) * 4).steps == ()
    alone = all_reduce("direct", (0,), op=AVG, inplace=True)
    assert alone.steps == ()


def test_shares_are_whole_lines() -> None:
    for count, parts, itemsize in ((0, 3, 4), (5, 4, 2), (1000, 3, 16), (99_991, 8, 1)):
        found = shares(count, parts, itemsize)
        assert sum(found) == count
        assert len(found) == parts
        begins = [begin * itemsize for begin in accumulate(found[:-1])]
        assert all(begin % LINE == 0 for begin in begins)
        assert max(found) - min(found) <= 2 * LINE // itemsize


def test_a_users_op_is_no_kernel() -> None:
    request = Request("all_reduce", (4,), FLOAT32, op=matrix_product())
    with pytest.raises(ValueError, match="user's op sees NumPy arrays"):
        lower(request, REGISTER["all_reduce", "direct"], 2, (0, 1))


def test_messages_that_sender_and_receiver_cut_otherwise_are_refused() -> None:
    call = Request("all_to_all", (1, 1), FLOAT32, given=(1, 1), agreed=False)
    rows = ((1, 2), (3, 4))
    plan = lower(call, REGISTER["all_to_all", "direct"], 2, (0, 1), given=rows)
    moved = {(fold.sources[0].rank, fold.targets[0].rank): fold.nbytes for fold in plan.steps[0][0]}
    assert moved == {(0, 0): 4, (0, 1): 8, (1, 0): 12, (1, 1): 16}

    def short(rank: int, size: int) -> Schedule:
        return Schedule(2).round(Send(0, to=1)) if rank == 0 else Schedule(2).round(Recv((0, 1), source=0))

    wrong = Algorithm("all_gather", "short", short, lambda size: 1, lambda size: 1, "", "")  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="rank 0 sends blocks of"):
        lower(Request("all_gather", (1, 1), FLOAT32), wrong, 2, (0, 1))
