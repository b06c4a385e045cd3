"""How communicators are made of others, compared and freed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from collx.compat.mpi4py import errors
from collx.compat.mpi4py.constants import (
    COMM_TYPE_HW_GUIDED,
    COMM_TYPE_HW_UNGUIDED,
    COMM_TYPE_RESOURCE_GUIDED,
    COMM_TYPE_SHARED,
    CONGRUENT,
    ERR_ARG,
    ERR_COMM,
    ERR_GROUP,
    ERR_RANK,
    IDENT,
    SIMILAR,
    UNDEFINED,
    UNEQUAL,
)
from collx.compat.mpi4py.context import Context, Part, number
from collx.compat.mpi4py.environment import WORLD
from collx.compat.mpi4py.errhandler import Errhandler
from collx.compat.mpi4py.failures import Failure
from collx.compat.mpi4py.group import GROUP_EMPTY, Group, Members
from collx.compat.mpi4py.operation import Operation
from collx.compat.mpi4py.request import Request
from collx.errors import CollxError

if TYPE_CHECKING:
    from collx.compat.mpi4py.info import Info

RESOURCE, SHARED_MEMORY = "mpi_hw_resource_type", "mpi_shared_memory"
CLASSES: dict[int | None, Any] = {}  # by the kind of topology, of their handles, which are put together of these


class Making(Part):
    """What all communicators have of that."""

    def Get_group(self) -> Group:
        return _group(self._context.members)

    group = property(Get_group)

    def Compare(self, comm: Any) -> int:
        """IDENT for the same one, CONGRUENT for the same ranks in the same order, SIMILAR in another, else UNEQUAL."""
        mine, other = self._context, comm._context
        if mine is other:
            return IDENT
        sides = (mine.members, mine.remote), (other.members, other.remote)
        if sides[0] == sides[1]:
            return CONGRUENT
        return SIMILAR if _sorted(*sides[0]) == _sorted(*sides[1]) else UNEQUAL

    def Dup(self, info: Info | None = None) -> Self:
        """Another one of the same ranks, which keeps what the keys of the attributes say. Collective."""
        old = self._context
        new = self._of(self._made(old.members, old.remote, old.topology))
        new._context.errhandler, new._context.info = old.errhandler, dict(old.info)
        if info:
            new.Set_info(info)
        self._copy_attributes(new)
        return new

    Clone = Dup

    def Dup_with_info(self, info: Info) -> Self:
        return self.Dup(info)

    def Idup(self, info: Info | None = None) -> tuple[Self, Request]:
        """As Dup, which is done at once. Collective."""
        return self.Dup(info), Request._of(Operation())

    def Idup_with_info(self, info: Info) -> tuple[Self, Request]:
        return self.Idup(info)

    def Create(self, group: Group) -> Any:
        """One of the ranks of `group`, COMM_NULL for others. Collective among all ranks."""
        if self._context.remote is not None:
            raise NotImplementedError("collx.compat.mpi4py has no MPI.Intercomm.Create")
        members, label = self._among(group), self._context.child()
        return named(self._made(members, label=label) if _me() in members else None)

    def Split(self, color: int = 0, key: int = 0) -> Any:
        """One of the ranks that give the same `color`, by `key` and then rank; COMM_NULL for UNDEFINED. Collective."""
        context, color, key = self._context, number(color), number(key)
        table = self._told(np.array((color, key), np.int64)).reshape(-1, 2).tolist()
        label = context.child()
        if color == UNDEFINED:
            return named(None)

        def alike(members: Sequence[int], first: int) -> list[int]:
            chosen = [place for place in range(len(members)) if table[first + place][0] == color]
            return [members[place] for place in sorted(chosen, key=lambda place: (table[first + place][1], place))]

        members = alike(context.members, context.here)
        if context.remote is None:
            return named(self._made(members, label=label))
        remote = alike(context.remote, context.away)
        return named(self._made(members, remote, label=label) if remote else None)

    def Split_type(self, split_type: int, key: int = 0, info: Info | None = None) -> Any:
        """The ranks of this one's host, for COMM_TYPE_SHARED. Collective.

        Guided types know one resource, mpi_shared_memory, which is the host; the unguided one parts hosts, where there
        are several. COMM_NULL otherwise.
        """
        hosts = self._ranks.hosts
        host = hosts.index(hosts[self._ranks.rank])
        guided = split_type in (COMM_TYPE_HW_GUIDED, COMM_TYPE_RESOURCE_GUIDED)
        known = guided and info is not None and bool(info) and info.Get(RESOURCE) == SHARED_MEMORY
        parts = split_type == COMM_TYPE_HW_UNGUIDED and len(set(hosts)) > 1
        if parts and info is not None and info:
            info.Set(RESOURCE, SHARED_MEMORY)
        if split_type not in (COMM_TYPE_SHARED, COMM_TYPE_HW_UNGUIDED, UNDEFINED) and not guided:
            raise errors.Exception(ERR_ARG, f"{split_type} is no way to split a communicator")
        return self.Split(host if split_type == COMM_TYPE_SHARED or known or parts else UNDEFINED, key)

    def Free(self) -> None:
        """Leave it: now, or with the last request for what was started. Collective."""
        context = self._dropped()
        if not context.busy:
            context.close()

    def Disconnect(self) -> None:
        """Leave it when what was started is done. Collective."""
        self._dropped().close()

    def _dropped(self) -> Context:
        """What this was a handle of, which it is no more."""
        context = self._context
        if context.constant is not None:
            raise errors.Exception(ERR_COMM, f"{context.constant} cannot be freed")
        self._drop_attributes()
        self._it = None
        return context

    def _made(
        self,
        members: Sequence[int],
        remote: Sequence[int] | None = None,
        topology: Any = None,
        label: str | None = None,
    ) -> Context:
        """The context of a new communicator of these ranks of COMM_WORLD, who all call this."""
        label = self._context.child() if label is None else label
        sides = [members] if remote is None else sorted((members, remote), key=min)
        everybody = [rank for side in sides for rank in side]
        assert WORLD.ranks is not None
        try:
            ranks = WORLD.ranks.subgroup(everybody, f"{label}/{everybody[0]}")
        except CollxError as error:
            self._fail(Failure(error), error)
        return Context(ranks, "", members, remote, label, topology)

    def _with_topology(self, topology: Any, places: Sequence[int] | None = None) -> Any:
        """One of the ranks at these places, by default those that the topology has places for, with a topology."""
        members, label = self._context.members, self._context.child()
        if places is None:
            places = range(getattr(topology, "size", len(members)))
        chosen = [members[place] for place in places]
        made = self._made(chosen, topology=topology, label=label) if _me() in chosen else None
        return CLASSES[topology.kind]._of(made)

    def _told(self, row: Any) -> Any:
        """The rows of all ranks, in the order of collx's communicator."""
        try:
            return self._ranks.all_gather(row)
        except CollxError as error:
            self._fail(Failure(error), error)

    def _among(self, group: Group) -> tuple[int, ...]:
        """The members of `group`, all of them of this communicator."""
        members = group._members().ranks
        if not set(members) <= set(self._context.members):
            raise errors.Exception(ERR_GROUP, "it has ranks that the communicator has not")
        return members


class MakingOfGroups(Part):
    """What those of one group have besides."""

    def Create_group(self, group: Group, tag: int = 0) -> Any:
        """One of the ranks of `group`, which alone call this; `tag` tells calls apart that go on at once."""
        members = self._among(group)
        if _me() not in members:
            return named(None)
        label = self._context.child_of(f"group.{tag}.{members}")
        return named(self._made(members, label=label))

    @classmethod
    def Create_from_group(
        cls,
        group: Group,
        stringtag: str = "org.mpi4py",
        info: Info | None = None,
        errhandler: Errhandler | None = None,
    ) -> Any:
        """As Create_group, without another communicator."""
        made = CLASSES[None]._of(WORLD).Create_group(group, stringtag)
        if errhandler is not None and made:
            made.Set_errhandler(errhandler)
        return made

    def Create_intercomm(self, local_leader: int, peer_comm: Any, remote_leader: int, tag: int = 0) -> Any:
        """One that joins this group to that of `remote_leader` in `peer_comm`, which matters to the leaders only.
        Collective among both groups. `local_leader` is the rank here of this group's."""
        context, told = self._context, None
        if self.Get_rank() == local_leader:
            told = self._told_by(peer_comm, remote_leader, tag)
        remote = tuple(self.bcast(told, local_leader))
        if set(remote) & set(context.members):
            raise errors.Exception(ERR_COMM, "the groups have ranks in common")
        first, second = sorted((context.members, remote))
        label = WORLD.child_of(f"inter.{first}.{second}.{tag}")
        return named(self._made(context.members, remote, label=label))

    def _told_by(self, peer_comm: Any, leader: int, tag: int) -> tuple[int, ...]:
        """The members of the group of this rank of `peer_comm`, which asks for ours: apart from the messages there."""
        peers = peer_comm._context.members if peer_comm._context.remote is None else peer_comm._context.remote
        if not 0 <= leader < len(peers):
            raise errors.Exception(ERR_RANK, f"{leader} is no rank in a communicator of {len(peers)}")
        leaders = sorted((_me(), peers[leader]))
        if leaders[0] == leaders[1]:
            return self._context.members
        pair = named(self._made(leaders, label=WORLD.child_of(f"leaders.{leaders}.{tag}")))
        told: tuple[int, ...] = pair.allgather(self._context.members)[1 - pair.rank]
        pair.Free()
        return told


class MakingOfTwo(Part):
    """What those that join two groups have besides."""

    @classmethod
    def Create_from_groups(
        cls,
        local_group: Group,
        local_leader: int,
        remote_group: Group,
        remote_leader: int,
        stringtag: str = "org.mpi4py",
        info: Info | None = None,
        errhandler: Errhandler | None = None,
    ) -> Any:
        """One that joins the two groups, whose ranks all call this, each its own group first."""
        world = CLASSES[None]._of(WORLD)
        local, remote = world._among(local_group), world._among(remote_group)
        first, second = sorted((local, remote))
        label = WORLD.child_of(f"inter.{first}.{second}.{stringtag}")
        made = named(world._made(local, remote, label=label))
        if errhandler is not None:
            made.Set_errhandler(errhandler)
        return made

    def _remote(self) -> tuple[int, ...]:
        remote = self._context.remote
        assert remote is not None
        return remote

    def Get_remote_group(self) -> Group:
        return _group(self._remote())

    def Get_remote_size(self) -> int:
        return len(self._remote())

    remote_group, remote_size = property(Get_remote_group), property(Get_remote_size)

    def Merge(self, high: bool = False) -> Any:
        """One of both groups as one, first that which is not `high`. Collective."""
        context, remote = self._context, self._remote()
        highs = self._told(np.array([high], np.int64)).tolist()
        mine, theirs = (bool(high), min(context.members)), (bool(highs[context.away]), min(remote))
        members = context.members + remote if mine < theirs else remote + context.members
        return named(self._made(members))


def named(context: Context | None) -> Any:
    """The handle of a new communicator."""
    if context is None:
        return CLASSES[None]._of(None)
    if context.remote is not None:
        return CLASSES[UNDEFINED]._of(context)
    return CLASSES[None if context.topology is None else context.topology.kind]._of(context)


def _me() -> int:
    assert WORLD.ranks is not None
    return WORLD.ranks.rank


def _group(members: Sequence[int]) -> Group:
    return Group._of(Members(members, _me()) if members else GROUP_EMPTY._it)


def _sorted(members: Sequence[int], remote: Sequence[int] | None) -> tuple[list[int], list[int]]:
    return sorted(members), sorted(remote or ())
