"""mpi4py.MPI on collx."""

from typing import Any

import mpi4py

from collx.compat.mpi4py.communicator import (
    COMM_NULL,
    COMM_SELF,
    COMM_WORLD,
    Attach_buffer,
    Cartcomm,
    Comm,
    Detach_buffer,
    Distgraphcomm,
    Flush_buffer,
    Graphcomm,
    Iflush_buffer,
    Intercomm,
    Intracomm,
    Topocomm,
    _comm_lock,
    _comm_lock_table,
)
from collx.compat.mpi4py.constants import *
from collx.compat.mpi4py.datatype import Datatype
from collx.compat.mpi4py.environment import (
    Finalize,
    Get_hw_resource_info,
    Get_library_version,
    Get_processor_name,
    Get_version,
    Init,
    Init_thread,
    Is_finalized,
    Is_initialized,
    Is_thread_main,
    Pcontrol,
    Query_thread,
    Wtick,
    Wtime,
    get_vendor,
)
from collx.compat.mpi4py.errhandler import ERRHANDLER_NULL, ERRORS_ABORT, ERRORS_ARE_FATAL, ERRORS_RETURN, Errhandler
from collx.compat.mpi4py.errors import Exception, Get_error_class, Get_error_string, Lacking
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.group import GROUP_EMPTY, GROUP_NULL, Group
from collx.compat.mpi4py.info import INFO_ENV, INFO_NULL, Info
from collx.compat.mpi4py.lacking import FILE_NULL, SESSION_NULL, WIN_NULL, File, Session, Win
from collx.compat.mpi4py.memory import (
    BOTTOM,
    BUFFER_AUTOMATIC,
    IN_PLACE,
    Aint_add,
    Aint_diff,
    Alloc_mem,
    Free_mem,
    Get_address,
    buffer,
)
from collx.compat.mpi4py.messages import MESSAGE_NO_PROC, MESSAGE_NULL, Message
from collx.compat.mpi4py.op import OPS as _ops
from collx.compat.mpi4py.op import Op
from collx.compat.mpi4py.pickling import Pickle, pickle
from collx.compat.mpi4py.predefined import CODES as _typedict
from collx.compat.mpi4py.predefined import CONSTANTS as _datatypes
from collx.compat.mpi4py.request import REQUEST_NULL, Grequest, Prequest, Request
from collx.compat.mpi4py.status import Status
from collx.compat.mpi4py.topology import Compute_dims

globals().update(_datatypes)
globals().update(_ops)
memory = buffer

for _it in list(globals().values()):  # so that what a program prints and pickles says where it has it from
    if isinstance(_it, type) and _it.__module__.startswith("collx."):
        _it.__module__ = __name__


def __getattr__(name: str) -> Any:
    if name[0].isupper():
        raise Lacking(f"mpi4py.MPI.{name} is not in collx's shim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if mpi4py.rc.initialize and not Is_initialized():
    Init()
