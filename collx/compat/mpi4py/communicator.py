"""Comm, Intracomm and so on: put together from what communicators do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from collx.compat.mpi4py import constants
from collx.compat.mpi4py.attributes import Attributes
from collx.compat.mpi4py.collectives import Scans
from collx.compat.mpi4py.context import Context, Ranked
from collx.compat.mpi4py.environment import SELF, WORLD, abort, at_finalize
from collx.compat.mpi4py.errhandler import HandlesErrors
from collx.compat.mpi4py.errors import Lacking
from collx.compat.mpi4py.making import CLASSES, Making, MakingOfGroups, MakingOfTwo, named
from collx.compat.mpi4py.messages import TAG_BOUND, Messages
from collx.compat.mpi4py.neighbours import Neighbours
from collx.compat.mpi4py.nonblocking import BegunScans, Nonblocking, Prepared
from collx.compat.mpi4py.objects import Objects, ObjectScans
from collx.compat.mpi4py.operation import Operation
from collx.compat.mpi4py.parcels import Parcels
from collx.compat.mpi4py.request import Request
from collx.compat.mpi4py.topology import OnCart, OnDistGraph, OnGraph, Placed, Topologies

if TYPE_CHECKING:
    from collx.compat.mpi4py.info import Info


class Comm(Making, Messages, Parcels, Objects, Nonblocking, Prepared, Attributes, HandlesErrors, Ranked):
    """A communicator, of whatever kind."""

    @classmethod
    def fromhandle(cls, handle: int) -> Any:
        """As the kind that it is."""
        found = super().fromhandle(handle)
        return found if found._it is None else named(found._it)

    def __getattr__(self, name: str) -> NoReturn:
        raise Lacking(f"mpi4py.MPI.{type(self).__name__}.{name} is not in collx's shim")

    def Is_inter(self) -> bool:
        return self._context.remote is not None

    def Is_intra(self) -> bool:
        return self._context.remote is None

    is_inter, is_intra = property(Is_inter), property(Is_intra)

    def Get_topology(self) -> int:
        """CART, GRAPH, DIST_GRAPH, or UNDEFINED."""
        topology = self._context.topology
        return constants.UNDEFINED if topology is None else topology.kind

    topology = property(Get_topology)

    @property
    def is_topo(self) -> bool:
        return self.Get_topology() != constants.UNDEFINED

    def Get_name(self) -> str:
        return self._context.name if self else "MPI_COMM_NULL"

    def Set_name(self, name: str) -> None:
        self._context.name = name

    name = property(Get_name, Set_name)

    def Get_info(self) -> Info:
        """A copy of what Set_info and Dup were given: nothing here goes by it."""
        from collx.compat.mpi4py.info import Info

        return Info.Create(self._context.info)

    def Set_info(self, info: Info) -> None:
        if info:
            self._context.info |= dict(info.items())

    info = property(Get_info, Set_info)

    def Attach_buffer(self, buf: Any) -> None:
        """Nothing depends on it: Bsend finds memory itself."""
        attach(self._context, buf)

    def Detach_buffer(self) -> Any:
        """What was attached, when all is sent that Bsend took."""
        return detach(self._context)

    def Flush_buffer(self) -> None:
        flush(self._context)

    def Iflush_buffer(self) -> Request:
        flush(self._context)
        return Request._of(Operation())

    @classmethod
    def Get_parent(cls) -> Intercomm:
        """COMM_NULL: nobody is spawned."""
        return Intercomm._of(None)

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End the job, with this exit code, or 1 for 0. The launcher ends the other ranks."""
        abort(errorcode)

    def _predefined_attr(self, keyval: int) -> Any:
        if keyval in PREDEFINED:
            return PREDEFINED[keyval](self._context)
        return super()._predefined_attr(keyval)


PREDEFINED: dict[int, Callable[[Context], Any]] = {
    constants.TAG_UB: lambda context: TAG_BOUND,
    constants.IO: lambda context: constants.ANY_SOURCE,
    constants.WTIME_IS_GLOBAL: lambda context: False,
    constants.UNIVERSE_SIZE: lambda context: len(WORLD.members),
    constants.APPNUM: lambda context: 0,
    constants.LASTUSEDCODE: lambda context: constants.ERR_LASTCODE,
}


class Intracomm(Topologies, MakingOfGroups, ObjectScans, Scans, BegunScans, Comm):
    """A communicator of one group of ranks."""

    @classmethod
    def _may_name(cls, it: Context | None) -> bool:
        return it is None or it.remote is None


class Intercomm(MakingOfTwo, Comm):
    """A communicator that joins two groups: messages go to the ranks of the other."""

    @classmethod
    def _may_name(cls, it: Context | None) -> bool:
        return it is None or it.remote is not None


class Topocomm(Placed, Neighbours, Intracomm):
    """A communicator whose ranks have a topology."""

    kinds: ClassVar[tuple[int, ...]] = (constants.CART, constants.GRAPH, constants.DIST_GRAPH)

    @classmethod
    def _may_name(cls, it: Context | None) -> bool:
        return it is None or (it.topology is not None and it.topology.kind in cls.kinds)

    @property
    def _topology(self) -> Any:
        return self._context.topology


class Cartcomm(OnCart, Topocomm):
    """Ranks on a grid."""

    kinds = (constants.CART,)


class Graphcomm(OnGraph, Topocomm):
    """Ranks on a graph that all of them know."""

    kinds = (constants.GRAPH,)


class Distgraphcomm(OnDistGraph, Topocomm):
    """Ranks on a graph of which each knows its part."""

    kinds = (constants.DIST_GRAPH,)


CLASSES |= {
    None: Intracomm,
    constants.UNDEFINED: Intercomm,
    constants.CART: Cartcomm,
    constants.GRAPH: Graphcomm,
    constants.DIST_GRAPH: Distgraphcomm,
}

COMM_NULL = Comm._of(None, "COMM_NULL")
COMM_WORLD = Intracomm._of(WORLD, "COMM_WORLD")
COMM_SELF = Intracomm._of(SELF, "COMM_SELF")
at_finalize.append(COMM_SELF._drop_attributes)


def attach(context: Context, buf: Any) -> None:
    context.buffer = buf


def flush(context: Context) -> None:
    for work in context.buffered:
        work.wait()
    context.buffered.clear()


def detach(context: Context) -> Any:
    flush(context)
    buf, context.buffer = context.buffer, None
    return buf


def Attach_buffer(buf: Any) -> None:
    """As Comm.Attach_buffer, for all communicators."""
    attach(WORLD, buf)


def Detach_buffer() -> Any:
    return detach(WORLD)


def Flush_buffer() -> None:
    flush(WORLD)


def Iflush_buffer() -> Request:
    flush(WORLD)
    return Request._of(Operation())


def _comm_lock_table(comm: Comm) -> dict[Hashable, threading.Lock]:
    return comm._context.locks


def _comm_lock(comm: Comm, key: Hashable | None = None) -> threading.Lock:
    return comm._context.lock(key)
