"""Chooses the algorithm of a call on GPUs, and plans it.

As on hosts every rank must choose alike, so only what all ranks know counts (`collx.selector`, which also says what a
call names and what COLLX_ALGO allows). Tables of `collx tune` do not: they are of arrays in the host's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from collx import selector
from collx.collectives import COLLECTIVES
from collx.cuda import nccl
from collx.cuda.lowering import lower
from collx.cuda.plan import DevicePlan
from collx.guide import UNGUIDED, Guide
from collx.request import Request
from collx.schedule import REGISTER, Algorithm, Groups
from collx.selector import KIB, MIB, Rule
from collx.wishes import FOREIGN, MPI, NCCL, Wish, may_choose

SHARED_GPU = "ranks share a GPU, and NCCL wants one for each"

# The first rule that fits decides, and of its algorithms the one with the fewest steps, the first of those: every step
# is a barrier. Where one rank works for all, all_reduces come out as the same fold. Where each has a GPU, reading
# everything is the shortest way for little data; the sizes are vLLM's (csrc/custom_all_reduce.cuh, REDUCE_CASE), where
# two ranks always do so, as two_shot takes a barrier more there. In place it is direct that takes one more, as ranks
# would overwrite what others still read. No size is measured here yet.
RULES = (
    Rule("all_reduce", 4, 512 * KIB, ("direct", "two_shot")),
    Rule("all_reduce", 8, 256 * KIB, ("direct", "two_shot")),
    Rule("all_reduce", math.inf, math.inf, ("two_shot", "direct")),
    *(Rule(prefix, math.inf, MIB, ("direct", "chain", "doubling")) for prefix in ("scan", "exscan")),
    *(Rule(prefix, math.inf, math.inf, ("chain", "doubling")) for prefix in ("scan", "exscan")),
    Rule("barrier", math.inf, math.inf, ("dissemination",)),
    *(
        Rule(collective, math.inf, math.inf, ("direct",))
        for collective in COLLECTIVES
        if collective not in ("all_reduce", "scan", "exscan", "barrier")
    ),
)


class NoRoom(ValueError):
    """What could serve needs more workspace than ranks have; where input and output are not the same memory, or fewer
    bytes at once, it may do."""


class Ranks(NamedTuple):
    """What all ranks know of each other. `workers` has by rank the one that does its folds, `room` is how many bytes of
    workspace each has; `hosts` are groups of ranks that sit near each other. `no_nccl`: why it cannot be used."""

    workers: tuple[int, ...]
    room: float = math.inf
    hosts: Groups = ()
    no_nccl: str | None = SHARED_GPU


class Chosen(NamedTuple):
    """An algorithm by its name, its plan (None: NCCL's own), and by what it was chosen: "explicit", "COLLX_ALGO" or
    "rule"."""

    name: str
    plan: DevicePlan | None
    by: str


class Candidate(NamedTuple):
    """One algorithm for one call: its plan, if it is one of ours that can serve, or why it cannot."""

    name: str
    plan: DevicePlan | None
    objection: str | None


def choose(
    request: Request,
    ranks: Ranks,
    guide: Guide = UNGUIDED,
    inplace: Sequence[bool] = (),
    given: Sequence[Sequence[int]] = (),
) -> Chosen:
    """The algorithm and the plan for `request`; `inplace` and `given` are those of all ranks, as `lower` takes them.

    What counts, the first first: the algorithm that the call names, COLLX_ALGO, the rules above. NCCL is never chosen
    unasked, as nobody has measured where it wins. Raises ValueError where the call or COLLX_ALGO names none that can
    serve, and says why; NoRoom where that is for want of workspace.
    """
    contest = _Contest(request, ranks, inplace, given)
    if request.algorithm is not None:
        return contest.asked_for()
    wish = _wish(request, guide)
    for names in contest.preferred(wish):
        wanted = [contest.candidate(name) for name in names if wish is None or wish.allows(name)]
        able = [candidate for candidate in wanted if candidate.objection is None]
        if able:
            best = min(able, key=lambda candidate: len(candidate.plan.steps) if candidate.plan else 0)
            return Chosen(best.name, best.plan, "rule" if wish is None or wish.without else "COLLX_ALGO")
    raise contest.nothing(wish)


def named(request: Request, ranks: Ranks, guide: Guide = UNGUIDED) -> str:
    """The algorithm that the call names, as ranks compare it: a user's own with a hash of its schedules. Empty where it
    names none. Raises what `choose` does, but NoRoom: what the call alone tells, before others hear of it."""
    contest = _Contest(request, ranks)
    if request.algorithm is not None:
        algorithm = contest.named()
        return NCCL if algorithm is None else algorithm.name
    wish = _wish(request, guide)
    if wish is not None:
        names = (*may_choose(request.collective), *[NCCL] * (not wish.without))  # which nobody takes unasked
        if all(contest.objection(name) for name in names if wish.allows(name)):
            raise contest.nothing(wish)
    return ""


def candidates(request: Request, ranks: Ranks) -> list[Candidate]:
    """Every algorithm that may be chosen unasked, and NCCL, for a call that all ranks make alike."""
    contest = _Contest(request, ranks)
    return [contest.candidate(name) for name in (*may_choose(request.collective), NCCL)]


class _Contest:
    """What may serve one call."""

    def __init__(
        self, request: Request, ranks: Ranks, inplace: Sequence[bool] = (), given: Sequence[Sequence[int]] = ()
    ) -> None:
        self._request, self._ranks, self._size = request, ranks, len(ranks.workers)
        self._inplace, self._given = inplace, given
        self._found: dict[str, Candidate] = {}
        self._short_of_room = False

    def preferred(self, wish: Wish | None) -> Iterator[tuple[str, ...]]:
        """What may be chosen unasked, best first; of several at once, the one with the fewest steps."""
        collective = self._request.collective
        nbytes = self._request.nbytes if self._request.agreed else math.inf
        yield next(rule for rule in RULES if rule.fits(collective, self._size, nbytes)).algorithms
        shipped = may_choose(collective)
        over = {name for name in shipped if REGISTER[collective, name].over}
        yield from ((name,) for name in (wish.names if wish else ()))
        yield from ((name,) for name in sorted(shipped, key=over.__contains__))

    def objection(self, name: str) -> str | None:
        """Why an algorithm that comes with collx, or a foreign one, cannot serve the call, but for its workspace."""
        if name == MPI:
            return "MPI is given no memory of GPUs"
        if name == NCCL:
            return self._ranks.no_nccl or nccl.objection(self._request)
        return selector.objection(name, self._request, self._size, math.inf, hosts=self._ranks.hosts)

    def candidate(self, name: str) -> Candidate:
        if name not in self._found:
            why = self.objection(name)
            if why is not None or name in FOREIGN:
                self._found[name] = Candidate(name, None, why)
            else:
                self._found[name] = self._planned(selector.placed(name, self._request, self._ranks.hosts))
        return self._found[name]

    def named(self) -> Algorithm | None:
        """What the call names; None is NCCL. Raises ValueError where that cannot serve it."""
        asked = self._request.algorithm
        if not (isinstance(asked, str) and asked in FOREIGN):
            return selector.choose(self._request, self._size, math.inf, hosts=self._ranks.hosts).algorithm
        if why := self.objection(asked):
            raise self._refused(asked, why)
        return None

    def asked_for(self) -> Chosen:
        algorithm = self.named()
        found = self.candidate(NCCL) if algorithm is None else self._planned(algorithm)
        if found.objection is not None:
            raise NoRoom(str(self._refused(found.name, found.objection)))
        return Chosen(found.name, found.plan, "explicit")

    def nothing(self, wish: Wish | None) -> ValueError:
        """What to raise where none can serve of those that may be chosen."""
        collective = self._request.collective
        names = [name for name in (*may_choose(collective), *FOREIGN) if wish is None or wish.allows(name)]
        reasons = [
            (name, self._found[name].objection if name in self._found else self.objection(name)) for name in names
        ]
        text = f"no algorithm of {collective} serves this call on GPUs"
        if wish is not None:
            text = f"COLLX_ALGO leaves {collective} nothing that serves this call on GPUs, {wish}"
        text = f"{text} ({'; '.join(f'{name}: {why}' for name, why in reasons)}){'; change it' * (wish is not None)}"
        return NoRoom(text) if self._short_of_room else ValueError(text)

    def _refused(self, name: str, why: str) -> ValueError:
        return ValueError(f"{self._request.collective} cannot use {name!r} on GPUs here: {why}; leave algorithm= out")

    def _planned(self, algorithm: Algorithm) -> Candidate:
        name, room = algorithm.name.partition("@")[0], self._ranks.room
        plan = lower(self._request, algorithm, self._size, self._ranks.workers, self._inplace, self._given)
        if plan.workspace <= room:
            return Candidate(name, plan, None)
        self._short_of_room = True
        return Candidate(name, None, f"it needs {plan.workspace} bytes of workspace, and ranks have {room}")


def _wish(request: Request, guide: Guide) -> Wish | None:
    return None if request.called else guide.wish(request.collective, elsewhere=MPI)
