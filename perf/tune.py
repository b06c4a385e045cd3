"""`collx tune`: measures which algorithm is the fastest at which size, for later jobs like this one to choose by."""

from __future__ import annotations

import os
import time
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import collx
from collx import tuning
from collx.bootstrap import LONE, find_place
from collx.cost.fitting import Fitted
from collx.perf import machine
from collx.perf.collectives import MEASURED, Arrays
from collx.perf.links import SECONDS, link_text, probe, worth_measuring
from collx.perf.measure import longest, settle
from collx.perf.options import UsageError, nbytes
from collx.perf.program import Parser, in_job, program
from collx.perf.progress import Progress
from collx.perf.race import candidates, race
from collx.perf.report import size_text
from collx.tuning import Key, Point, Table, layout_text, steps_of

TUNED = [name for name in MEASURED if name not in ("sendrecv", "barrier")]
_DTYPE = np.dtype(np.float32)
_SMALL = 1024  # bytes that are measured however long it takes
_SPARE = 1 << 30  # bytes that must stay free beside the arrays
_PROCESS = 16 << 20  # bytes that a rank takes at the least, before it has an array


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: at most so many seconds, and sizes by a factor of `step`, from 8 bytes."""

    name: str
    seconds: float
    step: int

    def sizes(self, most: int) -> list[int]:
        sizes = [8, 128, 1024] if self.step > 2 else [8, 16, 32, 64, 128, 256, 512, 1024]
        while sizes[-1] < most:
            sizes.append(min(sizes[-1] * self.step, most))
        return [size for size in sizes if size <= most]


QUICK, FULL = Effort("quick", 78, 4), Effort("full", 900, 2)


@dataclass(frozen=True, slots=True)
class Options:
    effort: Effort
    ranks: int | None
    seconds: float
    most: int


def parse(argv: list[str]) -> Options:
    """The options of a command line; UsageError says in one line what is wrong with it."""
    parser = Parser("collx tune", "Measure which algorithms are the fastest here, for later jobs to choose by.")
    add = parser.add_argument
    add("-n", "--ranks", type=int, help="ranks to start (the usable cores); inside a job, the job's")
    add("--quick", action="store_true", help=f"in at most {QUICK.seconds:.0f} s (the default)")
    add("--full", action="store_true", help=f"more sizes and more rounds, in at most {FULL.seconds / 60:.0f} min")
    add("--seconds", type=float, help="in at most so many")
    add("-e", "--maxbytes", default="64M", help="largest size (64M)")
    given = parser.parse_args(argv)
    if given.quick and given.full:
        raise UsageError("--quick or --full, not both")
    effort = FULL if given.full else QUICK
    options = Options(effort, given.ranks, given.seconds or effort.seconds, nbytes(given.maxbytes))
    if given.ranks is not None and given.ranks < 2:
        raise UsageError(f"-n {given.ranks}: one rank has nothing to choose; give at least 2")
    if options.seconds <= 0 or options.most < 8:
        raise UsageError("--seconds must be above 0, and -e at least 8")
    return options


def _weight(size: int) -> int:
    """Slices of the time: a call of so many bytes takes longer than a turn of many short ones."""
    return 1 if size <= 1 << 20 else 2 if size <= 4 << 20 else 4


def _points(comm: Any, options: Options, progress: Progress, links: Fitted | None) -> Iterator[tuple[str, Point, str]]:
    """What is measured, and what is chosen there without that; the smallest sizes first, until time has run out, as it
    does where links are slow. What a point leaves of its slices is for those that follow."""
    sizes = _sizes(comm, options)
    arrays = Arrays(max(sizes) // _DTYPE.itemsize)
    start, wanted = time.perf_counter(), [(name, size) for size in sizes for name in TUNED]
    for index, (name, size) in enumerate(wanted):
        case = MEASURED[name]
        whole = case.whole(size // _DTYPE.itemsize, comm.size)
        if whole * _DTYPE.itemsize > max(sizes) and index:
            continue
        progress.start(f"{name} {size_text(size)}")
        (passed,) = longest(comm, [time.perf_counter() - start])
        if passed >= options.seconds and size > _SMALL:
            return
        slices = sum(_weight(size) for _, size in wanted[index:])
        share = max(options.seconds - passed, 0.0) * _weight(size) / slices
        contest = comm.explain(name, whole * _DTYPE.itemsize)
        names = worth_measuring(comm, contest, candidates(comm, contest), links)
        calls = {one: arrays.call(comm, case, whole, one) for one in names}
        taken = race(comm, calls, share, contest.chosen)
        nanoseconds = {name: max(round(seconds * 1e9), 1) for name, seconds in taken.items()}
        yield name, Point(whole * _DTYPE.itemsize, nanoseconds), contest.chosen
        progress.advance()


def _sizes(comm: Any, options: Options) -> list[int]:
    """The sizes for which there is memory on every host."""
    here = comm.hosts.count(comm.hosts[comm.rank])
    (most,) = longest(comm, [-(machine.available() - _SPARE) / (2.0 * here)])
    return options.effort.sizes(int(min(options.most, max(-most, 1 << 20))))


def run(comm: Any, options: Options) -> int:
    """Measure on this communicator, every rank with the same options; rank 0 writes the table. The exit status."""
    speaks, start = comm.rank == 0, time.perf_counter()
    if comm.size < 2:
        raise UsageError("a job of one rank has nothing to choose; start it with at least 2")
    if speaks:
        tuning.may_write()
        print(f"collx tune: {comm.size} ranks, {options.effort.name}, at most {options.seconds:.0f} s", flush=True)
    settle(comm)
    links = probe(comm, min(SECONDS, options.seconds / 10))
    if links is not None:
        print("  links: " + ", ".join(map(link_text, links.links.values())), flush=True)
    points: dict[str, list[Point]] = {}
    held: dict[str, list[str]] = {}
    with Progress(len(TUNED) * len(_sizes(comm, options)), shown=speaks, left=True) as progress:
        for collective, point, chosen in _points(comm, options, progress, links):
            if not points.get(collective) or points[collective][-1].nbytes < point.nbytes:
                points.setdefault(collective, []).append(point)
                held.setdefault(collective, []).append(chosen)
    if speaks:
        key = Key(tuning.machine(), comm.size, layout_text(comm.hosts, comm.groups), "+".join(comm.transports))
        steps = {
            collective: steps_of(of, held[collective], partial(_changed, comm, collective))
            for collective, of in points.items()
        }
        known = {collective: tuple(of) for collective, of in points.items()}
        path = tuning.write(Table(key, steps, known, *(links or ())))
        for collective, of in steps.items():
            texts = (f"{s.algorithm} to {_about(s.nbytes)}" if s.nbytes else s.algorithm for s in of)
            print(f"  {collective:<14}  {', '.join(texts)}")
        print(f"wrote {path} after {time.perf_counter() - start:.0f} s: jobs like this one choose by it", flush=True)
    return 0


def _changed(comm: Any, collective: str, low: int, high: int) -> int:
    """The last size, from one to another, at which the same is chosen as at the first."""
    first = comm.explain(collective, low).chosen
    sizes = range(low, high, _DTYPE.itemsize)
    return sizes[bisect(sizes, False, key=lambda nbytes: comm.explain(collective, nbytes).chosen != first) - 1]


def _about(nbytes: int) -> str:
    """In three digits or four."""
    unit, sign = next((pair for pair in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")) if nbytes >= pair[0]), (1, ""))
    value = nbytes / unit
    return (f"{value:.3g}" if value < 1000 else f"{value:.0f}") + sign


@program("collx tune")
def main(argv: list[str]) -> int:
    """Run `collx tune` with these arguments. 0: measured and written; 1: a failed rank, or the table could not be
    written; 2: a mistake on the command line or in COLLX_*, one line on stderr."""
    options = parse(argv)
    if find_place(os.environ) is not LONE:
        return in_job(options.ranks, lambda comm: None, lambda comm: run(comm, options))
    ranks = options.ranks or len(os.sched_getaffinity(0))
    if ranks < 2:
        raise UsageError("one rank has nothing to choose; give -n, at least 2")
    if ranks * _PROCESS > machine.available():
        raise UsageError(f"-n {ranks}: there is memory here for at most {int(machine.available() // _PROCESS)} ranks")
    statuses: list[int] = collx.spawn(run, ranks, options)
    return max(statuses)
