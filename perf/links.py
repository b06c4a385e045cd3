"""What a job's links are like, from a probe of about a second, and which algorithms are then worth measuring."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np

from collx.cost import contenders
from collx.cost.fitting import Fitted, Observation, fit
from collx.explain import Explanation, seconds_text, typical
from collx.perf.collectives import MEASURED, Arrays, Call
from collx.perf.measure import longest
from collx.perf.race import turn
from collx.schedule import Groups
from collx.selector import by_another_name, placed
from collx.topology import Link, Topology
from collx.wishes import MPI

SECONDS = 1.0
FACTOR = 3.0  # times the best prediction; docs/choosing.md says why
# One round for all and many rounds tell what a message costs a processor from what it takes on its way; with a
# reduction and without, what that costs; and over hosts, the links inside them. Sizes at which each of these counts.
_PROBES = (
    ("all_reduce", "direct"),
    ("all_reduce", "ring"),
    ("all_gather", "direct"),
    ("all_gather", "ring"),
    ("all_reduce", "leaders"),
)
_SIZES = (1 << 10, 1 << 16, 1 << 20)
_ROUNDS, _CALLS = 5, 2000
_ALL = 16  # ranks up to which all take part; more take long to reckon with


def probe(comm: Any, seconds: float) -> Fitted | None:
    """What the links between the communicator's ranks are like, by the times that some collectives take on all of them;
    on rank 0, None on the others. Collective.

    Of many ranks only the first two of each part of the topology take part.
    """
    if comm.size <= _ALL:
        observed = _observed(comm, seconds)
        return fit(comm.topology, observed) if comm.rank == 0 else None
    few = [rank for rank, place in enumerate(comm.topology.places) if max(place) < 2]
    with comm.split(0 if comm.rank in few else 1) as part:
        found = probe(part, seconds) if comm.rank in few else None
        comm.barrier()
    return found


def _observed(comm: Any, seconds: float) -> list[Observation]:
    """Medians of the slowest rank's time."""
    calls, of = _calls(comm)
    start = perf_counter()
    for call in calls:
        call()  # the first one makes plans and touches pages: nothing to judge by
    looks = longest(comm, [turn(comm, call, 1) for call in calls])
    share = seconds / _ROUNDS / len(calls)
    counts = [max(1, min(_CALLS, int(share / look))) for look in looks]
    rounds: list[list[float]] = []
    for _ in range(_ROUNDS):
        mine = [turn(comm, call, count, look) for call, count, look in zip(calls, counts, looks, strict=True)]
        *figures, passed = longest(comm, [*mine, perf_counter() - start])
        rounds.append(figures)
        if passed >= seconds:
            break
    medians = map(statistics.median, zip(*rounds, strict=True))
    return [each._replace(seconds=taken) for each, taken in zip(of, medians, strict=True)]


def _calls(comm: Any) -> tuple[list[Call], list[Observation]]:
    """What is measured, and what it will tell."""
    calls, of = list[Call](), list[Observation]()
    arrays = Arrays(max(_SIZES) // 4 + comm.size)
    for (collective, name), size in product(_PROBES, _SIZES):
        whole = max(size // 4 // comm.size, 1) * comm.size
        request = typical(collective, 4 * whole, comm.size)
        contest = comm.explain(collective, request.nbytes).candidates
        another = by_another_name(collective, name, comm.size, comm.groups)
        if not another and any(entry.name == name and entry.objection is None for entry in contest):
            calls.append(arrays.call(comm, MEASURED[collective], whole, name))
            of.append(Observation(placed(name, request, comm.groups), request.nbytes, 0.0))
    return calls, of


def link_text(link: Link) -> str:
    """As "network 30 us, 1.1 GB/s": how long a message takes from call to call, and how fast its bytes follow."""
    return f"{link.name} {seconds_text(link.alpha + 2 * link.overhead)}, {1e-9 / link.beta:.3g} GB/s"


def worth_measuring(comm: Any, contest: Explanation, names: Sequence[str], fitted: Fitted | None) -> list[str]:
    """Those of `names` that rank 0, which has `fitted`, does not predict to be far from the best. Collective."""
    left = np.ones(len(names), np.uint8)
    if fitted is not None:
        there = comm.topology.with_links(fitted.links)
        seconds = predicted(contest.collective, contest.nbytes, names, there, comm.groups, fitted.gamma)
        left[:] = [name in within_reach(names, seconds, contest.chosen) for name in names]
    comm.broadcast(left)
    return [name for name, stays in zip(names, left.tolist(), strict=True) if stays]


def predicted(
    collective: str, nbytes: int, names: Sequence[str], topology: Topology, groups: Groups, gamma: float
) -> dict[str, float]:
    """Seconds by algorithm, of those that the cost model knows."""
    request = typical(collective, nbytes, topology.size)
    algorithms = {placed(name, request, groups): name for name in names if name != MPI}
    priced = contenders(collective, request.nbytes, topology, list(algorithms), gamma=gamma)
    return {algorithms[algorithm]: prediction.seconds for algorithm, prediction in priced}


def within_reach(names: Sequence[str], seconds: Mapping[str, float], chosen: str) -> list[str]:
    """Those that are predicted to take at most FACTOR times the best, what is chosen without measuring, and those of
    which nothing is predicted."""
    limit = FACTOR * min(seconds.values(), default=0.0)
    return [name for name in names if name == chosen or seconds.get(name, 0.0) <= limit]
