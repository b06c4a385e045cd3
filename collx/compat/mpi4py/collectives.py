"""The collectives of a communicator."""

from __future__ import annotations

from collx.compat.mpi4py.context import Ranked


class Collectives(Ranked):
    """What Comm has of blocking collectives on buffers."""

    def Barrier(self) -> None:
        self._ranks.barrier()
