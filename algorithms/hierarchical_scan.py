"""Prefixes over groups of ranks. They go by rank order, so what counts as a group is a *run* of ranks that follow each
other; its last rank, its *tail*, speaks for it."""

from __future__ import annotations

from fractions import Fraction

import collx.algorithms.scan  # noqa: F401  (fills the register)
from collx.algorithms.hierarchical import far_rounds, group_of, largest, near
from collx.schedule import REGISTER, Copy, Groups, Recv, Schedule, Send, over_groups

SOURCE = "Sanders, Träff: Parallel prefix (scan) algorithms for MPI (EuroPVM/MPI 2006), with a scan across groups"
_SCAN = REGISTER["scan", "doubling"]


def _rounds(runs: Groups) -> int:
    most = largest(runs)
    told = 1 + near("broadcast", most - 1).rounds(most - 1) if most > 1 < len(runs) else 0
    return _SCAN.rounds(most) + far_rounds(runs) + told


def _volume(runs: Groups) -> Fraction:
    """Of a tail, which tells the next run, or of the first of a run, which tells the others there."""
    if len(runs) == 1:
        return _SCAN.volume(largest(runs))
    others = [len(run) - 1 for run in runs if len(run) > 1]
    told = max((near("broadcast", count).volume(count) for count in others), default=Fraction(0))
    return max(_SCAN.volume(largest(runs)) + told, Fraction(far_rounds(runs) + bool(others)))


@over_groups(
    "scan",
    "hierarchical",
    rounds=_rounds,
    volume=_volume,
    wins="several hosts: two messages from each to the next in a round, not one of every rank",
    source=SOURCE,
    ordered=True,
)
def scan(rank: int, runs: Groups) -> Schedule:
    """Scan within each run, and across by the tails; each tells the next run, to be put in front of what that has."""
    run, tails = group_of(rank, runs), [run[-1] for run in runs]
    at = runs.index(run)
    schedule = _SCAN.build(run.index(rank), len(run)).embedded(run, [[0]], 1)
    if rank in tails:
        schedule = schedule.then(_SCAN.build(at, len(runs)).embedded(tails, [[0]], 1))
        following = runs[at + 1] if at + 1 < len(runs) else ()
        return schedule.round(Send(0, to=following[0])) if len(following) > 1 else schedule
    if at == 0:
        return schedule
    before, others = schedule.scratch(0), run[:-1]
    if rank == run[0]:
        schedule.round(Recv(before, source=tails[at - 1]))
    told = near("broadcast", len(others)).build(others.index(rank), len(others))
    return schedule.then(told.embedded(others, [[before]], 1)).round(Copy(before, 0, reduce="left"))


@over_groups(
    "exscan",
    "hierarchical",
    rounds=lambda runs: _rounds(runs) + (sum(map(len, runs)) > 1),
    volume=lambda runs: _volume(runs) + (sum(map(len, runs)) > 1),
    wins="several hosts: two messages from each to the next in a round, not one of every rank",
    source=SOURCE + "; shifted by one rank in the end",
    ordered=True,
)
def exscan(rank: int, runs: Groups) -> Schedule:
    """The scan; what each rank has then is the next one's."""
    last = runs[-1][-1]
    sends = [Send(0, to=rank + 1)] if rank < last else []
    recvs = [Recv(0, source=rank - 1)] if rank > 0 else []
    return scan(rank, runs).round(*sends, *recvs)
