"""Writes the cases of engine_test.cpp: plans of every registered algorithm, their inputs and what must come out.

python tests/native/dump_cases.py FILE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.native import words_of
from collx.plan import Plan, balanced, lower, segments_needed
from collx.schedule import REGISTER, Algorithm, largest_message
from collx.types import DTYPE_CODES, OPS

SIZES = (1, 2, 3, 4, 7)
COUNTS = (0, 3, 8000)  # elements: nothing, fewer than ranks, and enough for many segments
CAPACITY = 8192  # bytes of a segment
Array = np.ndarray[Any, np.dtype[np.int64]]


def expected(collective: str, inputs: list[Array], blocks: list[int], rank: int, root: int) -> Array:
    """What `rank` must hold in the end, by NumPy."""
    size, cuts = len(inputs), np.cumsum(blocks)[:-1]
    match COLLECTIVES[collective].result:
        case "reduction":
            total: Array = np.asarray(np.sum(inputs, axis=0, dtype=np.int64))
            if collective == "reduce_scatter":
                return np.split(total, cuts)[rank]
            return total if collective == "all_reduce" or rank == root else total[:0]
        case "prefix":
            until = rank if collective == "exscan" else rank + 1
            return np.sum(inputs[:until], axis=0, dtype=np.int64) if until else inputs[0][:0]
        case "exchange":
            return np.concatenate([np.split(inputs[source], cuts)[rank] for source in range(size)])
        case "heard":
            return inputs[0][:0]
    if collective == "scatter":
        return np.split(inputs[root], cuts)[rank]
    if collective == "gather" and rank != root:
        return inputs[0][:0]
    return inputs[root] if collective == "broadcast" else np.concatenate(inputs)


def inputs_of(collective: str, blocks: list[int], size: int, rank: int, root: int) -> Array:
    own = collective in ("all_gather", "gather")
    empty = collective == "barrier" or (collective in ("broadcast", "scatter") and rank != root)
    count = 0 if empty else blocks[rank] if own else sum(blocks)
    return np.random.default_rng([rank, count, size]).integers(-1000, 1000, count)


def plan_of(algorithm: Algorithm, size: int, rank: int, root: int, count: int) -> tuple[Plan, list[int]]:
    schedule = algorithm.build(rank, size, root)
    equal = [count // size] * size
    blocks = equal if algorithm.collective == "all_to_all" else balanced(count, max(schedule.blocks, 1))
    sizes = [8 * elements for elements in blocks]
    segments = segments_needed(max(largest_message(algorithm, size), 1), max(sizes, default=0), CAPACITY)
    given = sizes if algorithm.collective == "all_to_all" else []
    moves, workspace = lower(schedule, algorithm.collective, rank, size, root, sizes, given_sizes=given)
    plan = Plan(
        algorithm.collective, algorithm.name, rank, size, root, DTYPE_CODES[np.dtype(np.int64)], OPS.index("sum"), 8,
        tuple(moves), segments, 2, workspace, 0, 0,
    )  # fmt: skip
    return plan, blocks


def cases() -> Iterator[tuple[str, list[tuple[Array, Array, Array]]]]:
    for (collective, name), algorithm in REGISTER.items():
        for size in filter(algorithm.sizes, SIZES):
            root = size - 1 if COLLECTIVES[collective].rooted else 0
            for count in COUNTS:
                made = [plan_of(algorithm, size, rank, root, count) for rank in range(size)]
                blocks = made[0][1]
                inputs = [inputs_of(collective, blocks, size, rank, root) for rank in range(size)]
                ranks = [
                    (words_of(plan), inputs[rank], expected(collective, inputs, blocks, rank, root))
                    for rank, (plan, _) in enumerate(made)
                ]
                yield f"{collective}:{name} size {size} count {count}", ranks


def write(file: BinaryIO, words: Array) -> None:
    file.write(np.int64(len(words)).tobytes() + words.astype(np.int64).tobytes())


def main() -> None:
    with open(sys.argv[1], "wb") as file:
        for name, ranks in cases():
            write(file, np.frombuffer(name.encode(), np.uint8).astype(np.int64))
            file.write(np.int64(len(ranks)).tobytes())
            for words in (array for rank in ranks for array in rank):
                write(file, words)


if __name__ == "__main__":
    main()
