"""Random contributions that any rank can recompute for every other one, and what NumPy says a collective makes of them.

As in nccl-tests' `verifiable`, values are chosen so that every partial result is exact in the dtype, whatever
the order of operations: small integers for sum and avg, signed powers of two for prod, zeros and ones for the
logical ops, anything finite elsewhere; integers take all their bits and wrap. So `#wrong` counts elements that
are not equal, with no tolerance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np

from collx.perf.collectives import Array, Measured

_FOLDS: dict[str, Callable[[Array, Array], Array]] = {
    "sum": np.add,
    "avg": np.add,
    "prod": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
    "land": lambda a, b: ((a != 0) & (b != 0)).astype(a.dtype),
    "lor": lambda a, b: ((a != 0) | (b != 0)).astype(a.dtype),
    "lxor": lambda a, b: ((a != 0) ^ (b != 0)).astype(a.dtype),
}


def _exact_limit(dtype: np.dtype[np.generic]) -> int:
    """Integers up to here, and their sums up to here, are exact in the dtype."""
    real = np.dtype(dtype.type(0).real.dtype) if dtype.kind == "c" else dtype
    return 1 << int(ml_dtypes.finfo(real).nmant + 1)  # type: ignore[no-untyped-call]


def values(op: str, dtype: np.dtype[np.generic], rank: int, size: int, seed: int) -> Array:
    """The 256 values that `rank` of `size` draws its contribution from, for an op and a dtype."""
    random = np.random.default_rng((seed, rank, size))
    drawn: Array
    if dtype.kind == "b" or op in ("land", "lor", "lxor"):
        drawn = random.integers(0, 2, 256)
        return drawn.astype(dtype)
    if dtype.kind in "iu":
        return np.frombuffer(random.bytes(256 * dtype.itemsize), np.dtype(dtype))
    if op == "prod":
        # Beyond a handful of ranks even powers of two would leave a narrow dtype's range.
        magnitudes = random.choice([0.5, 1.0, 2.0], 256) if rank < 6 and dtype.kind != "c" else np.ones(256)
        signs = random.choice([1, -1, 1j, -1j] if dtype.kind == "c" else [1, -1], 256)
        drawn = magnitudes * signs
        return drawn.astype(dtype)
    limit = _exact_limit(dtype)
    bound = max(limit // size, 1 if rank < limit else 0) if op in ("sum", "avg") else limit
    drawn = random.integers(-bound, bound, 256, endpoint=True)
    if dtype.kind == "c":
        drawn = drawn + 1j * random.integers(-bound, bound, 256, endpoint=True)
    return drawn.astype(dtype)


class Contributions:
    """Every rank's input to one call: fresh for each seed, equal on all ranks that compute it."""

    def __init__(self, op: str, dtype: np.dtype[np.generic], size: int, seed: int) -> None:
        self.op, self.dtype, self.size, self.seed = op, dtype, size, seed

    def of(self, rank: int, count: int) -> Array:
        """The `count` elements that `rank` contributes."""
        random = np.random.Generator(np.random.SFC64((self.seed, rank)))
        drawn = random.integers(0, 256, count, dtype=np.uint8)
        return values(self.op, self.dtype, rank, self.size, self.seed).take(drawn)

    def _folded(self, ranks: Iterable[int], count: int, part: slice) -> Array:
        with np.errstate(all="ignore"):
            return functools.reduce(_FOLDS[self.op], (self.of(rank, count)[part] for rank in ranks))

    def _averaged(self, total: Array) -> Array:
        real = total.view(total.real.dtype) if self.dtype.kind == "c" else total
        mean: Array = (real / real.dtype.type(self.size)).astype(real.dtype)
        return mean.view(self.dtype)

    def expected(self, case: Measured, rank: int, root: int, whole: int, part: int) -> Array | None:
        """What `rank` must hold in the end; None where the collective promises nothing there that is worth a check."""
        mine = slice(rank * part, (rank + 1) * part)
        everyone = range(self.size)
        match case.name:
            case "all_reduce" | "reduce" | "scan":
                if case.at_root and rank != root:
                    return None
                total = self._folded(range(rank + 1) if case.name == "scan" else everyone, whole, slice(None))
            case "reduce_scatter":
                total = self._folded(everyone, whole, mine)
            case "exscan":
                if rank == 0:
                    return None
                total = self._folded(range(rank), whole, slice(None))
            case _:
                return self._moved(case.name, rank, root, whole, part)
        return self._averaged(total) if self.op == "avg" else total

    def _moved(self, collective: str, rank: int, root: int, whole: int, part: int) -> Array | None:
        everyone = range(self.size)
        mine = slice(rank * part, (rank + 1) * part)
        match collective:
            case "all_gather":
                return np.concatenate([self.of(q, part) for q in everyone])
            case "gather":
                return np.concatenate([self.of(q, part) for q in everyone]) if rank == root else None
            case "all_to_all":
                return np.concatenate([self.of(q, whole)[mine] for q in everyone])
            case "broadcast":
                return self.of(root, whole)
            case "scatter":
                return self.of(root, whole)[mine]
            case "sendrecv":
                return self.of((rank - 1) % self.size, whole)
        return None
