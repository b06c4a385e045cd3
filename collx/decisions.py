"""What the selectors of a job go by, beside what every rank knows: read by rank 0 alone and told to the others, so that
no two ranks ever choose by different environments or files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from collx import tuning, wishes
from collx.engine import Engine
from collx.errors import BootstrapError
from collx.guide import Guide
from collx.tuning import Table

_TAG = 0  # of the messages that tell it; every rank has them before it can send its own


@dataclass(frozen=True, slots=True)
class Decisions:
    """What holds for a job: COLLX_ALGO, COLLX_DEBUG and COLLX_TUNE, the tuning tables, and the transports that join its
    ranks."""

    algo: str = ""
    tells: bool = False
    transports: str = ""
    tables: tuple[Table, ...] = ()
    tries: bool = False

    def guide(self, hosts: Sequence[str], apart: bool) -> Guide:
        """For a communicator of ranks on these hosts. `apart`: more than shared memory joins them."""
        wanted = (len(hosts), tuning.hosts_text(hosts), self.transports if apart else "shm")
        found = (table for table in self.tables if table.key[1:4] == wanted)
        return Guide(wishes.parse(self.algo), next(found, None), self.tells, wanted if self.tries else None)

    def text(self) -> str:
        tables = [table.document() for table in self.tables]
        return json.dumps([self.algo, self.tells, self.transports, tables, self.tries], separators=(",", ":"))

    @staticmethod
    def of(text: str) -> Decisions:
        algo, tells, transports, tables, tries = json.loads(text)
        return Decisions(algo, tells, transports, tuple(map(tuning.of_document, tables)), tries)


UNDECIDED = Decisions()


def read(environ: Mapping[str, str], transports: Sequence[str]) -> Decisions:
    """What the environment and the user's tuning tables say; a table that cannot serve is named on standard error.

    Raises BootstrapError, in one line, for variables that say what cannot be.
    """
    algo, debug, tune = (environ.get(name, "") for name in ("COLLX_ALGO", "COLLX_DEBUG", "COLLX_TUNE"))
    wishes.parse(algo)
    if debug.upper() not in ("", "INFO"):
        raise BootstrapError(f"COLLX_DEBUG is {debug!r}, but must be INFO, or unset")
    if tune.lower() not in ("", "auto"):
        raise BootstrapError(f"COLLX_TUNE is {tune!r}, but must be auto, or unset")
    tables, complaints = tuning.read(tuning.machine())
    for complaint in complaints:
        print(f"collx: {complaint}", file=sys.stderr)
    joined = "+".join(transports) if tables or tune else ""
    return Decisions(algo, bool(debug), joined, tuple(tables), bool(tune))


def agreed(engine: Engine, rank: int, size: int, timeout: float, find: Callable[[], Decisions]) -> Decisions:
    """What `find` returns on rank 0, which alone calls it, on every rank; or the BootstrapError that it raises there.

    Collective. Over messages, so that it is none of the communicator's collectives; by a binomial tree.
    """
    deadline = time.monotonic() + timeout
    if rank == 0:
        try:
            decisions, told = find(), ""
        except BootstrapError as error:
            decisions, told = UNDECIDED, str(error)
        word = f"!{told}" if told else decisions.text() if decisions != UNDECIDED else ""
    else:
        word = _heard(engine, rank & (rank - 1), deadline)
    below = rank & -rank if rank else size
    for step in reversed([1 << bit for bit in range(below.bit_length()) if 1 << bit < below]):
        if rank + step < size:
            _tell(engine, rank + step, word, deadline)
    if word.startswith("!"):
        raise BootstrapError(word[1:])
    return Decisions.of(word) if word else UNDECIDED


def _tell(engine: Engine, to: int, word: str, deadline: float) -> None:
    data = np.frombuffer(word.encode(), np.uint8)
    for part in (np.array([data.size], np.int64), data)[: 2 if data.size else 1]:
        engine.send(part.ctypes.data, part.nbytes, to, _TAG, max(deadline - time.monotonic(), 1e-3))


def _heard(engine: Engine, source: int, deadline: float) -> str:
    length = np.empty(1, np.int64)
    engine.recv(length.ctypes.data, length.nbytes, source, _TAG, max(deadline - time.monotonic(), 1e-3))
    data = np.empty(int(length[0]), np.uint8)
    if data.size:
        engine.recv(data.ctypes.data, data.nbytes, source, _TAG, max(deadline - time.monotonic(), 1e-3))
    return data.tobytes().decode()
