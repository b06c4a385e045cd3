"""Bad input gets one clear error before anything is sent, and the communicator is as good as before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

from collx import Communicator, ReduceOp
from tests.ranks import KINDS, ranks

ONES = np.ones(4)
READ_ONLY = np.ones(4)
READ_ONLY.flags.writeable = False
RECORDS = np.zeros(4, dtype=[("a", "i4"), ("b", "f8")])
BASE = np.zeros(40)

# What is raised, what it says, and a call that types as wrong as it is.
Case = tuple[type[Exception], str, Callable[[Any], Any]]

OUT: dict[str, Case] = {
    "too short": (ValueError, "too short", lambda c: c.all_reduce(ONES, out=np.ones(3))),
    "too long": (ValueError, "too long", lambda c: c.all_reduce(ONES, out=np.ones(5))),
    "wrong shape": (ValueError, r"shape \(2, 2\)", lambda c: c.all_reduce(ONES, out=np.ones((2, 2)))),
    "read-only": (BufferError, "read-only", lambda c: c.all_reduce(ONES, out=READ_ONLY)),
    "bytes": (BufferError, "read-only", lambda c: c.all_reduce(np.zeros(3, np.uint8), out=b"abc")),
    "strided": (BufferError, "contiguous", lambda c: c.all_reduce(ONES, out=np.ones(8)[::2])),
    "transposed": (BufferError, "contiguous", lambda c: c.all_reduce(np.ones((2, 3)), out=np.ones((3, 2)).T)),
    "dtype": (TypeError, "out has dtype float32", lambda c: c.all_reduce(ONES, out=np.ones(4, np.float32))),
    "list": (TypeError, "out is a list", lambda c: c.all_reduce(ONES, out=[0.0] * 4)),
    "overlap": (ValueError, "overlap", lambda c: c.all_reduce(BASE[:4], out=BASE[2:6])),
    "overlap strided": (ValueError, "overlap", lambda c: c.all_reduce(BASE[:8:2], out=BASE[4:8])),
    "overlap gather": (ValueError, "overlap", lambda c: c.all_gather(BASE[1:3], out=BASE[: 2 * c.size])),
    "overlap scatter": (ValueError, "overlap", lambda c: c.reduce_scatter(BASE[: 4 * c.size], out=BASE[1:5])),
    "overlap all_to_all": (
        ValueError,
        "overlap",
        lambda c: c.all_to_all(BASE[: 2 * c.size], out=BASE[1 : 2 * c.size + 1]),
    ),
    "overlap sendrecv": (ValueError, "overlap", lambda c: c.sendrecv(BASE[:4], 0, BASE[2:6], 0)),
    "all_gather": (ValueError, "too short", lambda c: c.all_gather(ONES, out=np.ones(4 * c.size - 1))),
    "reduce_scatter": (ValueError, "too long", lambda c: c.reduce_scatter(np.ones(c.size), out=np.ones(2))),
    "recv read-only": (BufferError, "read-only", lambda c: c.recv(READ_ONLY, 0)),
    "recv_any read-only": (BufferError, "read-only", lambda c: c.recv_any(READ_ONLY)),
    "recv strided": (BufferError, "contiguous", lambda c: c.recv(np.ones(8)[::2], 0)),
    "broadcast read-only": (BufferError, "x is read-only", lambda c: c.broadcast(READ_ONLY, (c.rank + 1) % c.size)),
}

DTYPES: dict[str, Case] = {
    "object": (TypeError, "dtype object", lambda c: c.all_reduce(np.array([None, 1]))),
    "str": (TypeError, "dtype <U3", lambda c: c.all_reduce(np.array(["abc"]))),
    "bytes": (TypeError, r"dtype \|S3", lambda c: c.all_reduce(np.array([b"abc"]))),
    "datetime": (TypeError, "dtype datetime64", lambda c: c.all_reduce(np.array(["2024-01-01"], "M8[D]"))),
    "timedelta": (TypeError, "dtype timedelta64", lambda c: c.all_reduce(np.array([1], "m8[s]"))),
    "structured": (TypeError, "dtype", lambda c: c.all_reduce(RECORDS)),
    "big-endian": (TypeError, "byte order", lambda c: c.all_reduce(np.ones(3, ">f8"))),
    "long double": (TypeError, "dtype float128", lambda c: c.all_reduce(np.ones(3, np.longdouble))),
    "int4": (TypeError, "dtype int4", lambda c: c.all_reduce(np.ones(3, ml_dtypes.int4))),
    "masked": (TypeError, "mask", lambda c: c.all_reduce(np.ma.masked_array([1, 2], [False, True]))),
    "list": (TypeError, "x is a list", lambda c: c.all_reduce([1, 2])),
    "int": (TypeError, "x is a int", lambda c: c.all_gather(3)),
    "float": (TypeError, r"numpy.array\(x\)", lambda c: c.all_reduce(3.5)),
    "none": (TypeError, "x is None", lambda c: c.all_reduce(None)),
    "text": (TypeError, "x is a str", lambda c: c.broadcast("abc")),
    "scatter of nothing": (TypeError, "x is None", lambda c: c.scatter(None)),
    "empty": (TypeError, "dtype object", lambda c: c.empty(3, object)),
    "send": (TypeError, "x is a list", lambda c: c.send([1], 0)),
}

OPS: dict[str, Case] = {
    "unknown": (ValueError, "did you mean sum", lambda c: c.all_reduce(ONES, "summ")),
    "upper case": (ValueError, "did you mean max", lambda c: c.reduce(ONES, "MAX")),
    "unlike any": (ValueError, "there are sum, prod", lambda c: c.scan(ONES, "zzz")),
    "function": (TypeError, "ReduceOp.custom", lambda c: c.all_reduce(ONES, lambda a, b: a)),
    "none": (TypeError, "NoneType", lambda c: c.all_reduce(ONES, None)),
    "list": (TypeError, "op must be a name", lambda c: c.all_reduce(ONES, ["sum"])),
    "unknown object": (ValueError, "did you mean sum", lambda c: c.all_reduce(ONES, ReduceOp("sun"))),
    "custom without a function": (ValueError, "ReduceOp.custom", lambda c: c.all_reduce(ONES, ReduceOp("custom"))),
    "sum with a function": (ValueError, "ReduceOp.custom", lambda c: c.scan(ONES, ReduceOp("sum", lambda a, b: a))),
    "not callable": (TypeError, "function", lambda c: ReduceOp.custom(cast(Any, 3))),
    "max on complex": (
        TypeError,
        "max is not defined on complex128",
        lambda c: c.all_reduce(np.ones(2, complex), "max"),
    ),
    "min on complex": (TypeError, "min is not", lambda c: c.reduce_scatter(np.ones(2 * c.size, complex), "min")),
    "band on float": (TypeError, "band is not defined on float64", lambda c: c.all_reduce(ONES, "band")),
    "bxor on bfloat16": (TypeError, "bxor is not", lambda c: c.scan(np.ones(2, ml_dtypes.bfloat16), "bxor")),
    "bor on complex": (TypeError, "bor is not", lambda c: c.reduce(np.ones(2, np.complex64), "bor")),
    "avg on int": (TypeError, "avg is not defined on int64", lambda c: c.all_reduce(np.ones(2, int), "avg")),
    "avg on bool": (TypeError, "avg is not", lambda c: c.reduce(np.ones(2, bool), "avg")),
    "avg in scan": (ValueError, "scan has no avg", lambda c: c.scan(ONES, "avg")),
    "avg in exscan": (ValueError, "exscan has no avg", lambda c: c.exscan(ONES, "avg")),
}

NUMBERS: dict[str, Case] = {
    "root too large": (ValueError, "root is", lambda c: c.broadcast(ONES.copy(), c.size)),
    "root negative": (ValueError, "root is -1", lambda c: c.reduce(ONES, root=-1)),
    "root float": (TypeError, "root must be an integer", lambda c: c.gather(ONES, 0.0)),
    "root bool": (TypeError, "root must be an integer", lambda c: c.scatter(ONES, False)),
    "root none": (TypeError, "root must be an integer", lambda c: c.broadcast(ONES.copy(), None)),
    "to": (ValueError, "to is 99", lambda c: c.send(ONES, 99)),
    "source": (ValueError, "source is -1", lambda c: c.recv(ONES.copy(), -1)),
    "any source": (ValueError, "source is 99", lambda c: c.recv_any(ONES.copy(), 99)),
    "any tag": (ValueError, "tag is -1", lambda c: c.probe(None, -1, wait=False)),
    "any timeout": (ValueError, "timeout is 0", lambda c: c.probe(timeout=0)),
    "source text": (TypeError, "source must be an integer", lambda c: c.recv(ONES.copy(), "0")),
    "tag negative": (ValueError, "tag is -1", lambda c: c.send(ONES, 0, -1)),
    "tag large": (ValueError, "tag is", lambda c: c.recv(ONES.copy(), 0, 2**31)),
    "tag float": (TypeError, "tag must be an integer", lambda c: c.sendrecv(ONES, 0, ONES.copy(), 0, 1.5)),
    "timeout zero": (ValueError, "timeout is 0", lambda c: c.all_reduce(ONES, timeout=0)),
    "timeout negative": (ValueError, "timeout is -1", lambda c: c.barrier(timeout=-1)),
    "timeout nan": (ValueError, "timeout is nan", lambda c: c.recv(ONES.copy(), 0, timeout=math.nan)),
    "timeout text": (TypeError, "timeout must be", lambda c: c.all_gather(ONES, timeout="1")),
    "timeout bytes": (TypeError, "timeout must be", lambda c: c.barrier(timeout=b"1")),
    "timeout huge": (ValueError, "positive number", lambda c: c.barrier(timeout=-(10**400))),
    "timeout list": (TypeError, "timeout must be", lambda c: c.send(ONES, 0, timeout=[1])),
    "color": (TypeError, "color must be an integer", lambda c: c.split(1.5)),
    "color huge": (ValueError, "color is 9223372036854775808", lambda c: c.split(2**63)),
    "key huge": (ValueError, "key is -", lambda c: c.split(0, -(2**70))),
    "empty float": (TypeError, "must be an integer, not float", lambda c: c.empty(3.5, float)),
    "empty text": (TypeError, "must be an integer, not str", lambda c: c.empty("ab", float)),
    "empty nested": (TypeError, "must be an integer, not tuple", lambda c: c.empty(((1, 2), 3), float)),
    "empty": (ValueError, "negative", lambda c: c.empty((2, -1), float)),
}

COUNTS: dict[str, Case] = {
    "too few": (ValueError, "entries for", lambda c: c.reduce_scatter(np.ones(4), counts=[4] * (c.size - 1))),
    "sum": (ValueError, "add up to", lambda c: c.reduce_scatter(np.ones(4 * c.size + 1), counts=[4] * c.size)),
    "negative": (ValueError, "negative", lambda c: c.reduce_scatter(np.ones(4), counts=[-1] * c.size)),
    "float": (TypeError, r"counts\[0\] must be an integer", lambda c: c.all_gather(ONES, counts=[4.0] * c.size)),
    "no sequence": (TypeError, "counts must be", lambda c: c.all_gather(ONES, counts=4)),
    "own": (ValueError, "but the first axis has 4", lambda c: c.all_gather(ONES, counts=[3] * c.size)),
    "gather": (ValueError, "but the first axis has 4", lambda c: c.gather(ONES, counts=[5] * c.size)),
    "scatter": (ValueError, "add up to", lambda c: c.scatter(np.ones(5 * c.size), counts=[4] * c.size)),
    "one of two": (ValueError, "together", lambda c: c.all_to_all(np.ones(c.size), send_counts=[1] * c.size)),
    "send": (
        ValueError,
        "send_counts add up",
        lambda c: c.all_to_all(ONES, send_counts=[9] * c.size, recv_counts=[1] * c.size),
    ),
    "recv": (
        ValueError,
        "recv_counts has",
        lambda c: c.all_to_all(np.ones(c.size), send_counts=[1] * c.size, recv_counts=[]),
    ),
    "oneself": (
        ValueError,
        "itself",
        lambda c: c.all_to_all(np.ones(c.size), send_counts=[1] * c.size, recv_counts=[2] * c.size),
    ),
}

ALGORITHMS: dict[str, Case] = {
    "unknown": (ValueError, "did you mean ring", lambda c: c.all_reduce(ONES, algorithm="rng")),
    "of another collective": (ValueError, "has no algorithm 'bruck'", lambda c: c.all_reduce(ONES, algorithm="bruck")),
    "no name": (TypeError, "must be a name", lambda c: c.all_reduce(ONES, algorithm=3)),
    "list": (TypeError, "must be a name", lambda c: c.broadcast(ONES.copy(), algorithm=["ring"])),
    "short way": (TypeError, "must be a name", lambda c: c.all_reduce(ONES, algorithm=["ring"])),
    "plan of a list": (ValueError, r"unknown collective \['all_reduce'\]", lambda c: c.plan(["all_reduce"], ONES)),
    "not ordered": (
        ValueError,
        "does not keep rank order.*direct",
        lambda c: c.all_reduce(ONES, ReduceOp.custom(lambda a, b: a), algorithm="ring"),
    ),
    "not uniform": (
        ValueError,
        "one size.*pairwise",
        lambda c: c.all_to_all(np.ones(c.size), send_counts=[1] * c.size, recv_counts=[1] * c.size, algorithm="bruck"),
    ),
}

SOME_SIZES: dict[str, Case] = {
    "uneven": (ValueError, "cannot share equally", lambda c: c.reduce_scatter(np.ones(c.size + 1))),
    "uneven scatter": (ValueError, "cannot share equally", lambda c: c.scatter(np.ones(2 * c.size - 1))),
    "uneven all_to_all": (ValueError, "cannot share equally", lambda c: c.all_to_all(np.ones(c.size * 3 + 1))),
    "size": (ValueError, "does not take 3 ranks.*ring", lambda c: c.all_reduce(ONES, algorithm="swing")),
}

ONESELF: dict[str, Case] = {
    "nothing sent": (ValueError, "nothing with tag 5", lambda c: c.recv(ONES.copy(), c.rank, 5)),
    "nothing to exchange": (
        ValueError,
        "nothing with tag 6",
        lambda c: c.sendrecv(ONES, (c.rank + 1) % c.size, ONES.copy(), c.rank, 6) if c.size > 1 else c.recv(BASE, 0, 6),
    ),
    "another length": (ValueError, "32 bytes", lambda c: c.sendrecv(ONES, c.rank, np.ones(3), c.rank, 7)),
    "nothing was kept of it": (ValueError, "nothing with tag 7", lambda c: c.recv(ONES.copy(), c.rank, 7)),
}

EVERYWHERE = {
    "oneself": ONESELF,
    "out": OUT,
    "dtype": DTYPES,
    "op": OPS,
    "number": NUMBERS,
    "counts": COUNTS,
    "algorithm": ALGORITHMS,
}


def refused(comm: Communicator, cases: dict[str, Case]) -> None:
    for name, (kind, message, call) in cases.items():
        if name == "broadcast read-only" and comm.size == 1:
            continue  # the root may be
        with pytest.raises(kind, match=message) as caught:
            call(comm)
        assert "\n" not in str(caught.value), name
        assert not comm.closed, name
    assert comm.all_reduce(np.ones(1)) == comm.size
    out = np.empty(1)
    comm.sendrecv(np.array([comm.rank]) * 1.0, (comm.rank + 1) % comm.size, out, (comm.rank - 1) % comm.size)
    assert out == (comm.rank - 1) % comm.size


@pytest.mark.parametrize("what", EVERYWHERE)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_bad_input_is_refused(kind: str, size: int, what: str) -> None:
    ranks(kind, size, refused, EVERYWHERE[what])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_sizes_that_do_not_fit_are_refused(kind: str) -> None:
    ranks(kind, 3, refused, SOME_SIZES)
