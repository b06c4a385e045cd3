"""Every registered algorithm, by its name and through the API: right, and the same bits on all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import collx.algorithms  # noqa: F401  (fills the register)
from collx import Communicator, ReduceOp
from collx.collectives import COLLECTIVES
from collx.schedule import REGISTER, grouped
from collx.types import Array
from tests.collectives.numbers import same
from tests.ranks import SIZES, ranks

LENGTHS = (0, 1, 7, 1000, 60_001)  # elements of a rank's block; the last needs many segments


def names(collective: str, size: int) -> list[str]:
    return [name for (c, name), entry in REGISTER.items() if c == collective and entry.sizes(size)]


def shape_of(collective: str, length: int, size: int) -> int:
    whole = collective in ("reduce_scatter", "all_to_all", "scatter")
    return length * size if whole else length


def wanted(collective: str, given: list[Array], rank: int, root: int) -> Array | None:
    """What `collective` leaves on `rank`; sums of whole numbers are exact."""
    size = len(given)
    part = len(given[0]) // size
    mine = slice(rank * part, (rank + 1) * part)
    total = np.asarray(sum(given))
    table: dict[str, Callable[[], Any]] = {
        "all_reduce": lambda: total,
        "reduce_scatter": lambda: total[mine],
        "all_gather": lambda: np.concatenate(given),
        "all_to_all": lambda: np.concatenate([array[mine] for array in given]),
        "broadcast": lambda: given[root],
        "reduce": lambda: total if rank == root else None,
        "gather": lambda: np.concatenate(given) if rank == root else None,
        "scatter": lambda: given[root][mine],
        "scan": lambda: np.asarray(sum(given[: rank + 1])),
        "exscan": lambda: np.asarray(sum(given[:rank]) + np.zeros_like(given[0])),
    }
    result: Array | None = table[collective]()
    return result


def every_algorithm(comm: Communicator) -> None:
    rng = np.random.default_rng(comm.size)
    for collective in COLLECTIVES:
        if collective == "barrier":
            continue
        for name in names(collective, comm.size):
            for length in LENGTHS:
                root = int(rng.integers(comm.size))
                count = shape_of(collective, length, comm.size)
                given = [rng.integers(0, 100, count).astype(np.float64) for _ in range(comm.size)]
                rooted = (root,) if COLLECTIVES[collective].rooted else ()
                keywords = {"root": root} if rooted else {}
                result = getattr(comm, collective)(given[comm.rank].copy(), **keywords, algorithm=name)
                expected = wanted(collective, given, comm.rank, root)
                if expected is None:
                    assert result is None
                else:
                    same(result, expected)


# tests/engines runs them all on the reference engine, for every size.
@pytest.mark.parametrize(("kind", "size"), [("memory", 1), ("memory", 3), *(("shm", size) for size in SIZES)])
def test_every_algorithm_by_name(kind: str, size: int) -> None:
    ranks(kind, size, every_algorithm)


def same_bits(comm: Communicator) -> None:
    for dtype in (np.float16, np.float32, np.float64, np.complex64):
        x = np.random.default_rng(comm.rank).standard_normal(3001).astype(dtype)
        for name in (None, *names("all_reduce", comm.size)):
            for count in (1, 3, 3001):
                bits = np.frombuffer(comm.all_reduce(x[:count], algorithm=name).tobytes(), np.uint8)
                everybody = comm.all_gather(bits).reshape(comm.size, -1)
                assert (everybody == everybody[0]).all(), f"{name}, {count} of {np.dtype(dtype)}"


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_get_the_same_bits(kind: str, size: int) -> None:
    ranks(kind, size, same_bits)


def affine(a: Array, b: Array) -> Array:
    """Composition of maps x -> p x + q, as columns p, q: associative, exact on integers, not commutative."""
    left, right = a.reshape(-1, 2), b.reshape(-1, 2)
    product = left[:, 0] * right[:, 0]
    return np.stack([product, left[:, 1] * right[:, 0] + right[:, 1]], axis=1).reshape(a.shape)


def in_rank_order(comm: Communicator) -> None:
    op = ReduceOp.custom(affine)
    pairs = 4000 if comm.size < 5 else 300
    given = [np.random.default_rng(r).integers(-3, 4, (pairs * comm.size, 2)) for r in range(comm.size)]
    prefixes = [given[0]]
    for array in given[1:]:
        prefixes.append(affine(prefixes[-1], array))
    x, total, rank = given[comm.rank], prefixes[-1], comm.rank
    mine = slice(rank * pairs, (rank + 1) * pairs)
    for collective in ("all_reduce", "reduce", "scan", "exscan", "reduce_scatter"):
        ordered = [name for name in names(collective, comm.size) if REGISTER[collective, name].ordered]
        assert ordered
        for name in (None, *ordered):
            result = getattr(comm, collective)(x, op, algorithm=name)
            if collective == "all_reduce" or (collective == "reduce" and rank == 0):
                same(result, total)
            elif collective == "scan":
                same(result, prefixes[rank])
            elif collective == "exscan":
                same(result, prefixes[rank - 1] if rank else np.zeros_like(x))
            elif collective == "reduce_scatter":
                same(result, total[mine])
    for root in range(comm.size):
        reduced = comm.reduce(x, op, root)
        if rank == root:
            same(reduced, total)
    few = functools.reduce(affine, [array[: comm.size] for array in given])
    for name in names("all_reduce", comm.size):
        if REGISTER["all_reduce", name].ordered:
            y, z = x.copy(), x[: comm.size].copy()
            same(comm.all_reduce(y, op, out=y, algorithm=name), total)
            same(comm.all_reduce(z, op, out=z, algorithm=name), few)
    y = x.copy()
    same(comm.scan(y, op, out=y), prefixes[rank])
    for root in range(comm.size):
        y = x.copy()
        comm.reduce(y, op, root, out=y)
        same(y, total if rank == root else x)


@pytest.mark.parametrize("size", SIZES)
def test_a_non_commutative_op_keeps_rank_order(kind: str, size: int) -> None:
    ranks(kind, size, in_rank_order)


def scattered(comm: Communicator, body: Callable[[Communicator], None]) -> None:
    """`body`, with the ranks taken to be on three hosts that they came to in turns, unevenly."""
    comm._groups = grouped("abac"[rank % 4] for rank in range(comm.size))
    body(comm)


@pytest.mark.parametrize("kind", ["memory", "shm"])
def test_every_algorithm_on_ranks_of_several_hosts(kind: str) -> None:
    ranks(kind, 5, scattered, every_algorithm)
    ranks(kind, 4, scattered, same_bits)
    ranks(kind, 5, scattered, in_rank_order)
