"""The sweep's command line: nccl-tests' flags, and every mistake as one line before anything runs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

import collx.algorithms  # noqa: F401  (fills the register)
from collx.perf import gpu
from collx.perf.collectives import MEASURED, Measured
from collx.perf.options import NCCL_TYPES, Options, UsageError, fits, nbytes, nearest
from collx.perf.program import Parser
from collx.plugins import command_line_algorithm
from collx.schedule import REGISTER
from collx.types import DTYPES, OPS

_PICTURES = (".png", ".pdf", ".svg")
MPI = "mpi"  # the algorithm that is none of the register: MPI's own collective, where MPI joins the ranks
_NOT_ON_FLOATS = ("band", "bor", "bxor")


def _parser() -> Parser:
    parser = Parser("collx perf", "Bandwidth and latency of a collective, as nccl-tests measures them.")
    add = parser.add_argument
    add("collective", help=", ".join(MEASURED))
    add("-n", "--ranks", type=int, help="ranks to start (2); inside a job, the job's")
    add("-b", "--minbytes", default="8", help="smallest size (8)")
    add("-e", "--maxbytes", default="64M", help="largest size (64M)")
    add("-f", "--stepfactor", type=float, default=2.0, help="from one size to the next (2)")
    add(
        "--algorithm",
        default="",
        help="one or several with commas, by name or as module:function, or all: side by side; default: collx chooses",
    )
    add("-d", "--dtype", default="float32", help="NumPy's or nccl-tests' name (float32)")
    add("-o", "--op", default="sum", help="reduction (sum)")
    add("-r", "--root", type=int, default=0, help="root of broadcast, reduce, gather and scatter (0)")
    add("-w", "--warmup", type=int, default=5, help="untimed calls before each measurement (5)")
    add("--iters", type=int, default=20, help="timed calls per measurement (20)")
    add("-c", "--check", type=int, default=1, help="checked calls per measurement, each on fresh data (1)")
    add("--seconds", type=float, default=1.0, help="time for a measurement; slow ones make fewer calls, at least 2 (1)")
    add("--seed", type=int, default=1, help="of the random data (1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the arrays lie (cpu)")
    add(
        "--sync",
        default="",
        help="how ranks wait for each other's work on GPUs: host, event, memop or spin; several side by side",
    )
    add("--json", type=Path, help="write the results in nccl-tests' layout")
    add("--csv", type=Path, help="write the results as a table")
    add("--plot", type=Path, help="write time and bandwidth over size as a picture")
    add(
        "--vs",
        default="",
        help="measure against other libraries in the same run: openmpi, mpich, intelmpi, gloo; mpi, all; on GPUs: nccl",
    )
    return parser


def parse(argv: list[str]) -> Options:
    """The options of a command line; UsageError says in one line what is wrong with it."""
    given = _parser().parse_args(argv)
    if given.collective not in MEASURED:
        raise nearest("collective", given.collective, MEASURED)
    case = MEASURED[given.collective]
    options = Options(
        case,
        given.ranks,
        nbytes(given.minbytes),
        nbytes(given.maxbytes),
        given.stepfactor,
        _algorithms(case, given.algorithm),
        given.algorithm == "all",
        _dtype(given.dtype),
        given.op,
        given.root,
        given.warmup,
        given.iters,
        given.check,
        given.seconds,
        given.seed,
        given.json,
        given.csv,
        given.plot,
        _names(given.vs),
        given.device,
        _names(given.sync),
        tuple(argv),
    )
    _check_numbers(options)
    _check_op(options)
    _check_files(options)
    _check_device(options)
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, text.split(","))))


def _dtype(name: str) -> np.dtype[Any]:
    known = {dtype.name: dtype for dtype in DTYPES}
    known |= {nccl: known[numpy] for numpy, nccl in NCCL_TYPES.items()}
    if name not in known:
        raise nearest("dtype", name, known)
    return known[name]


def _algorithms(case: Measured, text: str) -> tuple[str, ...]:
    known = [name for collective, name in REGISTER if collective == case.name]
    if text and (not known or case.name == "barrier"):
        raise UsageError(f"{case.name} takes no --algorithm")
    if text == "all":
        return tuple(known)
    names = tuple(dict.fromkeys(text.split(","))) if text else ()
    for name in names:
        if name == MPI:
            continue
        try:
            found = command_line_algorithm(case.name, name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if found is None:
            raise nearest(f"algorithm of {case.name}", name, known)
    return names


def _check_numbers(options: Options) -> None:
    rules = (
        (options.ranks is None or options.ranks >= 1, "-n must be at least 1"),
        (options.begin <= options.end, "-b must not exceed -e"),
        (options.factor > 1, "-f must be above 1"),
        (options.warmup >= 0, "-w must not be negative"),
        (options.iterations >= 1, "--iters must be at least 1"),
        (options.check >= 0, "--check must not be negative"),
        (options.seconds > 0, "--seconds must be above 0"),
        (options.seed >= 0, "--seed must not be negative"),
        (options.root >= 0, "--root must not be negative"),
    )
    for holds, message in rules:
        if not holds:
            raise UsageError(message)
    if options.ranks is not None:
        fits(options, options.ranks)


def _check_op(options: Options) -> None:
    known = [op for op in OPS if op != "custom"]
    if options.op not in known:
        raise nearest("op", options.op, known)
    if not options.case.reduces:
        return
    kind = options.dtype.kind
    exact = kind in "biu"
    refused = (
        (options.op in _NOT_ON_FLOATS and not exact)
        or (options.op == "avg" and (exact or options.case.name in ("scan", "exscan")))
        or (options.op in ("min", "max") and kind == "c")
    )
    if refused:
        raise UsageError(f"{options.case.name} has no {options.op} for {options.dtype.name}")


def _check_device(options: Options) -> None:
    if options.device == "cpu" and options.sync:
        raise UsageError("--sync is about calls on GPUs: --device cuda")
    if options.device == "cpu":
        return
    if options.case.name == "barrier":
        raise UsageError("a barrier has no arrays, on GPUs or elsewhere: leave --device cuda out")
    for mode in options.sync:
        if mode not in gpu.SYNC_MODES:
            raise nearest("sync mode", mode, gpu.SYNC_MODES)
    if len(options.sync) > 1 and len(options.algorithms) > 1:
        raise UsageError("--sync compares modes, --algorithm algorithms: name several of one only")
    if options.versus not in ((), ("nccl",)):
        raise UsageError("--device cuda compares with nccl only: --vs nccl")
    if options.versus and len(options.sync) > 1:
        raise UsageError("--vs nccl takes one --sync mode")
    if lacking := gpu.missing(options.dtype):
        raise UsageError(f"--device cuda: {lacking}")


def _check_files(options: Options) -> None:
    if options.versus and (options.algorithms or options.csv or options.plot):
        raise UsageError("--vs compares what collx chooses and writes --json only: no --algorithm, --csv or --plot")
    for path in (options.json, options.csv, options.plot):
        if path is not None and (reason := _unwritable(path)):
            raise UsageError(f"cannot write {path}: {reason}")
    if options.plot is not None and options.plot.suffix not in _PICTURES:
        raise UsageError(f"--plot {options.plot}: the name must end in {', '.join(_PICTURES)}")
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib; install it with: pip install 'collx[plot]'")


def _unwritable(path: Path) -> str:
    """Why it cannot be written, as far as that can be known now: after the sweep is late."""
    if str(path) == "-":
        return "the table is on stdout; name a file"
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return "no such directory"
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "permission denied"
