"""What mpi4py has and the shim does not, where programs ask for its type without using it."""

from __future__ import annotations

from typing import NoReturn

from collx.compat.mpi4py.constants import ERR_FILE, ERR_SESSION, ERR_WIN
from collx.compat.mpi4py.errors import Lacking
from collx.compat.mpi4py.handle import Handle


class Absent(type):
    """A class of which only the null handle can be had."""

    def __getattr__(cls, name: str) -> NoReturn:
        raise Lacking(f"mpi4py.MPI.{cls.__name__}.{name} is not in collx's shim")


class File(Handle, metaclass=Absent):
    """Files that ranks share."""

    null = "FILE_NULL"
    invalid = ERR_FILE


class Session(Handle, metaclass=Absent):
    """MPI without a world."""

    null = "SESSION_NULL"
    invalid = ERR_SESSION


class Win(Handle, metaclass=Absent):
    """Memory that other ranks read and write."""

    null = "WIN_NULL"
    invalid = ERR_WIN


FILE_NULL = File._of(None, "FILE_NULL")
SESSION_NULL = Session._of(None, "SESSION_NULL")
WIN_NULL = Win._of(None, "WIN_NULL")
