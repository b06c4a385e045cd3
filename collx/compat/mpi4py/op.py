"""Reduction operations: MPI's own and the program's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from collx.compat.mpi4py import constants, errors
from collx.compat.mpi4py.datatype import Datatype
from collx.compat.mpi4py.handle import Handle, Kept
from collx.compat.mpi4py.kind import Kind
from collx.compat.mpi4py.layout import Bytes
from collx.compat.mpi4py.memory import buffer
from collx.compat.mpi4py.specification import message
from collx.types import BUILT_IN, DTYPE_CODES, DTYPES, supports

Numbers = np.ndarray[Any, Any]
_BFLOAT16 = DTYPES[10]
LIMIT = 32  # a program's own ops at a time, as mpi4py has it


class Operator(Kept):
    """What an op does.

    objects: combines two Python objects. name: collx's name of it, where collx has it. fold: combines arrays, that of
    the lower ranks first, and returns the result; None for a program's op, which is `function`.
    """

    def __init__(
        self,
        objects: Callable[[Any, Any], Any],
        name: str | None = None,
        fold: Callable[[Numbers, Numbers], Numbers] | None = None,
        function: Callable[[Any, Any, Any], Any] | None = None,
        commutes: bool = True,
    ) -> None:
        self.objects, self.name, self.fold = objects, name, fold
        self.function, self.commutes = function, commutes

    def native(self, dtype: np.dtype[Any] | None) -> str | None:
        """What collx's collectives call it, where they do it on such elements."""
        if self.name is None or dtype not in DTYPE_CODES:
            return None
        return self.name if supports(dtype, BUILT_IN[self.name]) else None

    def combine(self, lower: Bytes, upper: Bytes, kind: Kind, count: int) -> None:
        """Leave in `upper` what the two give, `count` elements each as they travel. Raises MPI.Exception where there is
        no such op on the datatype."""
        if not count:
            return
        one, other = (data if kind.dense else _spread(data, kind, count) for data in (lower, upper))
        if self.function is not None:
            self.function(one.view(buffer), other.view(buffer), Datatype._named(kind))
        else:
            dtype = kind.pair if kind.dtype is None else kind.dtype
            if dtype is None or not self._defined(kind):
                raise errors.Exception(constants.ERR_OP, f"MPI.{self.constant} is not defined on {kind.name or 'it'}")
            assert self.fold is not None
            other.view(dtype)[:] = self.fold(one.view(dtype), other.view(dtype))
        if other is not upper:
            upper[:] = kind.layout.gather(_window(other, kind, count), count)

    def _defined(self, kind: Kind) -> bool:
        if self.constant in ("REPLACE", "NO_OP"):
            return True
        if self.constant in ("MAXLOC", "MINLOC"):
            return kind.pair is not None
        letter = "V" if kind.dtype is None else kind.dtype.kind
        if self.constant in ("BAND", "BOR", "BXOR"):
            return letter in "biu"
        numbers = "biuf" if self.constant in ("MAX", "MIN") else "biufc"
        return letter in numbers or kind.dtype == _BFLOAT16


class Op(Handle):
    """A reduction operation. Called with two objects it combines them."""

    null = "OP_NULL"
    invalid = constants.ERR_OP
    _anonymous = False

    @classmethod
    def Create(cls, function: Callable[[Any, Any, Datatype], Any], commute: bool = False) -> Self:
        """function(inbuf, inoutbuf, datatype) combines what lower ranks gave, in the first, into the second; called
        with objects, as `op(a, b)`, it has None for a datatype and returns the result. Contributions come in rank
        order."""
        if len(_created) >= LIMIT:
            raise RuntimeError(f"there may be {LIMIT} ops of a program's own: free some")
        none: Any = None
        kept = Operator(lambda a, b: function(a, b, none), function=function, commutes=bool(commute))
        _created.add(kept)
        return cls._of(kept)

    def Free(self) -> None:
        if self._kept().constant is not None:
            raise errors.Exception(constants.ERR_OP, f"MPI.{self._it.constant} cannot be freed")
        _created.discard(self._it)
        self._it = None

    def Is_commutative(self) -> bool:
        return bool(self._kept().commutes)

    is_commutative = property(Is_commutative)

    @property
    def is_predefined(self) -> bool:
        return self._it is None or self._it.function is None

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """Combine the first into the second."""
        operator, lower, upper = operator_of(self), message(inbuf), message(inoutbuf, writable=True)
        if lower.kind is not upper.kind:
            raise ValueError("mismatch in input and output MPI datatypes")
        if lower.count != upper.count:
            raise ValueError(f"mismatch in inbuf count {lower.count} and inoutbuf count {upper.count}")
        result = upper.data().copy()
        operator.combine(lower.data(), result, upper.kind, upper.count)
        upper.put(result)

    def __call__(self, x: Any, y: Any) -> Any:
        if self._it is None:
            raise ValueError("cannot call MPI.OP_NULL")
        return self._it.objects(x, y)

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._it is None or self._it.function is None:
            return super().__reduce__()
        if self._anonymous:
            raise ValueError("cannot pickle an op of which only the number was given")
        return type(self).Create, (self._it.function, self._it.commutes)

    @classmethod
    def fromhandle(cls, handle: int) -> Self:
        self = super().fromhandle(handle)
        self._anonymous = True
        return self


_created: set[Operator] = set()


def operator_of(op: object) -> Operator:
    """What it combines by. Raises TypeError for what is no Op."""
    if not isinstance(op, Op):
        raise TypeError(f"expected an MPI.Op, not {type(op).__name__}")
    operator: Operator = op._kept()
    return operator


def _spread(data: Bytes, kind: Kind, count: int) -> Bytes:
    """Elements that have gaps, as they lie in memory."""
    made = np.zeros(count * kind.extent, np.uint8)
    kind.layout.scatter(data, _window(made, kind, count), count)
    return made


def _window(spread: Bytes, kind: Kind, count: int) -> Bytes:
    first, last = kind.layout.span(count)
    if first < 0 or last > len(spread):
        raise NotImplementedError("an op on a datatype that reaches beyond its extent is not in collx's shim of mpi4py")
    return spread[first:last]


def _logical(function: Callable[..., Numbers]) -> Callable[[Numbers, Numbers], Numbers]:
    return lambda a, b: function(a.astype(bool), b.astype(bool)).astype(b.dtype)


def _located(
    better: Callable[[Any, Any], Any],
) -> tuple[Callable[[Any, Any], Any], Callable[[Numbers, Numbers], Numbers]]:
    """Of two pairs the one with the better value; of equal ones that with the lower index."""

    def objects(x: Any, y: Any) -> Any:
        (u, i), (v, j) = x, y
        if better(u, v):
            return u, i
        if better(v, u):
            return v, j
        return (u, i) if i <= j else (v, j)

    def fold(a: Numbers, b: Numbers) -> Numbers:
        first = better(a["value"], b["value"]) | ((a["value"] == b["value"]) & (a["index"] <= b["index"]))
        return np.where(first, a, b)

    return objects, fold


def _first(better: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, y: x if better(x, y) or not better(y, x) else y


def _define() -> dict[str, Op]:
    import operator

    both: dict[str, tuple[Any, str | None, Any]] = {
        "MAX": (_first(operator.gt), "max", np.maximum),
        "MIN": (_first(operator.lt), "min", np.minimum),
        "SUM": (operator.add, "sum", np.add),
        "PROD": (operator.mul, "prod", np.multiply),
        "LAND": (lambda x, y: bool(x) & bool(y), "land", _logical(np.logical_and)),
        "BAND": (operator.and_, "band", np.bitwise_and),
        "LOR": (lambda x, y: bool(x) | bool(y), "lor", _logical(np.logical_or)),
        "BOR": (operator.or_, "bor", np.bitwise_or),
        "LXOR": (lambda x, y: bool(x) ^ bool(y), "lxor", _logical(np.logical_xor)),
        "BXOR": (operator.xor, "bxor", np.bitwise_xor),
        "MAXLOC": (_located(operator.gt)[0], None, _located(operator.gt)[1]),
        "MINLOC": (_located(operator.lt)[0], None, _located(operator.lt)[1]),
        "REPLACE": (lambda x, y: y, None, lambda a, b: b),
        "NO_OP": (lambda x, y: x, None, lambda a, b: a),
    }
    made = {name: Op._of(Operator(*how), name) for name, how in both.items()}
    return made | {"OP_NULL": Op._of(None, "OP_NULL")}


OPS = _define()
SUM = OPS["SUM"]
