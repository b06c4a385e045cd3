"""Which rank sits where on a machine, and the topology that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from collx.topology.links import DEFAULT_LINKS, PCIE
from collx.topology.machine import Machine, Node, Pair
from collx.topology.model import MOST_RANKS, Level, Link, Topology

Path = tuple[int, ...]
LEVEL_OF = {"package": "packages", "numa": "numa", "l3": "l3", "core": "cores"}


class Placed(NamedTuple):
    """A topology, and the host and the part of the machine that each rank sits on."""

    topology: Topology
    hosts: tuple[int, ...]
    parts: tuple[Node, ...]


class Seats(NamedTuple):
    """The places of one host: a path each, the levels that the paths go through, and the parts that they are."""

    levels: Sequence[Level]
    places: Sequence[Path]
    parts: Sequence[Node]


def place(
    machine: Machine,
    ranks: int | None = None,
    *,
    hosts: int | Sequence[int] = 1,
    cpus: Sequence[frozenset[int] | None] | None = None,
    on: str = "core",
) -> Placed:
    """`ranks` ranks on hosts that are all like `machine`; by default as many as it has cores or GPUs.

    `hosts` is how many there are, each with as many consecutive ranks as the next, or the host of each rank. On a host,
    each rank in turn takes the core with the fewest ranks among those that it may run on, the first such in the
    machine's order: so unbound ranks fill packages, NUMA nodes and caches one after the other. `cpus` tells what each
    rank may run on where a launcher has bound it; None is all that the machine lets be used. With `on="gpu"` ranks take
    GPUs in the same way, in the order of their numbers.

    Raises ValueError where the machine has no such places, the ranks cannot be dealt out evenly, or a rank may run on
    no core of the machine.
    """
    seats = _gpus(machine) if on == "gpu" else _cores(machine)
    if not seats.places:
        raise ValueError(f"{machine.source}: there is no {on} that may be used")
    where = _hosts(machine, len(seats.places), ranks, hosts)
    taken: dict[int, Counter[int]] = {}
    arrived: Counter[int] = Counter()
    paths: list[Path] = []
    parts: list[Node] = []
    for rank, host in enumerate(where):
        count = taken.setdefault(host, Counter())
        if cpus is None:  # the same rule, without a look at every seat for every rank
            seat, arrived[host] = arrived[host] % len(seats.parts), arrived[host] + 1
        else:
            seat = _seat(rank, cpus[rank], seats, count, machine)
        paths.append((host, *seats.places[seat], count[seat]))
        parts.append(seats.parts[seat])
        count[seat] += 1
    levels = (Level("hosts", network(machine, on)), *seats.levels, Level("ranks", DEFAULT_LINKS["ranks"]))
    return Placed(without_idle_levels(levels, paths, machine.make), tuple(where), tuple(parts))


def _seat(rank: int, may: frozenset[int] | None, seats: Seats, count: Counter[int], machine: Machine) -> int:
    able = [seat for seat, part in enumerate(seats.parts) if may is None or part.cpus & may]
    if not able:
        raise ValueError(f"rank {rank} may run on none of the cores of {machine.source}")
    return min(able, key=lambda each: (count[each], each))


def without_idle_levels(levels: Sequence[Level], paths: Sequence[Path], make: str = "") -> Topology:
    """The topology of these paths with only the levels that part ranks, and numbers from 0 in each group."""
    numbers: dict[Path, dict[int, int]] = {}
    for path in paths:
        for depth, number in enumerate(path):
            within = numbers.setdefault(path[:depth], {})
            within.setdefault(number, len(within))
    parting = sorted({len(prefix) for prefix, within in numbers.items() if len(within) > 1})
    places = (tuple(numbers[path[:depth]][path[depth]] for depth in parting) for path in paths)
    return Topology(tuple(levels[depth] for depth in parting), tuple(places), make)


def network(machine: Machine, on: str = "core") -> Link:
    """The link between such hosts, at the speed of their NICs where that is known: of the fastest one, or with ranks on
    GPUs of all as fast as that, which then serve a GPU each."""
    link = DEFAULT_LINKS["hosts"]
    speeds = [float(nic.get("Gbit/s") or 0) for nic in machine.all("nic")]
    fastest = max(speeds, default=0)
    if not fastest:
        return link
    total = fastest * (speeds.count(fastest) if on == "gpu" else 1)
    return link._replace(beta=8 / (total * 1e9))


def _hosts(machine: Machine, seats: int, ranks: int | None, hosts: int | Sequence[int]) -> Sequence[int]:
    if not isinstance(hosts, int):
        return hosts
    ranks = seats * max(hosts, 1) if ranks is None else ranks
    if ranks > MOST_RANKS:
        raise ValueError(f"{ranks} ranks are more than {MOST_RANKS}")
    if ranks < 1 or hosts < 1:
        raise ValueError(f"{ranks} ranks on {hosts} hosts: give at least 1 of each")
    if ranks % hosts:
        raise ValueError(f"{ranks} ranks cannot be dealt out evenly to {hosts} hosts like {machine.source}")
    return [rank // (ranks // hosts) for rank in range(ranks)]


def _cores(machine: Machine) -> Seats:
    """Its usable cores in the machine's order. Where a core is in no part of some kind, it is together with the others
    of the part around it."""
    trails = [path for path in machine.root.walk() if path[-1].kind == "core" and path[-1].cpus]
    depth: dict[str, int] = {}
    for trail in trails:
        for at, part in enumerate(trail[1:]):
            depth[part.kind] = max(at, depth.get(part.kind, 0))
    kinds = sorted(depth, key=lambda kind: depth[kind])
    numbers: dict[int, int] = {}

    def number(trail: tuple[Node, ...], kind: str) -> int:
        around = [trail[0], *(part for part in trail[1:] if kinds.index(part.kind) <= kinds.index(kind))]
        return numbers.setdefault(id(around[-1]), len(numbers))

    places = [tuple(number(trail, kind) for kind in kinds) for trail in trails]
    levels = [Level(LEVEL_OF[kind], DEFAULT_LINKS[LEVEL_OF[kind]]) for kind in kinds]
    return Seats(levels, places, [trail[-1] for trail in trails])


def _gpus(machine: Machine) -> Seats:
    """Its GPUs. Where NVLink joins all of them it does not matter which package they hang on; else it may still join
    those of a package, of a NUMA node, or of an island that keeps to neither."""
    trails = [path for path in machine.root.walk() if path[-1].kind == "gpu"]
    trails.sort(key=lambda trail: int(trail[-1].get("number") or 0))
    gpus = [trail[-1] for trail in trails]
    nvlink = Level("gpus", DEFAULT_LINKS["gpus"])
    if _all_joined(gpus, machine.joined):
        return Seats([nvlink], [(seat,) for seat in range(len(gpus))], gpus)
    homes = {
        LEVEL_OF[kind]: [next((id(part) for part in trail if part.kind == kind), 0) for trail in trails]
        for kind in ("package", "numa")
    }
    ways = {name: of for name, of in (homes | {"islands": _islands(gpus, machine.joined)}).items() if len(set(of)) > 1}
    whole = (name for name, of in ways.items() if _each_joined(gpus, of, machine.joined))
    name = next(whole, None)
    inner = Level("gpus", PCIE) if name is None else nvlink
    name = name or next((kind for kind in homes if kind in ways), None)
    if name is None:
        return Seats([inner], [(seat,) for seat in range(len(gpus))], gpus)
    level = Level(name, PCIE._replace(name=name))
    return Seats([level, inner], [(home, seat) for seat, home in enumerate(ways[name])], gpus)


def _islands(gpus: Sequence[Node], joined: frozenset[Pair]) -> list[int]:
    """For each GPU, the first one that NVLink joins it with, itself where that is none before."""
    return [
        next(at for at, first in enumerate(gpus) if first is gpu or Pair(first.name, gpu.name) in joined)
        for gpu in gpus
    ]


def _each_joined(gpus: Sequence[Node], homes: Sequence[int], joined: frozenset[Pair]) -> bool:
    groups = ([gpu for gpu, home in zip(gpus, homes, strict=True) if home == each] for each in set(homes))
    return all(_all_joined(group, joined) for group in groups)


def _all_joined(gpus: Sequence[Node], joined: frozenset[Pair]) -> bool:
    return len(gpus) > 1 and all(Pair(a.name, b.name) in joined for a, b in permutations(gpus, 2))
