"""From a request to a plan: the chosen algorithm's schedule, lowered for the request's bytes and cut into segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from collx.agreement import OWN_COUNTS, counts_text
from collx.collectives import COLLECTIVES
from collx.guide import UNGUIDED, Guide
from collx.plan import GRAIN, Lane, Move, Plan, balanced, lower, segments_needed
from collx.request import Request
from collx.schedule import Groups, Schedule, largest_message
from collx.selector import SEGMENT, choose
from collx.types import DTYPE_CODES, Array, ReduceOp, reduce_op
from collx.wishes import MPI

_SUM = reduce_op("sum")


def make_plan(
    request: Request,
    rank: int,
    size: int,
    capacity: int,
    window: int,
    mpi: bool = False,
    far: bool = False,
    hosts: Groups = (),
    guide: Guide = UNGUIDED,
) -> tuple[Plan, ReduceOp]:
    """The plan of `rank`, and the op for the engine to run it with.

    `capacity` and `window` are the engine's: bytes of a message segment, and segments in flight, at most; `mpi`: it
    runs MPI's own collectives too; `far`: its ranks are on several hosts. `hosts`: the ranks by host, the same on all
    ranks and for every plan of a communicator. Raises ValueError as `choose` does, ScheduleError for a user's function
    that is wrong.
    """
    room = room_of(capacity)
    algorithm = choose(request, size, room, far, mpi, guide, hosts).algorithm
    if algorithm is None:
        return _without_moves(request, rank, size), request.op or _SUM
    schedule = algorithm.build(rank, size, request.root)
    itemsize, op = request.dtype.itemsize, request.op or _SUM
    sizes, given = _block_bytes(request, schedule, itemsize), [count * itemsize for count in request.given]
    moves, workspace = lower(
        schedule, request.collective, rank, size, request.root, sizes,
        given_sizes=given, inplace=request.inplace, whole=request.custom, scale=op.name == "avg",
    )  # fmt: skip
    segments = 1
    if request.agreed:
        segments = segments_needed(max(largest_message(algorithm, size, request.root), 1), max(sizes, default=0), room)
    else:
        moves = in_pieces(moves, room)
    spec, where = COLLECTIVES[request.collective], (rank, size, request.root, schedule.blocks)
    plan = Plan(
        collective=request.collective, algorithm=algorithm.name, rank=rank, size=size, root=request.root,
        dtype=DTYPE_CODES[request.dtype], op=op.code, itemsize=itemsize, moves=tuple(moves), segments=segments,
        window=segments if request.custom else min(segments, window), workspace=workspace,
        input_bytes=sum(given) if given else sum(sizes[b] for b in spec.before(*where)),
        output_bytes=sum(sizes[b] for b in spec.after(*where)),
        count=_count(request),
        called=request.called, ordered=request.ordered,
    )  # fmt: skip
    return plan, _on_blocks(request, schedule.blocks) if request.custom else op


def room_of(capacity: int) -> int:
    """Bytes that a message segment has at most, on an engine that takes `capacity`."""
    return min(capacity, SEGMENT)


def _without_moves(request: Request, rank: int, size: int) -> Plan:
    """The plan that is MPI's own collective."""
    spec, itemsize = COLLECTIVES[request.collective], request.dtype.itemsize
    blocks = size if spec.per_rank else 1
    where = (rank, size, request.root, blocks)
    given, taken = (
        sum(request.elements[block % blocks] for block in of(*where)) * itemsize for of in (spec.before, spec.after)
    )
    return Plan(
        collective=request.collective, algorithm=MPI, rank=rank, size=size, root=request.root,
        dtype=DTYPE_CODES[request.dtype], op=(request.op or _SUM).code, itemsize=itemsize, moves=(), segments=1,
        window=1, workspace=0, input_bytes=given, output_bytes=taken, count=_count(request),
        called=request.called, elements=request.elements, inplace=request.inplace,
    )  # fmt: skip


def _count(request: Request) -> str:
    return request.together or (counts_text(request.elements) if request.agreed else OWN_COUNTS)


def _block_bytes(request: Request, schedule: Schedule, itemsize: int) -> list[int]:
    per_rank = COLLECTIVES[request.collective].per_rank
    elements = request.elements if per_rank else balanced(request.elements[0], schedule.blocks)
    return [count * itemsize for count in elements]


def in_pieces(moves: Sequence[Move], room: int) -> list[Move]:
    """The moves with every message cut into pieces of at most `room` bytes, by its own length alone.

    For all_to_all with counts: both ends of a message know its length, but nobody knows the largest of all, by
    which all ranks could segment alike. Pieces go round by round, first all first ones, so that a lane with room
    for one message is enough. Takes moves of one block that wait for no other, as one-message-per-peer
    algorithms have.
    """
    room = room // GRAIN * GRAIN
    cut: list[Move] = []
    whole = [m for m in moves if not _has_lane(m)]
    parts = [m for m in moves if _has_lane(m)]
    rounds = max((-(-m.lengths[0] // room) for m in parts), default=0)
    for move in moves:
        if move.after or len(move.lengths) != 1:
            raise ValueError("only moves of one block that wait for no other can be cut into pieces")
    for turn in range(max(rounds, 1)):
        begin = turn * room
        for move in parts:
            if turn == 0 or begin < move.lengths[0]:
                cut.append(_piece(move, begin, max(min(room, move.lengths[0] - begin), 0)))
    return whole + cut


def _has_lane(move: Move) -> bool:
    return any(isinstance(operand, Lane) for operand in move.sources + move.targets)


def _piece(move: Move, begin: int, length: int) -> Move:
    def moved(operand: Any) -> Any:
        if isinstance(operand, Lane):
            return operand
        return replace(operand, spans=tuple((space, offset + begin) for space, offset in operand.spans))

    return replace(
        move, sources=tuple(map(moved, move.sources)), targets=tuple(map(moved, move.targets)), lengths=(length,)
    )


def _on_blocks(request: Request, blocks: int) -> ReduceOp:
    """The user's op as the engine calls it: on flat arrays, with what comes back checked.

    The user's function sees the caller's shape where the algorithm does not cut the buffer, rows of the caller's
    shape in reduce_scatter, and flat pieces otherwise.
    """
    assert request.op is not None
    assert request.op.function is not None
    function, dtype = request.op.function, request.dtype
    rows = request.collective == "reduce_scatter"
    row = int(np.prod(request.shape, dtype=np.int64))

    def seen(flat: Array) -> Array:
        if rows:
            return flat.reshape(flat.size // row if row else 0, *request.shape)
        return flat.reshape(request.shape) if blocks == 1 else flat

    def apply(a: Array, b: Array) -> Array:
        left, right = seen(a), seen(b)
        result: Any = function(left, right)
        kind = getattr(result, "dtype", None)
        shape = getattr(result, "shape", None)
        if kind != dtype or shape != left.shape:
            got = f"{kind} of shape {shape}" if kind is not None else type(result).__name__
            raise TypeError(f"the custom op must return {dtype} of shape {left.shape}, as it was given, not {got}")
        return np.ascontiguousarray(result).reshape(-1)

    return ReduceOp("custom", apply, request.op.commutative)
