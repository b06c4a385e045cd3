"""`collx perf`: sweeps one collective over sizes and algorithms, timed and checked, as nccl-tests does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import collx
from collx.bootstrap import LONE, find_place
from collx.perf import machine, record, table
from collx.perf.arguments import MPI, parse
from collx.perf.collectives import Call, bind
from collx.perf.contributions import Contributions
from collx.perf.device import HOST, Device, Ways
from collx.perf.measure import Timing, rubbish, timed, wrong
from collx.perf.options import Options, UsageError, affordable, fits
from collx.perf.points import Cell, Point, Sweep
from collx.perf.program import in_job, program
from collx.perf.progress import Progress
from collx.perf.roof import least_bytes

_DEFAULT_RANKS = 2


class _Buffers:
    """One rank's memory, as long as the largest size needs; smaller sizes use the beginning of each."""

    def __init__(self, comm: Any, options: Options, whole: int, device: Device) -> None:
        send, receive = options.case.lengths(whole, whole // comm.size)
        lengths = (send, receive, whole if options.case.in_place else 0)
        self.x, self.out, self.shared = (device.empty(length, options.dtype) for length in lengths)
        for array in (self.x, self.out, self.shared):
            device.write(array, np.zeros(1, options.dtype))


class _Size:
    """One size of the sweep on one rank: its calls by way and placement, and their right results."""

    def __init__(self, ways: Ways, options: Options, buffers: _Buffers, whole: int, device: Device) -> None:
        self.ways, self.options, self.case, self.device = ways, options, options.case, device
        self.comm = next(iter(ways.values())).comm
        self.whole, self.part = whole, whole // self.comm.size
        self.nbytes = whole * options.dtype.itemsize
        self.count = self.part if self.case.per_rank else whole
        send, receive = self.case.lengths(whole, self.part)
        self.shared = buffers.shared[:whole]
        self.places = {False: (buffers.x[:send], buffers.out[:receive])}
        if self.case.in_place:
            self.places[True] = self.case.views(self.shared, self.comm.rank, self.part)

    def call(self, name: str, in_place: bool) -> Call:
        options, way = self.options, self.ways[name]
        return bind(way.comm, self.case, *self.places[in_place], options.op, options.root, way.algorithm or None)

    def time(self, name: str, in_place: bool) -> Timing:
        options, device = self.options, self.device
        if in_place:  # results feed the next call: zeros stay zeros, where other values would run into infinities
            device.write(self.shared, np.zeros(1, options.dtype))
        else:
            device.write(self.places[False][0], np.ones(1, options.dtype))
        call = self.call(name, in_place)
        return timed(self.comm, call, options.warmup, options.iterations, options.seconds, device)

    def check(self, cells: list[tuple[str, bool]], seed: int) -> list[int]:
        """What is wrong with one call of each (way, in place) on fresh data: elements over all ranks."""
        comm, options, device = self.comm, self.options, self.device
        op = options.op if self.case.reduces else "max"
        data = Contributions(op, options.dtype, comm.size, seed)
        expected = data.expected(self.case, comm.rank, options.root, self.whole, self.part)
        mine = data.of(comm.rank, self.case.lengths(self.whole, self.part)[0])
        found = []
        for name, in_place in cells:
            x, out = self.places[in_place]
            device.write(self.shared if in_place else out, rubbish(options.dtype))
            if self.case.name != "broadcast" or comm.rank == options.root:
                device.write(x, mine)
            found.append(wrong(comm, self.call(name, in_place), partial(device.read, out, options.dtype), expected))
        return found


def _points(size: _Size, seed: int, roof: float | None) -> list[Point]:
    """Time every way in every placement, then check them all on the same fresh data."""
    case, options = size.case, size.options
    places = [place for place, has in ((False, case.out_of_place), (True, case.in_place)) if has]
    wanted = [(name, place) for name in size.ways for place in places]
    timings = {key: size.time(*key) for key in wanted}
    found = dict.fromkeys(wanted, 0)
    for repetition in range(options.check):
        for key, count in zip(wanted, size.check(wanted, seed + repetition), strict=True):
            found[key] += count
    busbw = case.busbw(size.comm.size)

    def cell(name: str, place: bool) -> Cell | None:
        timing = timings.get((name, place))
        if timing is None:
            return None
        algbw = size.nbytes / timing.mean / 1e9
        share = None
        if roof is not None:
            moved = least_bytes(case.name, size.comm.size, options.root, size.nbytes, place)
            share = moved / timing.mean / roof
        return Cell(timing, algbw, algbw * busbw, found[name, place] if options.check else None, share)

    return [Point(size.nbytes, size.count, name, cell(name, False), cell(name, True)) for name in size.ways]


def _devices(comm: Any, device: Device) -> list[dict[str, Any]]:
    """Who runs where, in rank order; nccl-tests' devices, which on the host are processor cores."""
    number, name, info = device.card(comm)
    rows = comm.all_gather(np.array([[os.getpid(), number]], np.int64)).tolist()
    names, infos = (_texts(comm, [text], 128) for text in (name, info))
    return [
        {
            "rank": rank,
            "group": 0,
            "pid": pid,
            "hostname": comm.hosts[rank],
            "device": number,
            "device_hex": name,
            "device_info": info,
        }
        for rank, ((pid, number), [name], [info]) in enumerate(zip(rows, names, infos, strict=True))
    ]


def _texts(comm: Any, mine: Sequence[str], longest: int) -> list[list[str]]:
    """By rank, the texts that it gave, as many as every other; of `longest` bytes at most."""
    given = np.array([text.encode()[:longest] for text in mine], f"S{longest}")
    rows = comm.all_gather(given.view(np.uint8)).view(given.dtype)
    return [[text.decode(errors="replace") for text in row] for row in rows.reshape(comm.size, len(mine))]


def _now() -> str:
    return time.strftime(record.TIME_FORMAT)


def _say(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


def run(comm: Any, options: Options, device: Device = HOST) -> Sweep:
    """Sweep on this communicator, every rank with the same options; rank 0 prints the table as it grows."""
    options = fits(options, comm.size)
    ways = device.ways(comm, options)
    links = _texts(comm, comm.links, 16)
    devices = _devices(comm, device)
    sweep = Sweep(options, collx.__version__, machine.describe(), devices, links, _now(), tuple(ways))
    sweep.gpus = device.gpus(comm, ways, devices)
    speaks = comm.rank == 0
    if speaks:
        _say(table.header(sweep))
    sizes = options.sizes(comm.size)
    buffers = _Buffers(comm, options, max(sizes), device)
    with Progress(len(sizes), shown=speaks) as progress:
        for index, whole in enumerate(sizes):
            size = _Size(ways, options, buffers, whole, device)
            progress.start(f"{options.case.name} {size.nbytes} B")
            points = _points(size, options.seed + index * max(options.check, 1), sweep.roof)
            sweep.points += points
            if options.algorithms:
                sweep.chosen[size.nbytes] = device.chosen(comm, options.case.name, size.nbytes)
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
    return 1 if run(comm, options, _device(comm, options)).wrong else 0


def _device(comm: Any, options: Options) -> Device:
    if options.device == "cpu":
        return HOST
    from collx.perf import gpu

    return gpu.on_gpu(comm, options)


def _in_job(options: Options) -> int:
    def possible(comm: collx.Communicator) -> None:
        affordable(fits(options, comm.size), comm.size)
        _joined_as_asked(options, comm.transports)

    return in_job(options.ranks, possible, lambda comm: _rank(comm, options))


def _joined_as_asked(options: Options, transports: tuple[str, ...]) -> None:
    if MPI in options.algorithms and "mpi" not in transports:
        raise UsageError("--algorithm mpi needs ranks that MPI joins: COLLX_TRANSPORT=mpi, under mpirun or mpiexec")


@program("collx perf")
def main(argv: list[str]) -> int:
    """Run `collx perf` with these arguments. 0: measured and right; 1: wrong results or a failed rank; 2: a mistake
    on the command line or in COLLX_*, one line on stderr."""
    options = parse(argv)
    inside = find_place(os.environ) is not LONE
    if options.versus and options.device == "cpu" and inside:
        raise UsageError("--vs starts jobs of its own: use it outside of one")
    if options.versus and options.device == "cpu":
        from collx.perf import peers

        return peers.versus(options)
    if inside:
        return _in_job(options)
    _joined_as_asked(options, ())
    ranks = options.ranks or _DEFAULT_RANKS
    affordable(fits(options, ranks), ranks)
    statuses: list[int] = collx.spawn(_rank, ranks, options)
    return max(statuses)
