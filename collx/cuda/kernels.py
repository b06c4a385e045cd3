"""The kernels of GPUs: which there are, and what one launch is told.

A launch does a table of folds, so that a step of a plan is one launch whatever the number of its folds. The table goes
by value, as the kernel's parameter: a short one for the few ranks of a host, a long one where that is full.

How much is in flight decides how fast memory is. An H200 brings 4.8 TB/s over a latency of some 0.7 us, so 3.4 MB must
be under way, 25 KB per multiprocessor. Two blocks of 256 threads with 4 loads of 16 bytes each, as in a fold of two
sources, have 32 KB under way, with 8 loads twice that (`rows` and `columns` in ops.cu).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from collx.transports.cuda.driver import Driver, Program
from collx.types import DTYPES, ReduceOp, supports

THREADS = 256  # of a block
RESIDENT = 2  # blocks that a multiprocessor's registers must have room for at once
BLOCKS = 6  # at most so many per multiprocessor: all in two or three turns, as 2 or 3 are resident
COPIED = 1 << 20  # from so many bytes on a copy to one target is left to the copy engine, which nothing else needs
SHORT, LONG = 64, 512  # words of a table; 4 KiB is what every GPU takes as a kernel's parameter

_TABLE_HEAD, _FOLD, _SIGNALS_HEAD = 2, 3, 5  # words of a Table, a Fold and Signals before what they list
_SCALED, _SCATTERED = 1, 2


class Move(NamedTuple):
    """A fold where it lies: `nbytes` from each address of `sources`, in this order, to each of `targets`. A target may
    be one of the sources; otherwise they do not overlap."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    nbytes: int
    scale: bool = False


Queue = Callable[[int], None]  # queues something on a stream


class Kernels:
    """The kernels of one device, compiled as they are asked for. That device must be the one in use."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self._driver = driver
        self._blocks = BLOCKS * driver.device(ordinal).multiprocessors
        self._programs: dict[str, Program] = {}

    def fold(
        self, moves: Iterable[Move], dtype: np.dtype[Any], op: str, size: int, stream: int, guard: int = 0
    ) -> None:
        """Queue what `prepared` prepares."""
        for queue in self.prepared(moves, dtype, op, size, guard):
            queue(stream)

    def prepared(self, moves: Iterable[Move], dtype: np.dtype[Any], op: str, size: int, guard: int = 0) -> list[Queue]:
        """What does moves of which none writes what another reads or writes. All is compiled and loaded by then: to
        load a kernel, the driver may wait for streams, which would not do where one of them waits for a peer already.

        `size`: what scaled moves divide by. Where the word at the address `guard` is not 0 when they begin, nothing is
        written."""
        queues: list[Queue] = []
        kinds: dict[str, list[_Entry]] = {}
        for move in moves:
            if not move.nbytes:
                continue
            if len(move.sources) > 1 or move.scale:
                name, item, word = _elements(dtype)
                kinds.setdefault(f"fold_{name}_{op}", []).append(_entry(move, item, word))
            elif len(move.targets) == 1 and move.nbytes >= COPIED and not guard:
                queues.append(partial(self._driver.copy, move.targets[0], move.sources[0], move.nbytes))
            else:
                unit = _unit(move)
                kinds.setdefault(f"copy_{unit}", []).append(_entry(move, unit, unit))
        for name, entries in kinds.items():
            queues += (self._launch(name, table, size, guard) for table in _tables(entries))
        return queues

    def _launch(self, name: str, table: Sequence[_Entry], size: int, guard: int) -> Queue:
        words: list[int] = [size, guard]
        pointers, addresses = _FOLD * len(table), list[int]()
        for entry in table:
            shape = pointers | len(entry.sources) << 16 | len(entry.targets) << 32 | entry.flags << 48
            words += entry.elements, entry.head, shape
            addresses += entry.sources
            addresses += entry.targets
            pointers += len(entry.sources) + len(entry.targets)
        nwords = _table_words(_TABLE_HEAD + pointers)
        most = max(entry.turns for entry in table)
        grid = min(-(-most // THREADS), -(-self._blocks // len(table))), len(table)
        kernel = f"{name}_{nwords}"
        return partial(self._program(kernel).launch, kernel, grid, THREADS, _packed(words + addresses, nwords))

    def load(self, *names: str) -> None:
        """Load what "signal", "wait" or "count" uses for up to some 60 words: see `prepared`."""
        for name in names:
            self._program(f"{name}_{SHORT}")

    def signal(self, words: Sequence[int], value: int, stream: int, *, status: int = 0) -> None:
        """Queue a write of `value` to the 64-bit words at these addresses, which is seen by GPUs and hosts no earlier
        than all that the stream's kernels wrote before it; no write where the word at `status` is not 0."""
        self._tell("signal", words, (value, 0, 0, status), stream)

    def wait(
        self, words: Sequence[int], value: int, stream: int, *, abort: int = 0, limit: float = 0.0, status: int = 0
    ) -> None:
        """Have the stream wait, by a kernel, until each of these words is `value` or more. Only where kernels of all
        ranks run at once. It gives up when the word at `abort` is not 0, and after `limit` seconds, and sets the word
        at `status` to 1 then; where that is not 0, nothing is waited for. 0 for none."""
        self._tell("wait", words, (value, abort, int(limit * 1e9), status), stream)

    def count(self, word: int, stream: int) -> None:
        """Queue an addition of 1 to the word at this address, which nothing else writes."""
        self._tell("count", [word], (1, 0, 0, 0), stream)

    def _tell(self, what: str, words: Sequence[int], head: tuple[int, ...], stream: int) -> None:
        for begin in range(0, len(words), LONG - _SIGNALS_HEAD):
            some = words[begin : begin + LONG - _SIGNALS_HEAD]
            nwords = _table_words(_SIGNALS_HEAD + len(some))
            kernel, threads = f"{what}_{nwords}", -(-min(len(some), THREADS) // 32) * 32
            self._program(kernel).launch(kernel, (1, 1), threads, _packed((*head, len(some), *some), nwords), stream)

    def _program(self, kernel: str) -> Program:
        if kernel not in self._programs:
            self._programs[kernel] = self._driver.program(source([kernel]), [kernel])
        return self._programs[kernel]


class _Entry(NamedTuple):
    """A move as the table has it, see `Fold` in folds.cu. `turns`: threads that have something to do at once."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    elements: int
    head: int
    flags: int
    turns: int


@cache
def _elements(dtype: np.dtype[Any]) -> tuple[str, int, int]:
    """A dtype's name, its bytes, and what an address must be a multiple of for them to be loaded as they are."""
    return dtype.name, dtype.itemsize, dtype.itemsize // (2 if dtype.kind == "c" else 1)


def _entry(move: Move, item: int, word: int) -> _Entry:
    elements, begin = move.nbytes // item, move.sources[0]
    odd = apart = 0  # bits that are set in some address, or not the same in all
    for address in (*move.sources, *move.targets):
        odd |= address
        apart |= address ^ begin
    level = not apart % 16 and not begin % 16 % item
    head = min(elements, -begin % 16 // item) if level else elements
    packs = (elements - head) * item // 16
    flags = _SCALED * move.scale | _SCATTERED * (odd % word > 0)
    return _Entry(move.sources, move.targets, elements, head, flags, max(packs, elements - packs * 16 // item))


def _tables(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Cut what is to be done into launches, none of which has more than a long table holds."""
    table, used = list[_Entry](), _TABLE_HEAD
    for entry in entries:
        needed = _FOLD + len(entry.sources) + len(entry.targets)
        if _TABLE_HEAD + needed > LONG:
            raise ValueError(
                f"a fold of {len(entry.sources)} sources into {len(entry.targets)} targets is more than one launch"
                f" takes, {LONG - _TABLE_HEAD - _FOLD} addresses: use fewer ranks on this host"
            )
        if used + needed > LONG:
            yield table
            table, used = [], _TABLE_HEAD
        table.append(entry)
        used += needed
    if table:
        yield table


def _table_words(needed: int) -> int:
    return SHORT if needed <= SHORT else LONG


def _packed(words: Sequence[int], nwords: int) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words).ljust(8 * nwords, b"\0")


def _unit(move: Move) -> int:
    """The widest word that a copy can be done by throughout."""
    bits = move.nbytes | 8
    for address in (*move.sources, *move.targets):
        bits |= address
    return bits & -bits


# ---- what is compiled

_TYPES = {
    "bool": "Boolean",
    "int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16",
    "int32": "i32", "uint32": "u32", "int64": "i64", "uint64": "u64",
    "float16": "Float16", "bfloat16": "BFloat16",
    "float8_e4m3fn": "Float8E4M3FN", "float8_e5m2": "Float8E5M2",
    "float32": "float", "float64": "double",
    "complex64": "Complex<float>", "complex128": "Complex<double>",
}  # fmt: skip
_OPS = {
    "sum": "Sum", "avg": "Sum", "prod": "Product", "min": "Min", "max": "Max",
    "band": "BitAnd", "bor": "BitOr", "bxor": "BitXor", "land": "And", "lor": "Or", "lxor": "Xor",
}  # fmt: skip
_OPS_OF_BOOL = _OPS | {"sum": "Or", "max": "Or", "bor": "Or", "prod": "And", "min": "And", "band": "And", "bxor": "Xor"}


def everything() -> list[str]:
    """The names of all kernels."""
    folds = [f"fold_{dtype.name}_{op}" for dtype in DTYPES for op in _OPS if supports(dtype, ReduceOp(op))]
    names = [*folds, *(f"copy_{unit}" for unit in (1, 2, 4, 8)), "signal", "wait", "count"]
    return [f"{name}_{nwords}" for name in names for nwords in (SHORT, LONG)]


def source(kernels: Iterable[str]) -> str:
    """The text to compile for these kernels: in CUDA C++17, with no #include."""
    return "\n".join([_text(), *map(_wrapper, kernels)])


@cache
def _text() -> str:
    folder = Path(__file__).with_name("device")
    return "\n".join((folder / f"{name}.cu").read_text() for name in ("elements", "ops", "folds", "signals"))


def _wrapper(kernel: str) -> str:
    argument, body = signature(kernel)
    head = f'extern "C" __global__ void __launch_bounds__({THREADS}, {RESIDENT}) {kernel}'
    return f"{head}(const __grid_constant__ {argument} argument) {{ {body}; }}"


def signature(kernel: str) -> tuple[str, str]:
    """What a kernel takes, and what it does with it: the same for some of them, as integers' sums know no sign."""
    name, _, nwords = kernel.rpartition("_")
    what, _, of = name.partition("_")
    if what == "copy":
        return f"Table<{nwords}>", f"folds<u{8 * int(of)}, Copy>(argument)"
    if what == "fold":
        dtype, _, op = of.rpartition("_")
        operation = (_OPS_OF_BOOL if dtype == "bool" else _OPS)[op]
        element = _TYPES[dtype]
        if dtype.startswith("int") and op not in ("min", "max"):
            element = element.replace("i", "u")
        return f"Table<{nwords}>", f"folds<{element}, {operation}>(argument)"
    return f"Signals<{nwords}>", f"{what}(argument)"
