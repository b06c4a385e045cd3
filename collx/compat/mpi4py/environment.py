"""MPI begins and ends, and what there is to ask about it. Here COMM_WORLD and COMM_SELF come to life."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import collx
from collx import calls
from collx.communicator import Communicator
from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.context import Context, living
from collx.compat.mpi4py.info import Info
from collx.errors import CollxError
from collx.groups import Lone

WORLD, SELF = Context(None, "MPI_COMM_WORLD", label="world"), Context(None, "MPI_COMM_SELF", label="self")

at_finalize: list[Callable[[], None]] = []  # what Finalize does first
_finalized = False
_leaves = True  # whether the end of the process finalises MPI
_failed = 0  # the exit code of a process that is to end the job


def Init() -> None:
    """Join the job, by `collx.init()`. Collective."""
    global _leaves
    from mpi4py import rc

    if WORLD.ranks is not None or _finalized:
        raise errors.Exception(constants.ERR_OTHER, "MPI was initialised before")
    WORLD.ranks = collx.init()
    lone, host = Lone(), os.uname().nodename
    SELF.ranks = Communicator(
        lone.engine([0], "self", WORLD.ranks.timeout), 0, 0, (host,), WORLD.ranks.timeout, lone.engine, label="self"
    )
    WORLD.members, SELF.members = tuple(range(WORLD.ranks.size)), (WORLD.ranks.rank,)
    _leaves = bool(rc.initialize if rc.finalize is None else rc.finalize)
    atexit.register(_leave)


def Init_thread(required: int = constants.THREAD_MULTIPLE) -> int:
    """As Init. Returns THREAD_SERIALIZED: a communicator serves one thread at a time."""
    Init()
    return Query_thread()


def Finalize() -> None:
    """Meet the other ranks, and leave the job. Collective."""
    global _finalized
    if WORLD.ranks is None or _finalized:
        raise errors.Exception(
            constants.ERR_OTHER, "MPI was finalised before" if _finalized else "MPI is not initialised"
        )
    for act in at_finalize:
        act()
    call = calls.barrier(WORLD.ranks.rank, WORLD.ranks.size)
    call.request = call.request._replace(called="Finalize")  # as the others are told, if they call something else
    WORLD.ranks._do(call, False, None)
    for context in living:
        context.recall()
    _finalized = True


def _leave() -> None:
    """A process that ends well leaves when the others do, as it would with MPI."""
    if WORLD.ranks is None or _finalized or WORLD.ranks.closed:
        return
    if _failed:
        abort(_failed)
    if _leaves and not hasattr(sys, "last_value"):
        with contextlib.suppress(CollxError):  # of which the rank tells that failed
            Finalize()


def abort(errorcode: int) -> NoReturn:
    """End the job, with this exit code, or 1 for 0. The launcher ends the other ranks."""
    told = f"rank {WORLD.ranks and WORLD.ranks.rank} called Abort({errorcode})\n"
    for stream, text in ((sys.stdout, ""), (sys.stderr, told)):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.write(text)
            stream.flush()
    os._exit(errorcode & 0xFF or 1)


def abort_at_exit(errorcode: int) -> None:
    """End the job when the process ends, with this exit code; not for 0."""
    global _failed
    _failed = errorcode


def Is_initialized() -> bool:
    return WORLD.ranks is not None


def Is_finalized() -> bool:
    return _finalized


def Query_thread() -> int:
    return constants.THREAD_SERIALIZED


def Is_thread_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def Get_version() -> tuple[int, int]:
    """The version of the standard that mpi4py's API follows here."""
    return constants.VERSION, constants.SUBVERSION


def Get_library_version() -> str:
    return f"collx {collx.__version__}"


def get_vendor() -> tuple[str, tuple[int, int, int]]:
    numbers = [int(part) for part in collx.__version__.split(".")[:3]]
    return "collx", (numbers[0], numbers[1], numbers[2])


def Get_processor_name() -> str:
    return os.uname().nodename


def Get_hw_resource_info() -> Info:
    """What Split_type may be guided by."""
    return Info.Create({"mpi_shared_memory": "true"})


def Wtime() -> float:
    return time.perf_counter()


def Wtick() -> float:
    return time.get_clock_info("perf_counter").resolution


def Pcontrol(level: int) -> None:
    """Profiling, of which there is none: nothing happens."""
