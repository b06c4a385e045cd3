"""MPI.Exception, and what the error codes mean."""

from __future__ import annotations

from typing import Any

from collx.compat.mpi4py import constants

MEANINGS = {
    "SUCCESS": "No error",
    "ERR_BUFFER": "Invalid buffer pointer",
    "ERR_COUNT": "Invalid count argument",
    "ERR_TYPE": "Invalid datatype argument",
    "ERR_TAG": "Invalid tag argument",
    "ERR_COMM": "Invalid communicator",
    "ERR_RANK": "Invalid rank",
    "ERR_REQUEST": "Invalid request",
    "ERR_ROOT": "Invalid root",
    "ERR_GROUP": "Invalid group",
    "ERR_OP": "Invalid operation",
    "ERR_TOPOLOGY": "Invalid topology",
    "ERR_DIMS": "Invalid dimension argument",
    "ERR_ARG": "Invalid argument",
    "ERR_TRUNCATE": "Message truncated",
    "ERR_KEYVAL": "Invalid keyval",
    "ERR_INFO": "Invalid info",
    "ERR_INFO_KEY": "Invalid info key",
    "ERR_INFO_NOKEY": "No such info key",
    "ERR_INFO_VALUE": "Invalid info value",
}
_CLASSES: dict[int, str] = {}
for _name, _value in vars(constants).items():
    if _name == "SUCCESS" or _name.startswith("ERR_"):
        _CLASSES.setdefault(_value, _name)


class Exception(RuntimeError):  # its name in mpi4py
    """What a wrong argument raises that MPI itself would find; `reason` says what is wrong with which.

    Compares and hashes as its error code does.
    """

    def __init__(self, ierr: int = constants.SUCCESS, reason: str = "", /) -> None:
        super().__init__(ierr)
        self._code, self._reason = int(ierr), reason

    def Get_error_code(self) -> int:
        return self._code

    def Get_error_class(self) -> int:
        return Get_error_class(self._code)

    def Get_error_string(self) -> str:
        return Get_error_string(self._code)

    error_code = property(Get_error_code)
    error_class = property(Get_error_class)
    error_string = property(Get_error_string)

    def __str__(self) -> str:
        return f"{Get_error_string(self._code)}: {self._reason}" if self._reason else Get_error_string(self._code)

    def __repr__(self) -> str:
        return f"MPI.Exception({self._code})"

    def __int__(self) -> int:
        return self._code

    def __bool__(self) -> bool:
        return self._code != constants.SUCCESS

    def __hash__(self) -> int:
        return hash(self._code)

    def __eq__(self, other: object) -> Any:
        return self._code == (other._code if isinstance(other, Exception) else other)

    def __ne__(self, other: object) -> Any:
        return not self == other

    def __lt__(self, other: Any) -> Any:
        return self._code < int(other)

    def __le__(self, other: Any) -> Any:
        return self._code <= int(other)

    def __gt__(self, other: Any) -> Any:
        return self._code > int(other)

    def __ge__(self, other: Any) -> Any:
        return self._code >= int(other)


def Get_error_class(errorcode: int) -> int:
    if errorcode not in _CLASSES:
        raise Exception(constants.ERR_ARG, f"{errorcode} is no error code")
    return errorcode


def Get_error_string(errorcode: int) -> str:
    name = _CLASSES.get(errorcode)
    if name is None:
        raise Exception(constants.ERR_ARG, f"{errorcode} is no error code")
    return MEANINGS.get(name) or f"MPI_{name}"


class Lacking(NotImplementedError, AttributeError):
    """A name of mpi4py's that the shim does not have: `hasattr` is false, and whoever uses it is told its name."""
