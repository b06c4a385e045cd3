"""Comm, Intracomm: put together from what communicators do."""

from __future__ import annotations

from collx.compat.mpi4py import environment
from collx.compat.mpi4py.collectives import Collectives
from collx.compat.mpi4py.context import Ranked


class Comm(Collectives, Ranked):
    """A communicator."""


class Intracomm(Comm):
    """A communicator of one group of ranks."""


COMM_NULL = Comm._of(None, "COMM_NULL")
COMM_WORLD = Intracomm._of(environment.WORLD, "COMM_WORLD")
COMM_SELF = Intracomm._of(environment.SELF, "COMM_SELF")
