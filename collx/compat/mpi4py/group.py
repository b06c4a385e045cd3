"""Group: ordered sets of ranks, by their numbers in COMM_WORLD. Nothing here involves other ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import ERR_GROUP, ERR_RANK, IDENT, PROC_NULL, SIMILAR, UNDEFINED, UNEQUAL
from collx.compat.mpi4py.handle import Handle, Kept


class Members(Kept):
    """The ranks of COMM_WORLD in a group, and this process's, which need not be among them."""

    def __init__(self, ranks: Iterable[int], me: int) -> None:
        self.ranks = tuple(ranks)
        self.places = {rank: place for place, rank in enumerate(self.ranks)}
        self.me = me


class Group(Handle):
    null = "GROUP_NULL"
    invalid = ERR_GROUP

    def _members(self) -> Members:
        members: Members = self._kept()
        return members

    def _like(self, ranks: Iterable[int]) -> Self:
        """The group of these ranks of COMM_WORLD, as this process sees it."""
        ranks = tuple(ranks)
        return self._of(GROUP_EMPTY._it if not ranks else Members(ranks, self._members().me))

    def Get_size(self) -> int:
        return len(self._members().ranks)

    def Get_rank(self) -> int:
        """This process's rank in the group, UNDEFINED where it is no member."""
        members = self._members()
        return members.places.get(members.me, UNDEFINED)

    @property
    def size(self) -> int:
        return self.Get_size()

    @property
    def rank(self) -> int:
        return self.Get_rank()

    def Translate_ranks(self, ranks: Sequence[int] | None = None, group: Group | None = None) -> list[int]:
        """What `ranks` of this group, all by default, are in `group`, that of COMM_WORLD by default."""
        mine = self._members().ranks
        chosen = range(len(mine)) if ranks is None else ranks
        numbers = (PROC_NULL if rank == PROC_NULL else mine[self._rank(rank)] for rank in chosen)
        if group is None:
            return list(numbers)
        places = group._members().places
        return [PROC_NULL if number == PROC_NULL else places.get(number, UNDEFINED) for number in numbers]

    def Compare(self, group: Group) -> int:
        mine, other = self._members().ranks, group._members().ranks
        return IDENT if mine == other else SIMILAR if set(mine) == set(other) else UNEQUAL

    def Dup(self) -> Self:
        members = self._members()
        return self._of(members if not members.ranks else Members(members.ranks, members.me))

    @classmethod
    def Union(cls, group1: Group, group2: Group) -> Self:
        first, second = group1._members(), group2._members()
        ranks = dict.fromkeys(first.ranks + second.ranks)
        return cls._of((group1 if first.ranks else group2)._like(ranks)._it)

    @classmethod
    def Intersection(cls, group1: Group, group2: Group) -> Self:
        other = group2._members().places
        return cls._of(group1._like(rank for rank in group1._members().ranks if rank in other)._it)

    Intersect = Intersection

    @classmethod
    def Difference(cls, group1: Group, group2: Group) -> Self:
        other = group2._members().places
        return cls._of(group1._like(rank for rank in group1._members().ranks if rank not in other)._it)

    def Incl(self, ranks: Sequence[int]) -> Self:
        """These ranks of this group, in their order."""
        mine = self._members().ranks
        return self._like(mine[rank] for rank in self._different(ranks))

    def Excl(self, ranks: Sequence[int]) -> Self:
        """This group without these ranks of it."""
        out = set(self._different(ranks))
        return self._like(rank for place, rank in enumerate(self._members().ranks) if place not in out)

    def Range_incl(self, ranks: Sequence[tuple[int, int, int]]) -> Self:
        """As Incl, of ranges (first, last, stride), the last included."""
        return self.Incl(_spread(ranks))

    def Range_excl(self, ranks: Sequence[tuple[int, int, int]]) -> Self:
        return self.Excl(_spread(ranks))

    @classmethod
    def Create_from_session_pset(cls, session: Any, pset_name: str) -> Self:
        raise NotImplementedError("collx.compat.mpi4py has no MPI.Group.Create_from_session_pset")

    def Free(self) -> None:
        self._members()
        if self._constant is None:
            self._it = None

    def _rank(self, rank: int) -> int:
        if not 0 <= rank < self.Get_size():
            raise errors.Exception(ERR_RANK, f"{rank} is no rank in a group of {self.Get_size()}")
        return rank

    def _different(self, ranks: Sequence[int]) -> list[int]:
        checked = [self._rank(rank) for rank in ranks]
        if len(set(checked)) < len(checked):
            raise errors.Exception(ERR_RANK, f"{checked} has a rank twice")
        return checked


def _spread(ranges: Sequence[tuple[int, int, int]]) -> list[int]:
    return [rank for first, last, step in ranges for rank in range(first, last + (1 if step > 0 else -1), step)]


GROUP_NULL = Group._of(None, "GROUP_NULL")
GROUP_EMPTY = Group._of(Members((), 0), "GROUP_EMPTY")
