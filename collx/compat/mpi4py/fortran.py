"""The datatypes that are found by what they are to hold."""

from __future__ import annotations

from typing import Any, Self

from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.handle import Mixin
from collx.compat.mpi4py.kind import CONSTANTS, Kind

_CLASSES = {
    constants.TYPECLASS_LOGICAL: "LOGICAL",
    constants.TYPECLASS_INTEGER: "INTEGER",
    constants.TYPECLASS_REAL: "REAL",
    constants.TYPECLASS_COMPLEX: "COMPLEX",
}
_INTEGERS = ((2, "INTEGER1"), (4, "INTEGER2"), (9, "INTEGER4"), (18, "INTEGER8"))  # decimal digits that each holds
_FLOATS = {"REAL": ("REAL", "DOUBLE_PRECISION"), "COMPLEX": ("COMPLEX", "DOUBLE_COMPLEX")}


class Chosen(Mixin):
    """What Datatype has to find others by."""

    __slots__ = ()

    @classmethod
    def Match_size(cls, typeclass: int, size: int) -> Self:
        """Fortran's type of a class by its size in bytes."""
        found = CONSTANTS.get(f"{_CLASSES.get(typeclass, '')}{size}")
        if not found:
            raise errors.Exception(constants.ERR_ARG, f"there is no type of {size} bytes in this class")
        return found

    @classmethod
    def Get_value_index(cls, value: Any, index: Any) -> Self:
        """The pair of a value and an index; DATATYPE_NULL where MPI has none."""
        value._kind(), index._kind()
        name = f"{value._kind().constant}_INT"
        return CONSTANTS[name if name in CONSTANTS and index == CONSTANTS["INT"] else "DATATYPE_NULL"]

    @classmethod
    def Create_f90_integer(cls, r: int) -> Self:
        """For whole numbers of r decimal digits."""
        return cls._fortran("INTEGER", next((name for digits, name in _INTEGERS if r <= digits), None), r=r)

    @classmethod
    def Create_f90_real(cls, p: int, r: int) -> Self:
        """For p decimal digits, and decimal exponents up to r."""
        return cls._fortran("REAL", _float("REAL", p, r), p=p, r=r)

    @classmethod
    def Create_f90_complex(cls, p: int, r: int) -> Self:
        return cls._fortran("COMPLEX", _float("COMPLEX", p, r), p=p, r=r)

    @classmethod
    def _fortran(cls, what: str, name: str | None, **wanted: int) -> Self:
        if name is None:
            raise errors.Exception(constants.ERR_ARG, f"there is no Fortran type with {wanted}")
        kind = CONSTANTS[name]._kind()
        of: Any = cls
        return of._of(Kind(lambda: kind.layout, "", kind.code, f"F90_{what}", None, dict(wanted)))


def _float(what: str, p: int, r: int) -> str | None:
    single, double = _FLOATS[what]
    return single if p <= 6 and r <= 37 else double if p <= 15 and r <= 307 else None
