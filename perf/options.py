"""What to sweep, and what is wrong with it where something is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from collx.perf import machine
from collx.perf.collectives import Measured
from collx.plugins import command_line_algorithm
from collx.schedule import Algorithm

# nccl-tests' names of types, where they differ from NumPy's.
NCCL_TYPES = {
    "float16": "half",
    "float32": "float",
    "float64": "double",
    "float8_e4m3fn": "f8e4m3",
    "float8_e5m2": "f8e5m2",
}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class UsageError(ValueError):
    """A mistake on the command line; the message is the one line that the user sees."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to sweep. `algorithms` is empty for the selector's choice, `every` when all were asked for; `seconds`
    bounds each timed point. `device` is cpu or cuda."""

    case: Measured
    ranks: int | None
    begin: int
    end: int
    factor: float
    algorithms: tuple[str, ...]
    every: bool
    dtype: np.dtype[Any]
    op: str
    root: int
    warmup: int
    iterations: int
    check: int
    seconds: float
    seed: int
    json: Path | None
    csv: Path | None
    plot: Path | None
    versus: tuple[str, ...]
    device: str
    sync: tuple[str, ...]  # of calls on GPUs; empty for what the environment says
    arguments: tuple[str, ...]

    def sizes(self, ranks: int) -> list[int]:
        """The element counts of the whole buffer, ascending and without repetition; multiples of `ranks` where
        every rank has a part. The smallest sizes are rounded up to one element, per rank where that applies."""
        if self.case.sends == self.case.receives == "none":
            return [0]
        counts: dict[int, None] = {}
        nbytes = float(self.begin)
        while nbytes <= self.end:
            elements = int(nbytes) // self.dtype.itemsize
            counts[self.case.whole(elements, ranks) if nbytes else 0] = None
            following = (elements + 1.0) * self.dtype.itemsize  # where a small factor would stand still
            nbytes = max(nbytes * self.factor, following)
        return list(counts)


def nearest(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The complaint about an unknown `name`, with the nearest known ones."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}; {hint}")


def nbytes(text: str) -> int:
    """Bytes from `8`, `64K`, `1.5M`, `2GiB`: powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a size; write 8, 64K, 64M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    """Whole numbers from `2,4,8`, as `option` has them."""
    found = tuple(map(int, text.split(","))) if re.fullmatch(r"\d+(,\d+)*", text, re.ASCII) else ()
    if min(found, default=-1) < least:
        raise UsageError(f"{option} {text}: whole numbers of at least {least}, with commas between")
    return found


def fits(options: Options, ranks: int) -> Options:
    """The options for that many ranks: "all" loses the algorithms that do not take it, a named one is a UsageError."""
    if options.case.rooted and options.root >= ranks:
        raise UsageError(f"--root {options.root} is not a rank of {ranks}")
    if not options.algorithms:
        return options
    fitting = tuple(name for name in options.algorithms if _takes(options.case.name, name, ranks))
    unfit = [name for name in options.algorithms if name not in fitting]
    if unfit and not options.every:
        raise UsageError(f"{options.case.name} by {unfit[0]} does not take {ranks} ranks")
    return replace(options, algorithms=fitting)


def _takes(collective: str, name: str, ranks: int) -> bool:
    algorithm = command_line_algorithm(collective, name)
    return not isinstance(algorithm, Algorithm) or algorithm.sizes(ranks)


def affordable(options: Options, ranks: int) -> None:
    """UsageError where the ranks' buffers for the largest size are more than the memory that is left: the kernel
    would kill a process rather than refuse."""
    whole = max(options.sizes(ranks))
    send, receive = options.case.lengths(whole, whole // ranks)
    shared = whole if options.case.in_place else 0
    checked = send + receive if options.check else 0  # the right result, and what it is made of
    needed = ranks * (send + receive + shared + checked) * options.dtype.itemsize
    if needed > (left := machine.available()):
        raise UsageError(f"-e {options.end}: {ranks} ranks need {needed >> 20} MiB, but {left >> 20} MiB are available")
