"""What went wrong between ranks, as MPI's exception."""

from __future__ import annotations

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import ERR_OTHER, ERR_PROC_ABORTED, ERR_PROC_FAILED, ERR_REVOKED, ERR_TRUNCATE
from collx.errors import AbortedError, CollxError, RankFailedError, RevokedError, TruncatedError

_CODES = {
    RankFailedError: ERR_PROC_FAILED,
    RevokedError: ERR_REVOKED,
    AbortedError: ERR_PROC_ABORTED,
    TruncatedError: ERR_TRUNCATE,
}


class Failure(errors.Exception):
    """An error of collx, whose line is its text; collx's own exception is its `__cause__`."""

    __module__ = "mpi4py.MPI"

    def __init__(self, error: CollxError) -> None:
        codes = (code for kind, code in _CODES.items() if isinstance(error, kind))
        super().__init__(next(codes, ERR_OTHER), str(error))

    def __str__(self) -> str:
        return self._reason
