"""The topology of a job that runs, from what its ranks tell of where they may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from collx.spots import Spot
from collx.topology.links import DEFAULT_LINKS
from collx.topology.model import Level, Topology
from collx.topology.placing import without_idle_levels

LEVELS = ("hosts", "packages", "numa", "l3", "cores", "ranks")


def running(hosts: Sequence[str], spots: Sequence[Spot], make: str = "") -> Topology:
    """The topology of ranks on these hosts and spots, on processors of some `make`.

    What a rank is not bound to, it is in no part of: ranks that may run anywhere in a host are together there, and
    apart from those bound to a package. Ranks with one spot in common take its cores in turn.
    """
    numbers = {host: number for number, host in enumerate(dict.fromkeys(hosts))}
    come, taken = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    paths = []
    for host, spot in zip(hosts, spots, strict=True):
        common = (numbers[host], *spot)
        seat = (numbers[host], spot.package, spot.numa, spot.l3, spot.core + come[common] % spot.cores)
        paths.append((*seat, taken[seat]))
        come[common] += 1
        taken[seat] += 1
    return without_idle_levels([Level(name, DEFAULT_LINKS[name]) for name in LEVELS], paths, make)
