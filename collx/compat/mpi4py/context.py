"""What all handles of one communicator share."""

from __future__ import annotations

from typing import Any

from collx.communicator import Communicator
from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.handle import Handle, Kept


class Context(Kept):
    """A communicator of collx, and what MPI keeps with it."""

    def __init__(self, ranks: Communicator | None, name: str = "") -> None:
        self.ranks = ranks  # None until MPI is initialised
        self.name = name
        self.attributes: dict[int, Any] = {}
        self.topology: Any = None
        self._aside: Communicator | None = None

    @property
    def aside(self) -> Communicator:
        """The same ranks apart, for messages that no receive of the program may take. Collective at first."""
        if self._aside is None:
            assert self.ranks is not None
            self._aside = self.ranks.split(0, self.ranks.rank)
            assert self._aside is not None
        return self._aside

    def close(self) -> None:
        for ranks in (self._aside, self.ranks):
            if ranks is not None:
                ranks.close()
        self._aside = self.ranks = None


class Ranked(Handle):
    """A communicator's handle, without what communicators do."""

    null = "COMM_NULL"
    invalid = constants.ERR_COMM
    _it: Context | None

    @property
    def _context(self) -> Context:
        context: Context = self._kept()
        return context

    @property
    def _ranks(self) -> Communicator:
        """The communicator of collx."""
        ranks = self._context.ranks
        if ranks is None:
            raise errors.Exception(constants.ERR_COMM, "MPI is not initialised: call MPI.Init()")
        return ranks

    def Get_rank(self) -> int:
        return self._ranks.rank

    def Get_size(self) -> int:
        return self._ranks.size

    rank = property(Get_rank)
    size = property(Get_size)
