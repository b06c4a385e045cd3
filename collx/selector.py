"""Chooses the algorithm of a call. Every rank must choose alike, so only what all ranks know counts: the call's
arguments, the size of the communicator and the slots that follow from it, and what rank 0 has told all; never the
clock, the environment or a file of one rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from collx.collectives import COLLECTIVES
from collx.guide import UNGUIDED, Guide
from collx.plan import GRAIN
from collx.plugins import algorithm_named
from collx.request import Request
from collx.schedule import REGISTER, Algorithm, Builder, Groups, along, largest_message
from collx.semantics import refusal
from collx.types import nearest
from collx.wishes import MPI, NCCL, Wish, may_choose

KIB, MIB = 1 << 10, 1 << 20
NO_GPU = "NCCL is for arrays on GPUs"
NO_MPI = "no MPI joins the ranks (COLLX_TRANSPORT=mpi, under mpirun)"
SEGMENT = 64 * KIB  # bytes that one message segment has at most: a few of them stay in cache


class Rule(NamedTuple):
    """Up to `size` ranks, or `powers` of two up to that, and `nbytes` bytes of buffer: these algorithms, the first that
    can serve."""

    collective: str
    size: float
    nbytes: float
    algorithms: tuple[str, ...]
    powers: bool = False

    def fits(self, collective: str, size: int, nbytes: float) -> bool:
        common = self.collective == collective and size <= self.size and nbytes <= self.nbytes
        return common and not (self.powers and size & (size - 1))


# Read from above; the first rule that fits a call decides. Up to 16 ranks share memory and caches well enough for
# everybody to read everybody; beyond, messages count, and then bytes. docs/tuning.md has the figures.
DEFAULTS = (
    Rule("all_reduce", 2, 512 * KIB, ("direct",)),
    Rule("all_reduce", 4, 32 * KIB, ("direct",)),
    Rule("all_reduce", 16, 16 * KIB, ("direct",)),
    Rule("all_reduce", 16, math.inf, ("two_shot", "recursive_doubling")),
    Rule("all_reduce", math.inf, 16 * KIB, ("recursive_doubling",)),
    Rule("all_reduce", math.inf, 4 * MIB, ("pat", "recursive_doubling")),
    Rule("all_reduce", math.inf, math.inf, ("ring", "recursive_doubling")),
    Rule("reduce_scatter", 16, math.inf, ("direct",)),
    Rule("reduce_scatter", math.inf, 4 * MIB, ("pat", "direct")),
    Rule("reduce_scatter", math.inf, math.inf, ("ring", "direct")),
    Rule("all_gather", 16, math.inf, ("direct",)),
    Rule("all_gather", math.inf, 4 * MIB, ("pat", "direct")),
    Rule("all_gather", math.inf, math.inf, ("ring",)),
    Rule("all_to_all", 16, math.inf, ("direct",)),
    Rule("all_to_all", math.inf, 64 * KIB, ("bruck", "pairwise")),
    Rule("all_to_all", math.inf, math.inf, ("pairwise",)),
    Rule("broadcast", 16, math.inf, ("direct",)),
    Rule("broadcast", math.inf, 16 * KIB, ("tree",)),
    Rule("broadcast", math.inf, math.inf, ("scatter_gather", "tree")),
    Rule("reduce", 16, math.inf, ("direct",)),
    Rule("reduce", math.inf, 16 * KIB, ("tree", "direct")),
    Rule("reduce", math.inf, math.inf, ("double_tree", "tree", "direct")),
    Rule("gather", 16, math.inf, ("direct",)),
    Rule("gather", math.inf, math.inf, ("tree", "direct")),
    Rule("scatter", 16, math.inf, ("direct",)),
    Rule("scatter", math.inf, math.inf, ("tree", "direct")),
    Rule("scan", math.inf, 16 * KIB, ("doubling",)),
    Rule("scan", math.inf, math.inf, ("chain", "doubling")),
    Rule("exscan", math.inf, 16 * KIB, ("doubling",)),
    Rule("exscan", math.inf, math.inf, ("chain", "doubling")),
    Rule("barrier", math.inf, math.inf, ("dissemination",)),
)

# Where ranks are on several hosts. A message costs a rank there some us whatever it holds, so few messages count, and
# then that the long ones stay inside a host. Where none has several ranks, what goes over hosts gives way to the next.
BETWEEN_HOSTS = (
    Rule("all_reduce", 2, 32 * KIB, ("direct",)),
    Rule("all_reduce", 2, math.inf, ("two_shot",)),
    Rule("all_reduce", math.inf, 16 * KIB, ("leaders", "recursive_doubling")),
    Rule("all_reduce", math.inf, 4 * MIB, ("leaders", "halving_doubling", "recursive_doubling"), powers=True),
    Rule("all_reduce", math.inf, math.inf, ("hierarchical", "halving_doubling", "recursive_doubling"), powers=True),
    Rule("all_reduce", math.inf, 4 * MIB, ("leaders", "pat", "recursive_doubling")),
    Rule("all_reduce", math.inf, math.inf, ("hierarchical", "ring", "recursive_doubling")),
    Rule("reduce_scatter", 2, math.inf, ("direct",)),
    Rule("reduce_scatter", math.inf, 64 * KIB, ("leaders", "halving", "direct"), powers=True),
    Rule("reduce_scatter", math.inf, math.inf, ("hierarchical", "halving", "direct"), powers=True),
    Rule("reduce_scatter", math.inf, 128 * KIB, ("leaders", "pat", "direct")),
    Rule("reduce_scatter", math.inf, 4 * MIB, ("hierarchical", "pat", "direct")),
    Rule("reduce_scatter", math.inf, math.inf, ("hierarchical", "ring", "direct")),
    Rule("all_gather", 2, math.inf, ("direct",)),
    Rule("all_gather", 4, math.inf, ("doubling",), powers=True),
    Rule("all_gather", math.inf, 128 * KIB, ("leaders", "doubling"), powers=True),
    Rule("all_gather", math.inf, math.inf, ("hierarchical", "doubling"), powers=True),
    Rule("all_gather", math.inf, 128 * KIB, ("leaders", "pat", "direct")),
    Rule("all_gather", math.inf, 4 * MIB, ("hierarchical", "pat", "direct")),
    Rule("all_gather", math.inf, math.inf, ("hierarchical", "ring")),
    Rule("broadcast", 2, math.inf, ("direct",)),
    Rule("broadcast", math.inf, math.inf, ("leaders", "tree")),
    Rule("reduce", 2, math.inf, ("direct",)),
    Rule("reduce", math.inf, math.inf, ("leaders", "tree", "direct")),
    Rule("all_to_all", 16, 256 * KIB, ("hierarchical", "direct")),
    Rule("gather", 16, 16 * KIB, ("tree", "direct")),
    Rule("gather", 16, 512 * KIB, ("hierarchical", "direct")),
    Rule("scatter", 16, 16 * KIB, ("tree", "direct")),
    Rule("scatter", 16, 512 * KIB, ("hierarchical", "direct")),
    *(
        Rule(prefix, size, nbytes, algorithms)
        for prefix in ("scan", "exscan")
        for size, nbytes, algorithms in (
            (16, math.inf, ("chain",)),
            (math.inf, 16 * KIB, ("hierarchical", "doubling")),
            (math.inf, math.inf, ("chain", "doubling")),
        )
    ),
    Rule("barrier", math.inf, math.inf, ("hierarchical", "dissemination")),
    *(rule for rule in DEFAULTS if rule.collective in ("all_to_all", "gather", "scatter")),
)


class Choice(NamedTuple):
    """An algorithm by its name, as it serves these ranks (None: MPI's own collective), and by what it was chosen:
    "explicit", "COLLX_ALGO", "measured" or "rule"."""

    name: str
    algorithm: Algorithm | None
    by: str


def choose(
    request: Request,
    size: int,
    room: float,
    far: bool = False,
    mpi: bool = False,
    guide: Guide = UNGUIDED,
    hosts: Groups = (),
) -> Choice:
    """The algorithm for `request` among `size` ranks, on several hosts if `far`, with messages of at most `room` bytes,
    on an engine that has MPI's own collectives if `mpi`. What counts, the first first: the algorithm that the call
    names, COLLX_ALGO, the tuning table, MPI's own (as ours in Python never win there), the rules above.

    `hosts` are the ranks by host, or by part of one: what comes back is over these groups, or has their ranks for
    neighbours. Raises ValueError where the call or COLLX_ALGO names none that can serve, and says which can.
    """
    if request.algorithm is not None:
        return _asked_for(request, size, room, mpi, hosts)
    wish = None if request.called else guide.wish(request.collective)  # split, say, is not what the user wishes for
    for name, by in _preferred(request, size, far, guide, wish, hosts):
        if wish is not None and not wish.allows(name):
            continue
        if objection(name, request, size, room, mpi, hosts) is None:
            return Choice(name, None if name == MPI else placed(name, request, hosts), by)
    if wish is None:
        raise ValueError(f"no algorithm of {request.collective} serves this call on {size} ranks")
    left = [name for name in (*may_choose(request.collective), MPI) if wish.allows(name)]
    why = "; ".join(f"{name}: {objection(name, request, size, room, mpi, hosts)}" for name in left)
    raise ValueError(f"COLLX_ALGO leaves {request.collective} nothing that serves this call, {wish} ({why}); change it")


def _preferred(
    request: Request, size: int, far: bool, guide: Guide, wish: Wish | None, hosts: Groups
) -> Iterator[tuple[str, str]]:
    """Every algorithm that may be chosen unasked, best first, and by what it is there."""
    collective = request.collective
    nbytes = request.nbytes if request.agreed else math.inf
    by = "rule" if wish is None or wish.without else "COLLX_ALGO"
    if guide.table is not None and request.agreed:
        measured = guide.table.chosen(collective, request.nbytes)
        if measured is not None:
            yield measured, "measured"
    yield MPI, by
    rules = BETWEEN_HOSTS if far else DEFAULTS
    ruled = next(rule.algorithms for rule in rules if rule.fits(collective, size, nbytes))
    groups = hosts if far else ()  # within a host memory is too near for groups to be worth it unmeasured
    over = [name for name in may_choose(collective) if by_another_name(collective, name, size, groups)]
    for name in ruled:
        if name not in over:
            yield name, by
    for name in (*(wish.names if wish else ()), *sorted(may_choose(collective), key=over.__contains__)):
        yield name, by


def objection(name: str, request: Request, size: int, room: float, mpi: bool = False, hosts: Groups = ()) -> str | None:
    """Why the algorithm that comes with collx under `name`, or MPI's own collective, cannot be chosen unasked for the
    call, if it cannot."""
    if name == MPI:
        return refusal(request) if mpi else NO_MPI
    if name == NCCL:
        return NO_GPU
    algorithm = placed(name, request, hosts)
    if _cuts_what_a_user_op_sees(algorithm, request, size):
        return "it cuts the array into blocks, and a user's op may look at all of it"
    return _objection(algorithm, request, size, room)


def by_another_name(collective: str, name: str, size: int, groups: Groups) -> bool:
    """Whether the algorithm is over groups where there are none, one only or a rank alone in each: then it does what
    another one does."""
    return not 1 < len(groups) < size and name != MPI and REGISTER[collective, name].over is not None


def placed(name: str, request: Request, hosts: Groups) -> Algorithm:
    """The algorithm over the hosts, where it sees groups; or else along them, where the ranks of one do not follow each
    other and nobody needs rank order: most algorithms do most with neighbours."""
    algorithm = REGISTER[request.collective, name]
    if algorithm.over:
        return algorithm.over(hosts) if hosts else algorithm
    order = tuple(rank for host in hosts for rank in host)
    given = request.ordered or COLLECTIVES[request.collective].result == "prefix"
    return algorithm if given or order == tuple(range(len(order))) else along(algorithm, order)


def _asked_for(request: Request, size: int, room: float, mpi: bool, hosts: Groups) -> Choice:
    asked = request.algorithm
    if isinstance(asked, str) and asked == MPI:
        why = refusal(request) if mpi else NO_MPI
        if why is not None:
            raise ValueError(f"{request.collective} cannot use 'mpi' here: {why}; leave algorithm= out")
        return Choice(MPI, None, "explicit")
    if isinstance(asked, str) and asked == NCCL:
        raise ValueError(f"{request.collective} cannot use 'nccl' here: {NO_GPU}; leave algorithm= out")
    shipped = may_choose(request.collective)
    if isinstance(asked, str) and asked in shipped:
        entry = placed(asked, request, hosts)
    else:
        found = asked if callable(asked) else algorithm_named(request.collective, _name(asked))
        if found is None:
            raise ValueError(f"{request.collective} has no algorithm {asked!r}: {nearest(str(asked), shipped)}")
        entry = _proved(found, request, size)
    why = _objection(entry, request, size, room)
    name = entry.name.partition("@")[0]
    if why is None:
        return Choice(name, entry, "explicit")
    able = [other for other in shipped if not _objection(placed(other, request, hosts), request, size, room)]
    raise ValueError(f"{request.collective} cannot use {name!r} here: {why}; {', '.join(able)} can")


def _name(asked: object) -> str:
    if isinstance(asked, str):
        return asked
    raise TypeError(f"algorithm must be a name or a function (rank, size) -> Schedule, not {type(asked).__name__}")


def _proved(source: Algorithm | Builder, request: Request, size: int) -> Algorithm:
    from collx.verify.own import own  # most programs prove nothing

    if isinstance(source, Algorithm) and not source.sizes(size):
        return source
    try:
        hash(source)
    except TypeError:
        raise TypeError(f"algorithm must be hashable, so that its proof is found again: {source!r} is not") from None
    return own(source, request.collective, size, request.root)


def _objection(algorithm: Algorithm, request: Request, size: int, room: float) -> str | None:
    """Why the algorithm cannot serve the call, if it cannot."""
    if not algorithm.sizes(size):
        return f"it does not take {size} ranks"
    if request.ordered and not algorithm.ordered:
        return "it does not keep rank order, which this non-commutative op needs"
    if algorithm.uniform and not request.uniform:
        return "it needs blocks of one size, and the counts differ"
    if room == math.inf:  # nothing is too large, and with thousands of ranks to build their schedules takes long
        return None
    blocks = largest_message(algorithm, size, request.root)
    if request.agreed and blocks * GRAIN > room:  # segments cannot be made any smaller
        bytes_each = request.largest_block(algorithm.build(0, size, request.root).blocks)
        if blocks * bytes_each > room:
            return f"its messages of {blocks} blocks do not fit into slots of {room} bytes"
    return None


def _cuts_what_a_user_op_sees(algorithm: Algorithm, request: Request, size: int) -> bool:
    # A user's op may look at the whole array (a matrix product does), so by default nothing cuts it into pieces.
    return request.custom and not COLLECTIVES[request.collective].per_rank and algorithm.build(0, size).blocks > 1
