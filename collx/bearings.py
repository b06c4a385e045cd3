"""What a communicator tells of itself: who its ranks are, where they sit, and what it would choose for a call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

from collx.checks import whole64
from collx.decisions import Decisions
from collx.engine import Engine
from collx.messages import Messages
from collx.planner import room_of
from collx.schedule import Groups, grouped
from collx.spots import Spot

if TYPE_CHECKING:
    from collx.cuda.explain import DeviceExplanation
    from collx.explain import Explanation
    from collx.topology import Topology


class Bearings(Messages):
    """The ranks on their hosts and in the parts of these, as all of them know it.

    `local_rank` is the number among the ranks of this one's host, `hosts` has the host's name of each rank, `links` by
    rank the transport that leads there. All are the same on all ranks but `local_rank` and `links`.
    """

    def __init__(
        self,
        engine: Engine,
        rank: int,
        local_rank: int,
        hosts: Sequence[str],
        timeout: float,
        world_ranks: Sequence[int] | None,
        decisions: Decisions,
    ) -> None:
        self._world_ranks = tuple(range(len(hosts)) if world_ranks is None else world_ranks)
        self._decisions = decisions
        self._spots = decisions.spots_of(self._world_ranks)
        self.local_rank = local_rank
        self.hosts = tuple(hosts)
        self.transports = engine.transports
        self.links = engine.links
        groups = grouped(hosts)
        if len(groups) == 1 and not engine.far and _apart(self._spots):
            groups = self.topology.parts
        groups = tuple(tuple(sorted(group, key=lambda rank: self._spots[rank][:3])) for group in groups)
        guide = decisions.guide(hosts, groups, engine.far or engine.mpi, self._world_ranks[0])
        super().__init__(engine, rank, len(hosts), timeout, groups, guide)

    def __repr__(self) -> str:
        place = f", at {self._engine.place}" * bool(self._engine.place)
        state = ", closed" * self.closed
        return f"<collx.Communicator rank {self.rank} of {self.size} over {'+'.join(self.transports)}{place}{state}>"

    @cached_property
    def topology(self) -> Topology:
        """Who sits where, and what joins them: by host, and by package, NUMA node, L3 cache and core as each rank's
        affinity held it when its job began (docs/topology.md). The same on all ranks. Local."""
        from collx.topology.running import running  # few ask for it

        return running(self.hosts, self._spots, self._decisions.make)

    @property
    def groups(self) -> Groups:
        """The ranks that sit near each other, which `hierarchical` and `leaders` go by: those of each host, or, on one
        host, of each of its packages, NUMA nodes or L3 caches, the outermost that leave no rank alone. In each they
        follow the parts further in, as rings do."""
        return self._groups

    @overload
    def explain(self, collective: str, nbytes: int, device: Literal["cpu"] = "cpu") -> Explanation: ...
    @overload
    def explain(self, collective: str, nbytes: int, device: Literal["cuda"]) -> DeviceExplanation: ...
    def explain(self, collective: str, nbytes: int, device: str = "cpu") -> Explanation | DeviceExplanation:
        """Which algorithm is chosen for a buffer of `nbytes`, and why, with what is known of all others; print it.

        For float32 and sum, root 0 and equal blocks; the buffer is the whole one, every rank's rows together, in whole
        elements. device: "cpu" or "cuda", for arrays on GPUs: then also how ranks reach each other's, and why so, which
        the first call on GPUs finds out. Local. Raises ValueError for an unknown collective or device or a negative
        size, TypeError for no integer.
        """
        nbytes = whole64(nbytes, "nbytes")
        if nbytes < 0:
            raise ValueError(f"nbytes is {nbytes}, but no buffer is that small")
        if device not in ("cpu", "cuda"):
            raise ValueError(f"unknown device {device!r}: there are cpu, cuda")
        return self._contest(collective, nbytes) if device == "cpu" else self._contest_on_gpus(collective, nbytes)

    def _contest(self, collective: str, nbytes: int) -> Explanation:
        from collx.explain import explain, typical  # most programs ask for no reasons, and what they rest on is much

        engine, room, guide = self._engine, room_of(self._engine.capacity), self._guide
        if self._trials is not None:
            guide = self._trials.guide(typical(collective, nbytes, self.size))
        limits = (self.size, room, engine.far, engine.mpi)
        return explain(collective, nbytes, *limits, guide, self._groups, self.topology)

    def _contest_on_gpus(self, collective: str, nbytes: int) -> DeviceExplanation:
        from collx.cuda.explain import explain

        way, ranks = (None, None) if self._gpus is None else (self._gpus.story(), self._gpus.ranks)
        host = None if way is None or ranks is not None else self._contest(collective, nbytes)
        return explain(collective, nbytes, self.size, way, ranks, self._guide, host)


def _apart(spots: Sequence[Spot]) -> bool:
    """Whether some ranks are bound to other parts of their host than the rest: most often none is bound."""
    return len({(spot.package, spot.numa, spot.l3) for spot in spots}) > 1
