"""Which calls mean the same to MPI's own collectives, so that one of them may stand for a schedule."""

from __future__ import annotations

from collx.collectives import COLLECTIVES
from collx.request import Request

COUNTS = 1 << 31  # MPI counts elements, and where they begin, in ints
_EXACT = ("sum", "prod", "min", "max", "band", "bor", "bxor", "land", "lor", "lxor")
# Kind of dtype -> the ops that are the same. avg is a sum, which we divide.
_SAME = {"b": _EXACT, "i": _EXACT, "u": _EXACT, "f": ("sum", "avg", "prod"), "c": ("sum", "avg")}


def refusal(request: Request) -> str | None:
    """Why MPI's collective is not the same as `request`, if it is not.

    MPI has no float16, bfloat16 and float8; its min and max lose NaN, its logical ops are on integers only, and its
    product of complex infinities may be another. Open MPI's sum of integers of 8 and 16 bits stops at the largest. MPI
    must be told all counts, in ints.
    """
    if not request.agreed:
        return "the counts of all ranks are not known to each"
    if sum(request.elements) >= COUNTS:
        return f"MPI takes at most {COUNTS - 1} elements"
    if request.op is None or not COLLECTIVES[request.collective].reduces:
        return None
    if request.custom:
        return "the op is not MPI's"
    dtype, op = request.dtype, request.op.name
    if dtype.kind not in _SAME or (dtype.kind == "f" and dtype.itemsize < 4):
        return f"MPI does not reduce {dtype}"
    narrow = dtype.kind in "iu" and dtype.itemsize < 4 and op == "sum"
    return f"MPI's {op} of {dtype} is not the same" if narrow or op not in _SAME[dtype.kind] else None
