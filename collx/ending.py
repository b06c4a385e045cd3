"""What a rank does at the end of its process for the others' sake."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from collx import lifeline
from collx.bootstrap import NOTES, Place
from collx.errors import AbortedError, RankFailedError
from collx.leaving import leave_all
from collx.transports.meeting import pmi
from collx.witness import FAILED, LEFT, Ledger

PASSED_ON = 0.2  # seconds in which a launcher passes on what was said last: Hydra does not once it is told to end a job
CULPRIT_GRACE = 0.5  # seconds in which the rank that failed first, or its launcher, may end the job


def end(place: Place, ledger: Ledger | None, others: Sequence[int]) -> None:
    """Before the process ends; where an exception ends it, so does the job. `others` are processes of other ranks.

    Where another one failed first, it ends first: whoever started them all will name it. Under MPI the others might
    wait for this one in their calls, and this one for them in MPI_Finalize: when they have been told, the job is ended
    by MPI, or by the launcher, which may have to be told to.
    """
    fatal = getattr(sys, "last_value", None)
    if fatal is None:
        if ledger is not None:
            ledger.write(LEFT)
        return
    mpi = _mpi()
    abortable = mpi is not None or place.pmi >= 0 or _half_imported()
    if abortable:
        leave_all()
    if isinstance(fatal, (AbortedError, RankFailedError)):
        _leave_note(place, fatal)
        lifeline.await_end(others)
        if abortable:
            time.sleep(CULPRIT_GRACE)
    if not abortable:
        if ledger is not None:
            ledger.write(FAILED)
        return
    rank, size = (place.rank, place.size) if mpi is None else (mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size)
    reason = traceback.format_exception_only(fatal)[-1].strip()
    told = f"collx: rank {rank} of {size} (pid {os.getpid()}) ended by {reason}; ending the job\n"
    end_job(told, ledger, place.pmi)


def end_job(told: str, ledger: Ledger | None, line: int = -1) -> None:
    """End all ranks after saying why: by MPI where that is running, else by the launcher at the other end of `line`,
    which may take a moment to end this one."""
    if ledger is not None:
        ledger.write(FAILED)
    _say(told)
    time.sleep(PASSED_ON)
    mpi = _mpi()
    if "OMPI_COMM_WORLD_RANK" in os.environ:
        # Open MPI's launcher ends a job for an exit code too. Asked by MPI_Abort, while others are in MPI_Finalize, it
        # crashes or hangs in one job of 20 (5.0.11).
        os._exit(1)
    elif mpi is None:
        pmi.abort(line)
    else:
        mpi.COMM_WORLD.Abort(1)


def _leave_note(place: Place, fatal: Exception) -> None:
    """For a launcher that has not started whoever failed."""
    if notes := os.environ.get(NOTES):
        with contextlib.suppress(OSError), open(f"{notes}/{place.rank}", "x") as note:
            note.write(str(fatal))


def _mpi() -> Any:
    """MPI, where this program uses it and other ranks do."""
    mpi: Any = sys.modules.get("mpi4py.MPI")
    running = mpi is not None and mpi.get_vendor()[0] != "collx" and mpi.Is_initialized() and not mpi.Is_finalized()
    return mpi if running and mpi.COMM_WORLD.size > 1 else None


def _half_imported() -> bool:
    """Whether MPI may have been initialised by an import that then failed, as by Ctrl-C, under Open MPI, whose launcher
    nobody can tell so: the process would wait for the others in MPI_Finalize."""
    return "OMPI_COMM_WORLD_RANK" in os.environ and "mpi4py" in sys.modules and "mpi4py.MPI" not in sys.modules


def _say(line: str) -> None:
    """Write what has been printed so far, and this."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, line)):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.write(text)
            stream.flush()
