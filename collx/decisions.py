"""What the selectors of a job go by, beside what every rank knows: read by rank 0 alone and told to the others, so that
no two ranks ever choose by different environments or files. With it goes where each rank may run, as all have told
rank 0."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from collx import spots, tuning, wishes
from collx.engine import Engine
from collx.errors import BootstrapError
from collx.guide import Guide
from collx.schedule import Groups
from collx.spots import NOWHERE, Spot
from collx.tuning import Key, Table

_TAG = 0  # of the messages that tell it; a rank has got all of them from another before that one can send its own


@dataclass(frozen=True, slots=True)
class Decisions:
    """What holds for a job: COLLX_ALGO, COLLX_DEBUG and COLLX_TUNE, the tuning tables, the transports that join its
    ranks, what its processors call themselves, and the spot of each rank. `tries` is the machine, as `tuning.Key` has
    it, where COLLX_TUNE has calls tried."""

    algo: str = ""
    tells: bool = False
    transports: str = ""
    tables: tuple[Table, ...] = ()
    tries: str = ""
    make: str = ""
    spots: tuple[Spot, ...] = ()

    def spots_of(self, members: Sequence[int]) -> tuple[Spot, ...]:
        """Those of some ranks of the job."""
        return tuple(self.spots[member] if self.spots else NOWHERE for member in members)

    def guide(self, hosts: Sequence[str], groups: Groups, apart: bool, first: int = 0) -> Guide:
        """For a communicator of ranks on these hosts, in these groups. `apart`: more than shared memory joins them.
        `first` is its rank 0 in the job: the job's alone keeps what is found, as its machine is the known one."""
        wanted = (len(hosts), tuning.layout_text(hosts, groups), self.transports if apart else "shm")
        found = (table for table in self.tables if table.key[1:4] == wanted)
        tries = Key("" if first else self.tries, *wanted) if self.tries else None
        return Guide(wishes.parse(self.algo), next(found, None), self.tells, tries)

    def text(self) -> str:
        tables = [table.document() for table in self.tables]
        told = [self.algo, self.tells, self.transports, tables, self.tries, self.make, self.spots]
        return json.dumps(told, separators=(",", ":"))

    @staticmethod
    def of(text: str) -> Decisions:
        algo, tells, transports, tables, tries, make, spots = json.loads(text)
        known = tuple(map(tuning.of_document, tables))
        return Decisions(algo, tells, transports, known, tries, make, tuple(Spot(*spot) for spot in spots))


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
    machine = tuning.machine() if tune or tuning.any_kept() else ""
    tables, complaints = tuning.read(machine) if machine else ([], [])
    for complaint in complaints:
        with contextlib.suppress(OSError, ValueError):  # where there is no standard error any more
            print(f"collx: {complaint}", file=sys.stderr)
    joined = "+".join(transports) if tables or tune else ""
    return Decisions(algo, bool(debug), joined, tuple(tables), machine if tune else "", spots.model())


def agreed(
    engine: Engine,
    rank: int,
    size: int,
    timeout: float,
    find: Callable[[], Decisions],
    here: Callable[[], Spot] = spots.here,
) -> Decisions:
    """What `find` returns on rank 0, which alone calls it, on every rank, with what `here` returns on each; or the
    BootstrapError that `find` raises there.

    Collective. Over messages, so that it is none of the communicator's collectives; up a binomial tree, and down.
    """
    deadline = time.monotonic() + timeout
    below = rank & -rank if rank else size
    steps = [1 << bit for bit in range(below.bit_length()) if 1 << bit < below and rank + (1 << bit) < size]
    found = [here()]  # of the ranks from this one on that are below it in the tree, itself included
    for step in steps:
        found += (Spot(*spot) for spot in json.loads(_heard(engine, rank + step, deadline)))
    if rank == 0:
        try:
            word = replace(find(), spots=tuple(found)).text()
        except BootstrapError as error:
            word = f"!{error}"
    else:
        _tell(engine, rank & (rank - 1), json.dumps(found), deadline)
        word = _heard(engine, rank & (rank - 1), deadline)
    for step in reversed(steps):
        _tell(engine, rank + step, word, deadline)
    if word.startswith("!"):
        raise BootstrapError(word[1:])
    return Decisions.of(word)


def _tell(engine: Engine, to: int, word: str, deadline: float) -> None:
    data = np.frombuffer(word.encode(), np.uint8)
    for part in (np.array([data.size], np.int64), data):
        engine.send(part.ctypes.data, part.nbytes, to, _TAG, max(deadline - time.monotonic(), 1e-3))


def _heard(engine: Engine, source: int, deadline: float) -> str:
    length = np.empty(1, np.int64)
    engine.recv(length.ctypes.data, length.nbytes, source, _TAG, max(deadline - time.monotonic(), 1e-3))
    data = np.empty(int(length[0]), np.uint8)
    engine.recv(data.ctypes.data, data.nbytes, source, _TAG, max(deadline - time.monotonic(), 1e-3))
    return data.tobytes().decode()
