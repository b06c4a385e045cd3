"""All collectives, dtypes and ops on arrays of a kit, against NumPy on the same contributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from collx.perf.collectives import MEASURED, Measured, bind
from collx.perf.contributions import Contributions
from collx.perf.measure import rubbish
from collx.types import BUILT_IN, Array, supports
from tests.gpu.found import Found
from tests.gpu.kits import Kit

COUNTS = (1, 1001, 20_000)
FEW = ("float32", "int64", "float16", "bfloat16", "complex64")


def every_collective(comm: Any, kit: Kit, counts: Sequence[int] = COUNTS, dtypes: Sequence[str] = FEW) -> Found:
    """In every placement, of some dtypes."""
    found = Found()
    for case in MEASURED.values():
        for dtype in (dtype for dtype in kit.dtypes if dtype.name in dtypes):
            for count in (0,) if case.name == "barrier" else counts:
                for in_place in _placements(case):
                    whole = count * comm.size if case.per_rank else count
                    once(comm, kit, case, dtype, "sum", whole, in_place, found)
    return found


def every_dtype_and_op(comm: Any, kit: Kit, count: int = 777, dtypes: Sequence[str] = ()) -> Found:
    """All of them, or those of some dtypes, by all_reduce, and sums by the other reductions."""
    found = Found()
    for dtype in (dtype for dtype in kit.dtypes if not dtypes or dtype.name in dtypes):
        for op in _ops(dtype):
            once(comm, kit, MEASURED["all_reduce"], dtype, op, count, False, found)
        for name in ("reduce_scatter", "reduce", "scan", "exscan"):
            once(comm, kit, MEASURED[name], dtype, "sum", count * comm.size, False, found)
    return found


def once(
    comm: Any, kit: Kit, case: Measured, dtype: np.dtype[Any], op: str, whole: int, in_place: bool, found: Found
) -> None:
    """One call by every rank, the last one the root; everything that was written or must not have been is compared."""
    rank, root, part = comm.rank, comm.size - 1, whole // comm.size
    where = "in place" if in_place else "out of place"
    what = f"{case.name} of {whole} {dtype.name}, {op if case.reduces else 'no op'}, {where}"
    data = Contributions(op if case.reduces else "max", dtype, comm.size, seed=whole)
    send, receive = case.lengths(whole, part)
    mine, rest = data.of(rank, send), np.resize(rubbish(dtype), max(whole, receive))
    if in_place:
        host = rest.copy()
        if case.name != "broadcast" or rank == root:
            case.views(host, rank, part)[0][...] = mine
        x, out = case.views(kit.put(host), rank, part)
    else:
        x, out = kit.put(mine), kit.put(rest[:receive])
    try:
        bind(comm, case, x, out, op, root, None)()
    except BaseException as error:
        error.add_note(what)
        raise
    right = data.expected(case, rank, root, whole, part)
    if right is not None:
        found.equal(what, kit.get(out), right)
    if not in_place and case.sends != "none":
        found.equal(f"{what}: its input afterwards", kit.get(x), mine)


def rounded_once(comm: Any, kit: Kit, count: int = 4099) -> Found:
    """Any numbers: narrow floats are added in float32, from rank 0 on, and rounded once."""
    found = Found()
    for dtype in (dtype for dtype in kit.dtypes if dtype.name in ("float16", "bfloat16", "float32", "float64")):
        given = [np.random.default_rng(rank).normal(size=count).astype(dtype) for rank in range(comm.size)]
        out = comm.all_reduce(kit.put(given[comm.rank]))
        total = given[0].astype(np.float32 if dtype.itemsize < 4 else dtype)
        for other in given[1:]:
            total = total + other.astype(total.dtype)
        found.equal(f"all_reduce of any {dtype.name}", kit.get(out), total.astype(dtype))
    return found


def unusual_numbers(comm: Any, kit: Kit) -> Found:
    """Infinities, NaN, zeros of both signs, the largest and the smallest."""
    found = Found()
    for dtype in (dtype for dtype in kit.dtypes if dtype.kind in "fV"):
        info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, float(info.max), float(info.tiny)]
        with np.errstate(all="ignore"):
            values = np.array(special).astype(dtype)
            given = [np.roll(values, rank) for rank in range(comm.size)]
            for op, fold in (("min", np.minimum), ("max", np.maximum)):
                right: Array = given[0]
                for other in given[1:]:
                    right = fold(right, other)
                found.equal(
                    f"{op} of unusual {dtype.name}", kit.get(comm.all_reduce(kit.put(given[comm.rank]), op)), right
                )
    return found


def _placements(case: Measured) -> Iterator[bool]:
    if case.out_of_place:
        yield False
    if case.in_place:
        yield True


def _ops(dtype: np.dtype[Any]) -> list[str]:
    return [name for name, op in BUILT_IN.items() if supports(dtype, op)]
