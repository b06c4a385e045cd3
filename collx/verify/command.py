"""`collx verify`: proves registered algorithms and prints what was proved."""

from __future__ import annotations

import argparse
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

from collx.collectives import COLLECTIVES
from collx.errors import ScheduleError
from collx.lifeline import die_with, interrupts_held_back
from collx.schedule import REGISTER, Algorithm, Groups
from collx.verify.groupings import a_grouping
from collx.verify.named import Key, keys_of, roots, source_of, takes
from collx.verify.own import prove_own
from collx.verify.proof import Proof, prove

LARGER = (257, 512)  # as far as two proofs fit into memory


@dataclass(slots=True)
class _Tally:
    """What was proved of one algorithm so far."""

    groupings: int = 0
    sizes: set[int] = field(default_factory=set)
    proofs: int = 0
    seconds: float = 0.0
    largest: Proof | None = None


Task = tuple[Key, int, Groups]  # an algorithm on that many ranks, in these groups if there are any
Proved = tuple[Task, list[Proof], float]


def _prove_all_roots(task: Task) -> Proved:
    key, size, groups = task
    start = time.perf_counter()
    source = source_of(key)
    if isinstance(source, Algorithm):
        source = source.over(groups) if groups and source.over else source
        proofs = [prove(source, size, root) for root in roots(key[0], size)]
    else:
        proofs = [prove_own(source, key[0], size, root) for root in roots(key[0], size)]
    return task, proofs, time.perf_counter() - start


def main(argv: Sequence[str]) -> int:
    """Returns 0 if all was proved, 1 at the first schedule that is wrong, 2 for a mistake in the arguments."""
    options = _parser().parse_args(argv)
    try:
        keys = keys_of(options.algorithm, options.collective)
    except ValueError as error:
        print(f"collx verify: {error}", file=sys.stderr)
        return 2
    sizes = [options.size] if options.size else options.sizes
    tasks: list[Task] = [(key, size, ()) for key in keys for size in sizes if takes(key, size)]
    if not tasks:
        print(f"collx verify: no algorithm {options.algorithm!r} takes these sizes", file=sys.stderr)
        return 2
    if options.larger or options.groupings:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
        print(f"larger sizes and groupings drawn with --seed {seed}")
        tasks += _larger(keys, options.larger, random.Random(seed))
        tasks += _grouped(keys, options.groupings, random.Random(seed))
    start = time.perf_counter()
    try:
        tallies = _run(sorted(tasks, key=lambda task: -task[1]), options.jobs)
    except ScheduleError as error:
        print(f"collx verify: {error}", file=sys.stderr)
        return 1
    for key, tally in tallies.items():
        print(_line(key, tally))
        if tally.largest is not None and not isinstance(source_of(key), Algorithm):
            print(_found(tally.largest))
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
    parser.add_argument(
        "algorithm", nargs="?", help="a name, a collective, collective:name, or module:function; all if left out"
    )
    parser.add_argument("--collective", choices=COLLECTIVES, help="of a function; by default the one it is named after")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", type=_size, help="one communicator size")
    which.add_argument("--sizes", type=_sizes, default=range(1, 65), metavar="A-B", help="all sizes A..B (1-64)")
    parser.add_argument(
        "--larger", type=_size, nargs="?", const=2, default=0, metavar="N", help="N random sizes above too"
    )
    parser.add_argument(
        "--groupings", type=_size, default=0, metavar="N", help="N random groupings of up to 256 ranks too"
    )
    parser.add_argument("--seed", type=int, help="for --larger and --groupings")
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


def _larger(keys: list[Key], count: int, draw: random.Random) -> Iterator[Task]:
    for key in keys:
        sizes = [size for size in range(LARGER[0], LARGER[1] + 1) if takes(key, size)]
        yield from ((key, size, ()) for size in draw.sample(sizes, min(count, len(sizes))))


def _grouped(keys: list[Key], count: int, draw: random.Random) -> Iterator[Task]:
    drawn = [a_grouping(draw) for _ in range(count)]
    for key in keys:
        source = source_of(key)
        if isinstance(source, Algorithm) and source.over:
            yield from ((key, sum(map(len, groups)), groups) for groups in drawn)


def _run(tasks: list[Task], jobs: int) -> dict[Key, _Tally]:
    proved = {task[0] for task in tasks}
    tallies = {key: _Tally() for key in (*REGISTER, *proved) if key in proved}
    with ProcessPoolExecutor(jobs, initializer=_begin_work) as pool:
        try:
            with interrupts_held_back():  # the first submit forks
                futures = [pool.submit(_prove_all_roots, task) for task in tasks]
            for (key, size, groups), proofs, seconds in _watched((future.result() for future in futures), len(tasks)):
                if groups:
                    tallies[key].groupings += 1
                else:
                    tallies[key].sizes.add(size)
                tallies[key].proofs += len(proofs)
                tallies[key].seconds += seconds
                tallies[key].largest = max(
                    (tallies[key].largest, *proofs), key=lambda proof: proof.size if proof else 0
                )
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()  # leaving the pool waits for the proofs under way, and they may take long
            raise
    return tallies


def _begin_work() -> None:
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    gc.disable()  # proofs make no reference cycles, and looking for them takes as long as the proofs


def _watched(results: Iterator[Proved], count: int) -> Iterator[Proved]:
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
    told += f", {tally.groupings} groupings" * bool(tally.groupings)
    return f"{':'.join(key):32} {tally.proofs:5} proofs, sizes {told}: {tally.seconds:.1f} s"


def _found(proof: Proof) -> str:
    """What was found out about a function, of which nothing is claimed."""
    order = "rank order is kept" if proof.ordered else "rank order is not kept"
    counts = "equal counts only" if proof.uniform else "any counts"
    ranks = f"on {proof.size} ranks {proof.rounds} rounds, {proof.volume} of the buffer sent by the busiest"
    return f"    {ranks}; {order}, {counts}"
