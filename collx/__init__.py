"""collx: collective communication for Python. `comm = collx.init()`, then `comm.all_reduce(x)`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from collx.errors import (
    AbortedError,
    BootstrapError,
    CancelledError,
    ClosedError,
    CollxError,
    MismatchError,
    RankFailedError,
    RevokedError,
    ScheduleError,
    TimeoutError,
    TransportError,
    TruncatedError,
)
from collx.schedule import Copy, Recv, Schedule, Send
from collx.version import __version__

if TYPE_CHECKING:
    from collx.communicator import Communicator
    from collx.spawning import spawn
    from collx.transports.store.client import Store
    from collx.types import Envelope, ReduceOp
    from collx.work import Work
    from collx.world import from_mpi, from_store, init

__all__ = [
    "AbortedError", "BootstrapError", "CancelledError", "ClosedError", "CollxError", "Communicator", "Copy",
    "Envelope", "MismatchError", "RankFailedError", "Recv", "ReduceOp", "RevokedError", "Schedule",
    "ScheduleError", "Send", "Store", "TimeoutError", "TransportError", "TruncatedError", "Work", "__version__",
    "from_mpi", "from_store", "init", "spawn",
]  # fmt: skip

# Imported when first asked for, so that schedules can be written and proved where the native module is not built.
_LATER = {
    "Communicator": "collx.communicator",
    "Envelope": "collx.types",
    "ReduceOp": "collx.types",
    "Store": "collx.transports.store.client",
    "Work": "collx.work",
    "from_mpi": "collx.world",
    "from_store": "collx.world",
    "init": "collx.world",
    "spawn": "collx.spawning",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'collx' has no attribute {name!r}")
    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


@atexit.register
def _end_unjoined() -> None:
    """The others of a job would wait for a rank that an exception ends before it has come to `init`, where its launcher
    or MPI must be told so."""
    if getattr(sys, "last_value", None) is not None and ("PMI_RANK" in os.environ or "mpi4py" in sys.modules):
        with contextlib.suppress(ImportError):
            import_module("collx.world").end_unjoined()


def __dir__() -> list[str]:
    return __all__
