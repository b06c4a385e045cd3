"""What mpi4py has and the shim does not, where programs ask for its type without using it."""

from __future__ import annotations

from typing import Any, NoReturn

from collx.compat.mpi4py.errors import Lacking


class Absent(type):
    """A class of which nothing can be had."""

    def __getattr__(cls, name: str) -> NoReturn:
        raise Lacking(f"mpi4py.MPI.{cls.__name__}.{name} is not in collx's shim")

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise Lacking(f"mpi4py.MPI.{cls.__name__} is not in collx's shim")


class File(metaclass=Absent):
    """Files that ranks share."""


class Session(metaclass=Absent):
    """MPI without a world."""


class Win(metaclass=Absent):
    """Memory that other ranks read and write."""
