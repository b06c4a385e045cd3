"""What the programs of this folder share: cases of random data, judged by all ranks, with a line for each."""

from __future__ import annotations

import functools
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import collx
from arguments import Options, parse
from collx.perf.contributions import Contributions
from collx.types import Array, reduce_op, supports

UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum,
    "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor,
    "land": np.logical_and, "lor": np.logical_or, "lxor": np.logical_xor,
}  # fmt: skip


class Case:
    """One case on one rank: what to call with, and how much of what came out is wrong.

    `count` is the elements of a buffer, or of a rank's part of it; `random` gives the same numbers on every rank.
    """

    def __init__(self, run: Run, label: str, dtype: np.dtype[Any], op: str, root: int, count: int) -> None:
        self.rank, self.size, self.label = run.comm.rank, run.comm.size, label
        self.ranks = range(self.size)
        self.dtype, self.op, self.root, self.count = dtype, op, root, count
        self.random = np.random.default_rng((run.options.seed, run.number))
        self.wrong = 0
        # On these every op is exact, in whatever order it is done.
        self._given = Contributions(op, dtype, self.size, run.options.seed * 1_000_003 + run.number)

    def of(self, rank: int, count: int | None = None) -> Array:
        """What a rank contributes, `count` elements or the case's: the same on every rank that asks."""
        return self._given.of(rank, self.count if count is None else count)

    def mine(self, count: int | None = None) -> Array:
        return self.of(self.rank, count)

    def gathered(self, count: int | None = None) -> Array:
        """Every rank's contribution, in rank order."""
        return np.concatenate([self.of(rank, count) for rank in range(self.size)])

    def reduced(self, ranks: Sequence[int], count: int | None = None) -> Array:
        """What NumPy makes of the contributions of these ranks."""
        ufunc, given = UFUNCS[self.op], (self.of(rank, count) for rank in ranks)
        with np.errstate(all="ignore"):
            total: Array = functools.reduce(lambda a, b: np.asarray(ufunc(a, b)).astype(self.dtype, copy=False), given)
            if self.op != "avg":
                return total
            parts = total.view(total.real.dtype) if self.dtype.kind == "c" else total
            return np.asarray(parts / parts.dtype.type(len(ranks)), parts.dtype).view(self.dtype)

    def equal(self, got: Any, wanted: Any, what: str = "") -> None:
        """Note where `got` differs from `wanted`; None is like None only."""
        if got is None or wanted is None:
            self.true(got is wanted, f"{what} is {got!r:.200}, must be {wanted!r:.200}")
        elif (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            self.true(False, f"{what} is {got.dtype}{got.shape}, must be {wanted.dtype}{wanted.shape}")
        else:
            wrong = np.flatnonzero(got != wanted)
            for first in wrong[:1]:
                place = f"element {first} of {got.size} is {got.flat[first]}, must be {wanted.flat[first]}"
                self.true(False, f"{what} {place}; {wrong.size} are wrong", wrong.size)

    def true(self, holds: bool, otherwise: str, count: int = 1) -> None:
        """Note `otherwise`, as `count` faults, where something does not hold."""
        if not holds:
            self.wrong += count
            print(f"rank {self.rank}: {self.label}: {otherwise.strip()}", file=sys.stderr, flush=True)


class Run:
    """One program on the ranks of a communicator. All draw the same cases, so they stay in step."""

    def __init__(self, comm: collx.Communicator, options: Options, program: str) -> None:
        self.comm, self.options, self.program = comm, options, program
        self.number = self.failed = 0  # cases so far, and how many of them failed
        self.label = program  # of the case under way
        self._random = np.random.default_rng((options.seed, *program.encode()))

    def cases(
        self,
        *traits: str,
        ops: Sequence[str] = (),
        dtypes: Sequence[np.dtype[Any]] = (),
        rooted: bool = False,
        parts: int = 1,
    ) -> Iterator[Case]:
        """The cases of a collective: --repeats times all sizes, while dtypes, ops and roots take turns.

        `ops`: none for one that does not reduce. `dtypes`: by default those of --dtypes. `parts`: into how many a
        buffer is cut, of which a case counts one.
        """
        chosen = dtypes or self.options.dtypes
        pairs = self._turns(self.pairs(ops) if ops else [(dtype, "max") for dtype in chosen])
        roots = self._turns(range(self.comm.size) if rooted else [0])
        for _ in range(self.options.repeats):
            for least, most in self._sizes():
                (dtype, op), root = next(pairs), next(roots)
                nbytes = int(self._random.integers(least, most, endpoint=True))
                count = -(-nbytes // (dtype.itemsize * parts))
                size = f"{count * dtype.itemsize * parts} B"
                names = [dtype.name, op if ops else "", f"root {root}" if rooted else "", size]
                with self.case(*traits, *names, dtype=dtype, op=op, root=root, count=count) as case:
                    yield case

    def pairs(self, ops: Sequence[str]) -> list[tuple[np.dtype[Any], str]]:
        """Every dtype of --dtypes with each of these ops that it has."""
        pairs = [(dtype, op) for dtype in self.options.dtypes for op in ops]
        return [(dtype, op) for dtype, op in pairs if supports(dtype, reduce_op(op))]

    @contextmanager
    def case(
        self, *traits: str, dtype: Any = np.float64, op: str = "max", root: int = 0, count: int = 0
    ) -> Iterator[Case]:
        """A case by itself. It is judged when the block ends: rank 0 prints whether all ranks found it right."""
        self.number += 1
        self.label = " ".join(filter(None, [self.program, *traits]))
        case = Case(self, self.label, np.dtype(dtype), op, root, count)
        yield case
        wrong = np.flatnonzero(self.comm.all_gather(np.array([case.wrong])))
        if wrong.size or case.wrong:
            self.failed += 1
            self.say(f"FAIL {self.label}: wrong on rank {', '.join(map(str, wrong))}")
        else:
            self.say(f"PASS {self.label}")

    def say(self, line: str) -> None:
        if self.comm.rank == 0:
            print(line, flush=True)

    def _turns(self, things: Iterable[Any]) -> Iterator[Any]:
        """The things in random order, over and over."""
        known = list(things)
        if not known:
            raise SystemExit(f"{self.program}: none of --dtypes has any of --ops")
        return itertools.cycle([known[at] for at in self._random.permutation(len(known))])

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """Bytes, at least and at most: --min-bytes, what lies from there to --max-bytes by --factor, and between each
        two of them a random size, which divides by nothing."""
        size, end = self.options.min_bytes, self.options.max_bytes
        yield size, size
        while size < end:
            following = min(max(int(size * self.options.factor), size + 64), end)
            yield size + 1, following
            yield following, following
            size = following


Check = Callable[[Run], None]


def main(check: Check) -> None:
    """Run one program on all ranks of the job, by its command line, and exit."""
    about = sys.modules[check.__module__].__doc__ or ""
    run_all([check], parse(about)[0])


def run_all(checks: list[Check], options: Options) -> None:
    """Run programs one after the other; exit with 0 where every case passed, and with 1 otherwise, on every rank."""
    comm = collx.init(timeout=options.timeout)
    failed = 0
    if comm.rank == 0:
        print(f"# {comm!r} on {places(comm)}; collx {collx.__version__}, seed {options.seed}", flush=True)
    for check in checks:
        run = Run(comm, options, Path(str(sys.modules[check.__module__].__file__)).stem)
        try:
            check(run)
        except Exception as error:
            run.say(f"FAIL {run.label}: {type(error).__name__}: {error}")
            raise
        run.say(f"# {run.program}: {run.number - run.failed} of {run.number} cases passed")
        failed += run.failed
    comm.barrier()  # an exit code ends the job, so rank 0 says its last line first
    sys.exit(1 if failed else 0)


def places(comm: collx.Communicator) -> str:
    """The hosts, and how many ranks each has."""
    return ", ".join(f"{host} ({ranks})" for host, ranks in Counter(comm.hosts).items())
