"""Datatypes: what an element is made of. The predefined ones are in predefined.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from collx.compat.mpi4py import constants, errors, layout
from collx.compat.mpi4py.attributes import Attributes
from collx.compat.mpi4py.constants import COMBINER_NAMED, ORDER_C
from collx.compat.mpi4py.fortran import Chosen
from collx.compat.mpi4py.handle import Handle
from collx.compat.mpi4py.kind import CODES, CONSTANTS, Kind
from collx.compat.mpi4py.layout import Layout, Numbers
from collx.compat.mpi4py.packing import Packing

# The arguments of each constructor by which `decode` tells them, and whether MPI keeps each as int, address or type.
_ARGUMENTS: dict[str, dict[str, str]] = {
    "DUP": {},
    "CONTIGUOUS": {"count": "i"},
    "VECTOR": {"count": "i", "blocklength": "i", "stride": "i"},
    "HVECTOR": {"count": "i", "blocklength": "i", "stride": "a"},
    "INDEXED": {"blocklengths": "i", "displacements": "i"},
    "HINDEXED": {"blocklengths": "i", "displacements": "a"},
    "INDEXED_BLOCK": {"blocklength": "i", "displacements": "i"},
    "HINDEXED_BLOCK": {"blocklength": "i", "displacements": "a"},
    "STRUCT": {"blocklengths": "i", "displacements": "a", "datatypes": "d"},
    "SUBARRAY": {"sizes": "i", "subsizes": "i", "starts": "i", "order": "i"},
    "DARRAY": dict.fromkeys(("size", "rank", "gsizes", "distribs", "dargs", "psizes", "order"), "i"),
    "RESIZED": {"lb": "a", "extent": "a"},
    "VALUE_INDEX": {"value": "d", "index": "d"},
    "F90_INTEGER": {"r": "i"},
    "F90_REAL": {"p": "i", "r": "i"},
    "F90_COMPLEX": {"p": "i", "r": "i"},
}
_COUNTED = {"INDEXED", "HINDEXED", "INDEXED_BLOCK", "HINDEXED_BLOCK", "STRUCT"}  # whose ints begin with a count


class Datatype(Attributes, Chosen, Packing, Handle):
    """A datatype. Those that a program makes need not be committed, and are not freed before what uses them."""

    null = "DATATYPE_NULL"
    invalid = constants.ERR_TYPE

    # -- what it is --------------------------------------------------------------------------------------

    def Get_size(self) -> int:
        return self._kind().size

    def Get_extent(self) -> tuple[int, int]:
        one = self._kind().layout
        return one.lb, one.extent

    def Get_true_extent(self) -> tuple[int, int]:
        one = self._kind().layout
        return one.true_lb, one.true_ub - one.true_lb

    @property
    def size(self) -> int:
        return self.Get_size()

    @property
    def extent(self) -> int:
        return self._kind().extent

    @property
    def lb(self) -> int:
        return self._kind().layout.lb

    @property
    def ub(self) -> int:
        return self._kind().layout.ub

    @property
    def true_extent(self) -> int:
        return self.Get_true_extent()[1]

    @property
    def true_lb(self) -> int:
        return self._kind().layout.true_lb

    @property
    def true_ub(self) -> int:
        return self._kind().layout.true_ub

    def Get_name(self) -> str:
        return "MPI_DATATYPE_NULL" if self._it is None else str(self._it.name)

    def Set_name(self, name: str) -> None:
        self._kind().name = name

    name = property(Get_name, Set_name)

    def _kind(self) -> Kind:
        kind: Kind = self._kept()
        return kind

    # -- made of others ----------------------------------------------------------------------------------

    def _derived(self, made: Callable[[Layout], Layout], combiner: str, **arguments: Any) -> Self:
        of = self._kind()
        return self._of(Kind(lambda: made(of.layout), "", None, combiner, of, arguments))

    def Dup(self) -> Self:
        kind = self._kind()
        new = self._of(Kind(lambda: kind.layout, kind.name if kind.constant else "", kind.code, "DUP", kind))
        self._copy_attributes(new)
        return new

    Create_dup = Dup

    def Create_contiguous(self, count: int) -> Self:
        _counts(count)
        return self._derived(lambda one: layout.repeated(one, [count], [0]), "CONTIGUOUS", count=count)

    def Create_vector(self, count: int, blocklength: int, stride: int) -> Self:
        """Blocks whose beginnings are `stride` elements apart."""
        _counts(count, blocklength)
        return self._derived(
            lambda one: _strided(one, count, blocklength, stride * one.extent),
            "VECTOR", count=count, blocklength=blocklength, stride=stride,
        )  # fmt: skip

    def Create_hvector(self, count: int, blocklength: int, stride: int) -> Self:
        """As a vector, with the stride in bytes."""
        _counts(count, blocklength)
        return self._derived(
            lambda one: _strided(one, count, blocklength, stride),
            "HVECTOR", count=count, blocklength=blocklength, stride=stride,
        )  # fmt: skip

    def Create_indexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Self:
        """Blocks at displacements in elements."""
        lengths, at = _alike(blocklengths, displacements)
        return self._derived(
            lambda one: layout.repeated(one, lengths, np.array(at, np.int64) * one.extent),
            "INDEXED", blocklengths=lengths, displacements=at,
        )  # fmt: skip

    def Create_hindexed(self, blocklengths: Sequence[int], displacements: Sequence[int]) -> Self:
        """Blocks at displacements in bytes."""
        lengths, at = _alike(blocklengths, displacements)
        return self._derived(
            lambda one: layout.repeated(one, lengths, at), "HINDEXED", blocklengths=lengths, displacements=at
        )

    def Create_indexed_block(self, blocklength: int, displacements: Sequence[int]) -> Self:
        at = list(displacements)
        _counts(blocklength)
        return self._derived(
            lambda one: layout.repeated(one, [blocklength] * len(at), np.array(at, np.int64) * one.extent),
            "INDEXED_BLOCK", blocklength=blocklength, displacements=at,
        )  # fmt: skip

    def Create_hindexed_block(self, blocklength: int, displacements: Sequence[int]) -> Self:
        at = list(displacements)
        _counts(blocklength)
        return self._derived(
            lambda one: layout.repeated(one, [blocklength] * len(at), at),
            "HINDEXED_BLOCK", blocklength=blocklength, displacements=at,
        )  # fmt: skip

    @classmethod
    def Create_struct(
        cls, blocklengths: Sequence[int], displacements: Sequence[int], datatypes: Sequence[Datatype]
    ) -> Self:
        """Blocks of several datatypes at displacements in bytes."""
        lengths, at = _alike(blocklengths, displacements)
        kinds = [datatype._kind() for datatype in datatypes]
        if len(kinds) != len(at):
            raise ValueError(f"there are {len(at)} displacements, but {len(kinds)} datatypes")

        def made() -> Layout:
            parts = zip(kinds, lengths, at, strict=True)
            return layout.joined([layout.repeated(kind.layout, [length], [here]) for kind, length, here in parts])

        arguments = {"blocklengths": lengths, "displacements": at, "datatypes": kinds}
        return cls._of(Kind(made, "", None, "STRUCT", None, arguments))

    def Create_subarray(
        self, sizes: Sequence[int], subsizes: Sequence[int], starts: Sequence[int], order: int = ORDER_C
    ) -> Self:
        """The part of an array of `sizes` that begins at `starts`."""
        whole, part, first = list(sizes), list(subsizes), list(starts)
        if not len(whole) == len(part) == len(first):
            raise ValueError("sizes, subsizes and starts have different lengths")
        for size, subsize, start in zip(whole, part, first, strict=True):
            if subsize < 1 or start < 0 or start + subsize > size:
                raise errors.Exception(constants.ERR_ARG, f"{subsize} from {start} on is no part of {size}")

        def made(one: Layout) -> Layout:
            indices = [np.arange(start, start + subsize) for start, subsize in zip(first, part, strict=True)]
            step = 1 if order == ORDER_C else -1
            return layout.grid(one, whole[::step], indices[::step])

        return self._derived(made, "SUBARRAY", sizes=whole, subsizes=part, starts=first, order=order)

    def Create_darray(
        self,
        size: int,
        rank: int,
        gsizes: Sequence[int],
        distribs: Sequence[int],
        dargs: Sequence[int],
        psizes: Sequence[int],
        order: int = ORDER_C,
    ) -> Self:
        """The part that `rank` has of an array which is dealt out to a grid of processes."""
        whole, how, blocks, ranks = list(gsizes), list(distribs), list(dargs), list(psizes)

        def made(one: Layout) -> Layout:
            places = np.unravel_index(rank, ranks)
            dealt = [_dealt(*dimension) for dimension in zip(whole, how, blocks, ranks, map(int, places), strict=True)]
            step = 1 if order == ORDER_C else -1
            return layout.grid(one, whole[::step], dealt[::step])

        return self._derived(
            made, "DARRAY",
            size=size, rank=rank, gsizes=whole, distribs=how, dargs=blocks, psizes=ranks, order=order,
        )  # fmt: skip

    def Create_resized(self, lb: int, extent: int) -> Self:
        """The same, with the next element `extent` bytes behind it."""
        return self._derived(lambda one: layout.resized(one, lb, extent), "RESIZED", lb=lb, extent=extent)

    Resized = Create_resized

    def Commit(self) -> Self:
        self._kind()
        return self

    def Free(self) -> None:
        if self._kind().constant is not None:
            raise errors.Exception(constants.ERR_TYPE, f"{self._kind().name} is MPI's own and cannot be freed")
        self._drop_attributes()
        self._it = None

    # -- how it was made ---------------------------------------------------------------------------------

    @property
    def combiner(self) -> int:
        return int(getattr(constants, f"COMBINER_{self._kind().combiner}"))

    @property
    def is_named(self) -> bool:
        return self._it is None or self.combiner == COMBINER_NAMED

    @property
    def is_predefined(self) -> bool:
        return self.is_named or self._kind().combiner.startswith("F90")

    def Get_envelope(self) -> tuple[int, int, int, int, int]:
        """How many ints, addresses, counts and datatypes Get_contents returns, and the combiner."""
        if self.is_named:
            return 0, 0, 0, 0, COMBINER_NAMED
        integers, addresses, counts, datatypes = self.Get_contents()
        return len(integers), len(addresses), len(counts), len(datatypes), self.combiner

    def Get_contents(self) -> tuple[list[int], list[int], list[int], list[Datatype]]:
        kind = self._kind()
        if kind.combiner == "NAMED":
            raise errors.Exception(constants.ERR_TYPE, f"{kind.name} is not made of others")
        found: dict[str, list[Any]] = {"i": [], "a": [], "d": []}
        if kind.combiner in _COUNTED:
            found["i"].append(len(kind.arguments["displacements"]))
        if kind.combiner in ("SUBARRAY",):
            found["i"].append(len(kind.arguments["sizes"]))
        for name, sort in _ARGUMENTS[kind.combiner].items():
            value = kind.arguments[name]
            found[sort] += value if isinstance(value, list) else [value]
        datatypes = ([] if kind.of is None else [kind.of]) + found["d"]
        return found["i"], found["a"], [], [self._named(one) for one in datatypes]

    envelope = property(Get_envelope)
    contents = property(Get_contents)

    def decode(self) -> tuple[Datatype, str, dict[str, Any]]:
        """What it was made of, by which constructor, with which arguments."""
        kind = self._kind()
        if kind.combiner == "NAMED":
            return self, "NAMED", {}
        arguments = {name: self._copied(kind.arguments[name]) for name in _ARGUMENTS[kind.combiner]}
        return Datatype._of(None) if kind.of is None else self._named(kind.of), kind.combiner, arguments

    def _copied(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._copied(one) for one in value]
        return self._named(value) if isinstance(value, Kind) else value

    @staticmethod
    def _named(kind: Kind) -> Datatype:
        """The handle that MPI itself has for what is predefined, a new one otherwise."""
        return Datatype._of(kind) if kind.constant is None else CONSTANTS[kind.constant]

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._it is None or self._it.constant is not None:
            return super().__reduce__()
        of, constructor, arguments = self.decode()
        return _remade, (type(self), of, constructor, arguments)

    # -- as NumPy and struct have it ---------------------------------------------------------------------

    def tocode(self) -> str:
        code = None if self._it is None else self._it.code
        if code is None:
            raise ValueError(f"{self.Get_name() or 'a derived datatype'} has no code of one character")
        return str(code)

    @classmethod
    def fromcode(cls, code: str) -> Datatype:
        try:
            return CODES[code]
        except KeyError:
            raise ValueError(f"{code!r} is the code of no datatype") from None

    @property
    def typechar(self) -> str:
        kind = self._it
        return "V" if kind is None or kind.code is None else str(kind.code)

    @property
    def typestr(self) -> str:
        if self._it is None:
            return "V0"
        dtype = self._it.dtype
        return (
            f"V{self._it.extent}" if dtype is None else "U1" if dtype.kind == "U" else f"{dtype.kind}{dtype.itemsize}"
        )


def _strided(one: Layout, count: int, blocklength: int, stride: int) -> Layout:
    return layout.repeated(one, np.full(count, blocklength), np.arange(count) * stride)


def _dealt(size: int, how: int, block: int, ranks: int, rank: int) -> Numbers:
    """The indices of one dimension that are this rank's."""
    if how == constants.DISTRIBUTE_NONE or ranks == 1:
        return np.arange(size)
    if block == constants.DISTRIBUTE_DFLT_DARG:
        block = -(-size // ranks) if how == constants.DISTRIBUTE_BLOCK else 1
    index = np.arange(size)
    mine: Numbers = index[index // block % ranks == rank]
    return mine


def _counts(*counts: int) -> None:
    if min(counts) < 0:
        raise errors.Exception(constants.ERR_COUNT, f"there cannot be {min(counts)} of anything")


def _alike(blocklengths: Sequence[int], displacements: Sequence[int]) -> tuple[list[int], list[int]]:
    lengths, at = list(blocklengths), list(displacements)
    if len(lengths) != len(at):
        raise ValueError(f"there are {len(lengths)} blocklengths, but {len(at)} displacements")
    if lengths:
        _counts(*lengths)
    return lengths, at


def _remade(cls: type[Datatype], of: Datatype, constructor: str, arguments: dict[str, Any]) -> Datatype:
    verb = "Get" if constructor == "VALUE_INDEX" else "Create"
    made: Datatype = getattr(of, f"{verb}_{constructor.lower()}")(**arguments)
    return cls(made)
