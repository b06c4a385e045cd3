"""What tests of engines share: engines of a kind, collectives as plain data, plans for them, and what NumPy says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.engine import Engine, ReferenceEngine
from collx.plan import Plan, balanced, lower, slices_needed
from collx.schedule import REGISTER, Schedule, Send
from collx.transports.conformance import run_threads
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.types import DTYPE_CODES, Array, ReduceOp

T = TypeVar("T")
TIMEOUT = 60.0
GUARD = 64  # bytes around every output that nobody may touch
SUM = ReduceOp("sum")
INT64 = np.dtype(np.int64)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@contextmanager
def reference_engines(size: int, rendezvous: bool) -> Iterator[list[Engine]]:
    hub = MemoryHub(size, rendezvous=rendezvous)
    engines: list[Engine] = [ReferenceEngine(MemoryTransport(hub, rank)) for rank in range(size)]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


# Every engine has its line here: `make(size)` is a context manager that yields one engine per rank of this process.
ENGINES: dict[str, Callable[[int], AbstractContextManager[list[Engine]]]] = {
    "reference": partial(reference_engines, rendezvous=False),
    "reference-rendezvous": partial(reference_engines, rendezvous=True),
}


def engines(kind: str, size: int) -> AbstractContextManager[list[Engine]]:
    return ENGINES[kind](size)


def on_every(ranks: Sequence[Engine], body: Callable[[int, Engine], T]) -> list[T]:
    """`body(rank, engine)` in a thread per rank; a rank that fails closes its engine, so that nobody waits for it."""

    def run(rank: int) -> T:
        try:
            return body(rank, ranks[rank])
        except BaseException:
            ranks[rank].close()
            raise

    return run_threads(len(ranks), run)


@dataclass(frozen=True, slots=True)
class Call:
    """One collective on all ranks. `counts` are the elements of the blocks: one per rank where the collective has
    a block per rank, otherwise one number, the whole buffer's. For all_to_all `matrix[i][j]` elements go from i to j.
    Buffers are cut in units of `unit` elements."""

    collective: str
    algorithm: str
    size: int
    counts: tuple[int, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    dtype: np.dtype[Any] = INT64
    op: ReduceOp = SUM
    root: int = 0
    unit: int = 1
    inplace: bool = False
    slices: int = 1

    def blocks(self, rank: int, cut: int) -> list[int]:
        """The elements of the working buffer's blocks, where the algorithm cuts it into `cut`."""
        if self.matrix:
            return [row[rank] for row in self.matrix]
        if COLLECTIVES[self.collective].per_rank:
            return list(self.counts)
        return [n * self.unit for n in balanced(sum(self.counts) // self.unit, cut)]

    def given(self, rank: int) -> int:
        """The elements of the input."""
        if self.matrix:
            return sum(self.matrix[rank])
        return self._elements(COLLECTIVES[self.collective].before, rank)

    def wanted(self, rank: int) -> int:
        """The elements of the output."""
        return self._elements(COLLECTIVES[self.collective].after, rank)

    def placed(self, rank: int) -> bool:
        """Whether the input lies in the output on this rank."""
        return self.inplace and not self.matrix and set(self._held(rank)) <= set(self._result(rank))

    def _cut(self) -> int:
        return self.size if COLLECTIVES[self.collective].per_rank else 1

    def _held(self, rank: int) -> range:
        return COLLECTIVES[self.collective].before(rank, self.size, self.root, self._cut())

    def _result(self, rank: int) -> range:
        return COLLECTIVES[self.collective].after(rank, self.size, self.root, self._cut())

    def _elements(self, which: Callable[[int, int, int, int], range], rank: int) -> int:
        return sum(self.blocks(rank, self._cut())[b] for b in which(rank, self.size, self.root, self._cut()))


def even(collective: str, algorithm: str, size: int, count: int, **traits: Any) -> Call:
    """A call whose buffer of `count` elements is cut as evenly as it can be (all_to_all: that much to everybody)."""
    if collective == "all_to_all":
        return Call(collective, algorithm, size, matrix=((count,) * size,) * size, **traits)
    return Call(collective, algorithm, size, counts=tuple(balanced(count, size)), **traits)


def make_plan(call: Call, rank: int, capacity: int, window: int) -> Plan:
    """The plan of `rank` for an engine of this capacity and window; with more slices where the call asks for them."""
    registered = REGISTER[call.collective, call.algorithm]
    schedules = [registered.build(r, call.size, call.root) for r in range(call.size)]
    schedule, itemsize = schedules[rank], call.dtype.itemsize
    sizes = [n * itemsize for n in call.blocks(rank, schedule.blocks)]
    everybody = [n * itemsize for r in range(call.size) for n in call.blocks(r, schedule.blocks)]
    slices = max(call.slices, slices_needed(_most_blocks(schedules), max(everybody, default=0), capacity))
    moves, workspace = lower(
        schedule,
        call.collective,
        rank,
        call.size,
        call.root,
        sizes,
        given_sizes=[n * itemsize for n in call.matrix[rank]] if call.matrix else (),
        inplace=call.placed(rank),
        whole=call.op.function is not None,
        scale=call.op.name == "avg",
    )
    return Plan(
        collective=call.collective,
        algorithm=call.algorithm,
        rank=rank,
        size=call.size,
        root=call.root,
        dtype=DTYPE_CODES[call.dtype],
        op=call.op.code,
        itemsize=itemsize,
        moves=tuple(moves),
        slices=slices,
        window=slices if call.op.function else min(slices, window),
        workspace=workspace,
        input_bytes=call.given(rank) * itemsize,
        output_bytes=call.wanted(rank) * itemsize,
    )


def _most_blocks(schedules: Sequence[Schedule]) -> int:
    sends = (op for schedule in schedules for ops in schedule.rounds for op in ops if isinstance(op, Send))
    return max((len(op.blocks) for op in sends), default=0) or 1


def perform(call: Call, rank: int, engine: Engine, given: Array, sequence: int, *, background: bool = False) -> Array:
    """Run `call` on this rank and return its output. Asserts that nothing but the output was written."""
    plan = make_plan(call, rank, engine.capacity, engine.window)
    room = np.full(plan.output_bytes + 2 * GUARD, 0xA5, np.uint8)
    output = room[GUARD : GUARD + plan.output_bytes].view(call.dtype)
    source = given.copy()
    if call.placed(rank):
        before = call.blocks(rank, call.size)[:rank] if given.size < output.size else []
        source = output[sum(before) : sum(before) + given.size]
        source[:] = given
    base = output if call.placed(rank) else source
    prepared = engine.prepare(plan, call.op)
    if background:
        engine.start(prepared, base.ctypes.data, output.ctypes.data, sequence, TIMEOUT).wait(TIMEOUT)
    else:
        engine.run(prepared, base.ctypes.data, output.ctypes.data, sequence, TIMEOUT)
    assert (room[:GUARD] == 0xA5).all()
    assert (room[GUARD + plan.output_bytes :] == 0xA5).all()
    if not call.placed(rank):
        assert source.tobytes() == given.tobytes()
    return output


def inputs(call: Call, seed: int = 0) -> list[Array]:
    """What each rank contributes: numbers small enough that every op on up to 8 of them is exact in every dtype."""
    rng = np.random.default_rng([seed, call.size, call.root])
    low, high = (1, 2) if call.op.name == "prod" else (0, 1)
    given = [rng.integers(low, high + 1, call.given(rank)) for rank in range(call.size)]
    if np.issubdtype(call.dtype, np.complexfloating):
        return [(a + 1j * (a % 2)).astype(call.dtype) for a in given]
    return [a.astype(call.dtype) for a in given]


def expected(call: Call, given: Sequence[Array]) -> list[Array]:
    """The output of each rank, by NumPy alone."""
    size, root, combine = call.size, call.root, numpy_op(call.op)
    result = COLLECTIVES[call.collective].result
    if result == "heard":
        return [given[rank] for rank in range(size)]
    if result == "prefix":
        shift = call.collective == "exscan"
        return [_folded(combine, given[: rank + 1 - shift] or given[:1], call) for rank in range(size)]
    if result == "exchange":
        return [np.concatenate([_part(given[i], call.matrix[i], j) for i in range(size)]) for j in range(size)]
    if result == "reduction":
        everything = _folded(combine, given, call)
    elif call.collective in ("broadcast", "scatter"):
        everything = given[root]
    else:
        everything = np.concatenate(given)
    if call.collective in ("reduce_scatter", "scatter"):
        return [_part(everything, call.counts, rank) for rank in range(size)]
    if call.collective in ("reduce", "gather"):
        return [everything if rank == root else everything[:0] for rank in range(size)]
    return [everything] * size


def _part(array: Array, counts: Sequence[int], index: int) -> Array:
    return array[sum(counts[:index]) : sum(counts[: index + 1])]


def _folded(combine: Callable[[Array, Array], Array], given: Sequence[Array], call: Call) -> Array:
    total = reduce(combine, given).astype(call.dtype)
    return (total / np.asarray(call.size, call.dtype)).astype(call.dtype) if call.op.name == "avg" else total


def numpy_op(op: ReduceOp) -> Callable[[Array, Array], Array]:
    """What NumPy calls this op."""
    if op.function is not None:
        return op.function
    names = {
        "sum": "add", "avg": "add", "prod": "multiply", "min": "minimum", "max": "maximum",
        "band": "bitwise_and", "bor": "bitwise_or", "bxor": "bitwise_xor",
        "land": "logical_and", "lor": "logical_or", "lxor": "logical_xor",
    }  # fmt: skip
    ufunc: np.ufunc = getattr(np, names[op.name])
    return lambda a, b: np.asarray(ufunc(a, b)).astype(a.dtype)


def ops_of(dtype: np.dtype[Any]) -> list[str]:
    """The built-in ops that a dtype has."""
    ops = ["sum", "prod", "land", "lor", "lxor"]
    exact = dtype.kind in "biu"
    is_complex = dtype.kind == "c"
    ops += [] if is_complex else ["min", "max"]
    ops += ["band", "bor", "bxor"] if exact else ["avg"]
    return ops


def sizes_of(collective: str, algorithm: str, largest: int = 8) -> list[int]:
    """The numbers of ranks up to `largest` that an algorithm takes."""
    return [size for size in range(1, largest + 1) if REGISTER[collective, algorithm].sizes(size)]


def registered(**traits: bool) -> list[tuple[str, str]]:
    """The registered (collective, algorithm) pairs that have these traits (`reduces=True`, `ordered=True`, ...)."""

    def fits(key: tuple[str, str]) -> bool:
        known: dict[str, bool] = {
            "ordered": REGISTER[key].ordered,
            "uniform": REGISTER[key].uniform,
            "reduces": COLLECTIVES[key[0]].reduces,
            "rooted": COLLECTIVES[key[0]].rooted,
            "per_rank": COLLECTIVES[key[0]].per_rank,
        }
        return all(known[trait] is wanted for trait, wanted in traits.items())

    return sorted(filter(fits, REGISTER))


def matrix_product() -> ReduceOp:
    """The product of 2x2 matrices laid flat: associative, not commutative, exact on integers (it wraps around)."""

    def multiply(a: Array, b: Array) -> Array:
        return np.asarray(np.matmul(a.reshape(-1, 2, 2), b.reshape(-1, 2, 2))).reshape(a.shape)

    return ReduceOp.custom(multiply)


__all__ = [
    "BFLOAT16", "ENGINES", "SUM", "TIMEOUT", "Call", "engines", "even", "expected", "inputs", "make_plan",
    "matrix_product", "numpy_op", "on_every", "ops_of", "perform", "registered", "replace", "run_threads", "sizes_of",
]  # fmt: skip
