"""`collx verify`: proves registered algorithms and prints what was proved."""

from __future__ import annotations

import argparse
import difflib
import gc
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn

import collx.algorithms  # noqa: F401  (fills the register)
from collx.collectives import COLLECTIVES
from collx.errors import ScheduleError
from collx.lifeline import die_with, interrupts_held_back
from collx.schedule import REGISTER, Algorithm
from collx.verify.proof import Proof, prove

LARGER = (257, 512)  # as far as two proofs fit into memory
Key = tuple[str, str]


@dataclass(slots=True)
class _Tally:
    """What was proved of one algorithm so far."""

    sizes: set[int] = field(default_factory=set)
    proofs: int = 0
    seconds: float = 0.0


def roots(algorithm: Algorithm, size: int) -> Sequence[int]:
    """The roots to prove: all for small sizes; for large ones the first and one amidst, others differ by names."""
    if not COLLECTIVES[algorithm.collective].rooted:
        return (0,)
    return range(size) if size <= 8 else (0, size // 2)


def _prove_all_roots(task: tuple[Key, int]) -> tuple[Key, int, list[Proof], float]:
    key, size = task
    start = time.perf_counter()
    proofs = [prove(REGISTER[key], size, root) for root in roots(REGISTER[key], size)]
    return key, size, proofs, time.perf_counter() - start


def main(argv: Sequence[str]) -> int:
    """Returns 0 if all was proved, 1 at the first schedule that is wrong, 2 for a mistake in the arguments."""
    options = _parser().parse_args(argv)
    keys = [key for key in REGISTER if options.algorithm in (None, *key, ":".join(key))]
    if not keys:
        names = sorted({name for key in REGISTER for name in (*key, ":".join(key))})
        near = difflib.get_close_matches(options.algorithm, names)
        hint = f"; nearest: {', '.join(near)}" if near else "; docs/algorithms.md lists them"
        print(f"collx verify: no algorithm {options.algorithm!r}{hint}", file=sys.stderr)
        return 2
    sizes = [options.size] if options.size else options.sizes
    tasks = [(key, size) for key in keys for size in sizes if REGISTER[key].sizes(size)]
    if not tasks:
        print(f"collx verify: no algorithm {options.algorithm!r} takes these sizes", file=sys.stderr)
        return 2
    if options.larger:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
        print(f"larger sizes drawn with --seed {seed}")
        tasks += list(_larger(keys, options.larger, random.Random(seed)))
    start = time.perf_counter()
    try:
        tallies = _run(sorted(tasks, key=lambda task: -task[1]), options.jobs)
    except ScheduleError as error:
        print(f"collx verify: {error}", file=sys.stderr)
        return 1
    for key, tally in tallies.items():
        print(_line(key, tally))
    total, seconds = sum(tally.proofs for tally in tallies.values()), time.perf_counter() - start
    print(f"{len(tallies)} algorithms, {total} proofs in {seconds:.1f} s on {options.jobs} processes")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="collx verify",
        description="Prove that algorithms do what their collectives promise.",
        allow_abbrev=False,
    )
    parser.add_argument("algorithm", nargs="?", help="a name, a collective, or collective:name; all if left out")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", type=_size, help="one communicator size")
    which.add_argument("--sizes", type=_sizes, default=range(1, 65), metavar="A-B", help="all sizes A..B (1-64)")
    parser.add_argument(
        "--larger", type=_size, nargs="?", const=2, default=0, metavar="N", help="N random sizes above too"
    )
    parser.add_argument("--seed", type=int, help="for --larger")
    parser.add_argument("--jobs", type=_size, default=len(os.sched_getaffinity(0)), help="processes")
    return parser


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _sizes(text: str) -> range:
    low, dash, high = text.partition("-")
    sizes = range(_size(low), _size(high if dash else low) + 1)
    if not sizes:
        raise argparse.ArgumentTypeError(f"{text!r} has no size in it; write the smaller first")
    return sizes


def _larger(keys: list[Key], count: int, draw: random.Random) -> Iterator[tuple[Key, int]]:
    for key in keys:
        takes = [size for size in range(LARGER[0], LARGER[1] + 1) if REGISTER[key].sizes(size)]
        yield from ((key, size) for size in draw.sample(takes, min(count, len(takes))))


def _run(tasks: list[tuple[Key, int]], jobs: int) -> dict[Key, _Tally]:
    tallies = {key: _Tally() for key in REGISTER if any(task[0] == key for task in tasks)}
    with ProcessPoolExecutor(jobs, initializer=_begin_work) as pool:
        try:
            with interrupts_held_back():  # the first submit forks
                futures = [pool.submit(_prove_all_roots, task) for task in tasks]
            for key, size, proofs, seconds in _watched((future.result() for future in futures), len(tasks)):
                tallies[key].sizes.add(size)
                tallies[key].proofs += len(proofs)
                tallies[key].seconds += seconds
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()  # leaving the pool waits for the proofs under way, and they may take long
            raise
    return tallies


def _begin_work() -> None:
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    gc.disable()  # proofs make no reference cycles, and looking for them takes as long as the proofs


def _watched(
    results: Iterator[tuple[Key, int, list[Proof], float]], count: int
) -> Iterator[tuple[Key, int, list[Proof], float]]:
    """The results, with a progress bar where someone watches."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, total=count, description="proving", console=Console(stderr=True), transient=True)


def _line(key: Key, tally: _Tally) -> str:
    sizes = sorted(tally.sizes)
    dense = [size for i, size in enumerate(sizes) if size == sizes[0] + i]
    told = f"{sizes[0]}-{dense[-1]}" if len(dense) > 1 else str(sizes[0])
    told += "".join(f", {size}" for size in sizes[len(dense) :])
    return f"{':'.join(key):32} {tally.proofs:5} proofs, sizes {told}: {tally.seconds:.1f} s"
