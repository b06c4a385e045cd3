"""`collx perf`: sweeps one collective over sizes and algorithms, timed and checked, as nccl-tests does."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

import collx
from collx.bootstrap import LONE, find_place
from collx.perf import machine, record, table
from collx.perf.arguments import MPI, parse
from collx.perf.collectives import Call, bind
from collx.perf.contributions import Contributions
from collx.perf.measure import Timing, spoil, timed, wrong
from collx.perf.options import Options, UsageError, affordable, fits
from collx.perf.points import Cell, Point, Sweep
from collx.perf.program import program
from collx.perf.progress import Progress

_DEFAULT_RANKS = 2


class _Buffers:
    """One rank's memory, as long as the largest size needs; smaller sizes use the beginning of each."""

    def __init__(self, comm: Any, options: Options, whole: int) -> None:
        send, receive = options.case.lengths(whole, whole // comm.size)
        self.x, self.out = np.ones(send, options.dtype), np.zeros(receive, options.dtype)
        self.shared = np.zeros(whole if options.case.in_place else 0, options.dtype)


class _Size:
    """One size of the sweep on one rank: its calls by algorithm and placement, and their right results."""

    def __init__(self, comm: Any, options: Options, buffers: _Buffers, whole: int) -> None:
        self.comm, self.options, self.case = comm, options, options.case
        self.whole, self.part = whole, whole // comm.size
        self.nbytes = whole * options.dtype.itemsize
        self.count = self.part if self.case.per_rank else whole
        send, receive = self.case.lengths(whole, self.part)
        self.shared = buffers.shared[:whole]
        self.places = {False: (buffers.x[:send], buffers.out[:receive])}
        if self.case.in_place:
            self.places[True] = self.case.views(self.shared, comm.rank, self.part)

    def call(self, algorithm: str, in_place: bool) -> Call:
        options = self.options
        return bind(self.comm, self.case, *self.places[in_place], options.op, options.root, algorithm or None)

    def time(self, algorithm: str, in_place: bool) -> Timing:
        options = self.options
        if in_place:  # results feed the next call: zeros stay zeros, where other values would run into infinities
            self.shared[...] = 0
        else:
            self.places[False][0][...] = 1
        call = self.call(algorithm, in_place)
        return timed(self.comm, call, options.warmup, options.iterations, options.seconds)

    def check(self, cells: list[tuple[str, bool]], seed: int) -> list[int]:
        """What is wrong with one call of each (algorithm, in place) on fresh data: elements over all ranks."""
        comm, options = self.comm, self.options
        op = options.op if self.case.reduces else "max"
        data = Contributions(op, options.dtype, comm.size, seed)
        expected = data.expected(self.case, comm.rank, options.root, self.whole, self.part)
        mine = data.of(comm.rank, self.case.lengths(self.whole, self.part)[0])
        found = []
        for algorithm, in_place in cells:
            x, out = self.places[in_place]
            spoil(self.shared if in_place else out)
            if self.case.name != "broadcast" or comm.rank == options.root:
                x[...] = mine
            found.append(wrong(comm, self.call(algorithm, in_place), out, expected))
        return found


def _points(size: _Size, algorithms: tuple[str, ...], seed: int) -> list[Point]:
    """Time every algorithm in every placement, then check them all on the same fresh data."""
    case, options = size.case, size.options
    places = [place for place, has in ((False, case.out_of_place), (True, case.in_place)) if has]
    wanted = [(algorithm, place) for algorithm in algorithms for place in places]
    timings = {key: size.time(*key) for key in wanted}
    found = dict.fromkeys(wanted, 0)
    for repetition in range(options.check):
        for key, count in zip(wanted, size.check(wanted, seed + repetition), strict=True):
            found[key] += count
    busbw = case.busbw(size.comm.size)

    def cell(algorithm: str, place: bool) -> Cell | None:
        timing = timings.get((algorithm, place))
        if timing is None:
            return None
        algbw = size.nbytes / timing.mean / 1e9
        return Cell(timing, algbw, algbw * busbw, found[algorithm, place] if options.check else None)

    return [Point(size.nbytes, size.count, name, cell(name, False), cell(name, True)) for name in algorithms]


def _devices(comm: Any, host: dict[str, Any]) -> list[dict[str, Any]]:
    """Who runs where, in rank order; nccl-tests' devices, ours being processor cores."""
    mine = np.array([[os.getpid(), comm.local_rank]], np.int64)
    rows = comm.all_gather(mine).tolist()
    return [
        {
            "rank": rank,
            "group": 0,
            "pid": pid,
            "hostname": comm.hosts[rank],
            "device": local,
            "device_hex": "cpu",
            "device_info": host["cpu"],
        }
        for rank, (pid, local) in enumerate(rows)
    ]


def _links(comm: Any) -> list[list[str]]:
    """By rank and peer, the transport between them."""
    rows = comm.all_gather(np.array(comm.links, "S16").view(np.uint8)).view("S16")
    return [[link.decode() for link in row] for row in rows.reshape(comm.size, comm.size)]


def _now() -> str:
    return time.strftime(record.TIME_FORMAT)


def _say(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


def run(comm: Any, options: Options) -> Sweep:
    """Sweep on this communicator, every rank with the same options; rank 0 prints the table as it grows."""
    options = fits(options, comm.size)
    host = machine.describe()
    sweep = Sweep(options, collx.__version__, host, _devices(comm, host), _links(comm), _now())
    speaks = comm.rank == 0
    if speaks:
        _say(table.header(sweep))
    sizes = options.sizes(comm.size)
    buffers = _Buffers(comm, options, max(sizes))
    with Progress(len(sizes), shown=speaks) as progress:
        for index, whole in enumerate(sizes):
            size = _Size(comm, options, buffers, whole)
            progress.start(f"{options.case.name} {size.nbytes} B")
            points = _points(size, options.algorithms or ("",), options.seed + index * max(options.check, 1))
            sweep.points += points
            if options.algorithms:
                sweep.chosen[size.nbytes] = comm.explain(options.case.name, size.nbytes).chosen
            if speaks:
                _say([table.row(sweep, points)])
            progress.advance()
    if speaks:
        _say(table.footer(sweep))
        _write(sweep)
    return sweep


def _write(sweep: Sweep) -> None:
    options = sweep.options
    if options.json:
        record.write_json(sweep, options.json, _now())
    if options.csv:
        record.write_csv(sweep, options.csv)
    if options.plot:
        record.write_plot(sweep, options.plot)


def _rank(comm: Any, options: Options) -> int:
    """One rank of a sweep; the exit status: 1 where anything was wrong."""
    return 1 if run(comm, options).wrong else 0


def _in_job(options: Options) -> int:
    with collx.init() as comm:
        if options.ranks not in (None, comm.size):
            raise UsageError(f"-n {options.ranks} inside a job of {comm.size} ranks; leave -n out")
        affordable(fits(options, comm.size), comm.size)
        _joined_as_asked(options, comm.transports)
        return _rank(comm, options)


def _joined_as_asked(options: Options, transports: tuple[str, ...]) -> None:
    if MPI in options.algorithms and "mpi" not in transports:
        raise UsageError("--algorithm mpi needs ranks that MPI joins: COLLX_TRANSPORT=mpi, under mpirun or mpiexec")


@program("collx perf")
def main(argv: list[str]) -> int:
    """Run `collx perf` with these arguments. 0: measured and right; 1: wrong results or a failed rank; 2: a mistake
    on the command line or in COLLX_*, one line on stderr."""
    options = parse(argv)
    inside = find_place(os.environ) is not LONE
    if options.versus and inside:
        raise UsageError("--vs starts jobs of its own: use it outside of one")
    if options.versus:
        from collx.perf import peers

        return peers.versus(options)
    if inside:
        return _in_job(options)
    _joined_as_asked(options, ())
    ranks = options.ranks or _DEFAULT_RANKS
    affordable(fits(options, ranks), ranks)
    statuses: list[int] = collx.spawn(_rank, ranks, options)
    return max(statuses)
