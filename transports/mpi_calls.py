"""Who may call MPI, and what becomes of its errors."""

from __future__ import annotations

import threading

from mpi4py import MPI

from collx.errors import ClosedError, TransportError
from collx.transports.base import Threads


def threads() -> Threads:
    """Which threads may call MPI, by the level that it was initialised with."""
    level = MPI.Query_thread()
    if level >= MPI.THREAD_SERIALIZED:
        return Threads.ANY if level == MPI.THREAD_MULTIPLE else Threads.USERS
    return Threads.MAIN


def check_running() -> None:
    """Raise ClosedError where MPI was finalized: it would end the program."""
    if MPI.Is_finalized():
        raise ClosedError("MPI was finalized, so that nothing can be sent any more")


class Calls:
    """Calls into MPI: by a thread that may, and MPI's errors as ours. They are one thread's at a time, but those that
    block where MPI takes several threads."""

    def __init__(self, *, block: bool = False) -> None:
        self._block = block

    def allowed(self) -> bool:
        """Whether this thread may call MPI."""
        return threads() is not Threads.MAIN or bool(MPI.Is_thread_main())

    def __enter__(self) -> None:
        check_running()
        if not self.allowed():
            raise TransportError(
                "MPI was initialised with MPI_THREAD_FUNNELED or less, so that only the main thread may communicate;"
                " mpi4py asks for MPI_THREAD_MULTIPLE unless it is told otherwise"
            )
        if self._locks():
            _lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._locks():
            _lock.release()
        if isinstance(error, MPI.Exception):
            raise TransportError(f"MPI failed: {' '.join(str(error).split())}") from error

    def _locks(self) -> bool:
        return not self._block or threads() is not Threads.ANY


_lock = threading.RLock()
calls, blocking_calls = Calls(), Calls(block=True)
