"""Who sits where, and what joins them: the picture of a job that costs are reckoned on. Pure data; where it comes from
is the other modules' business."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

MOST_RANKS = 1 << 20  # more are a slip of the finger


class Link(NamedTuple):
    """A class of link, after Culler et al., "LogP" (1993), with bytes as in Alexandrov et al., "LogGP" (1995).

    `alpha` is the seconds that a message takes to arrive whatever is in it, `beta` the seconds per byte in one
    direction, `overhead` the seconds of processor that a message costs its sender, and again its receiver. Where it is
    `shared`, all ranks of a group on one side have it together, as the ranks of a host their NIC; else every pair has
    its own.
    """

    name: str
    alpha: float
    beta: float
    overhead: float
    shared: bool = False


class Level(NamedTuple):
    """A way in which ranks are parted, `hosts` for one, and the link that joins the parts."""

    name: str
    link: Link


@dataclass(frozen=True)
class Topology:
    """The places of a job's ranks.

    `levels` go from the outermost inwards, and there are only those that part some ranks. `places[rank]` is the rank's
    path: for each level its number within the group of the level outside. No two ranks have one path: those that share
    a core, or whose cores nobody knows, are parted by a last level. `make` tells what the machine is made of, as far as
    it is known: two alike in all else may choose differently.

    Raises ValueError where a path has the wrong length, or two ranks have the same.
    """

    levels: tuple[Level, ...]
    places: tuple[tuple[int, ...], ...]
    make: str = ""

    def __post_init__(self) -> None:
        if not self.places:
            raise ValueError("a topology has at least one rank")
        for rank, path in enumerate(self.places):
            if len(path) != len(self.levels):
                raise ValueError(f"rank {rank}'s path {path} has not one number for each of {len(self.levels)} levels")
        if len(set(self.places)) < len(self.places):
            rank, path = next(found for found in enumerate(self.places) if self.places.count(found[1]) > 1)
            raise ValueError(f"rank {rank} shares its path {path} with another: a last level must part them")

    @classmethod
    def flat(cls, size: int, link: Link, level: str = "ranks") -> Topology:
        """`size` ranks, each pair of them joined by a link of the same class."""
        if size == 1:
            return cls((), ((),))
        return cls((Level(level, link),), tuple((rank,) for rank in range(size)))

    @property
    def size(self) -> int:
        return len(self.places)

    def between(self, a: int, b: int) -> Link:
        """The link that a message from rank `a` to rank `b` takes: that of the outermost level that parts them.

        Raises ValueError for a rank and itself.
        """
        for level, of_a, of_b in zip(self.levels, self.places[a], self.places[b], strict=True):
            if of_a != of_b:
                return level.link
        raise ValueError(f"no link joins rank {a} to itself")

    def groups(self, level: str) -> tuple[tuple[int, ...], ...]:
        """The ranks that `level` leaves together, for `hosts` those of each host; ranks and groups in rank order.

        Raises KeyError where there is no such level: it parts no ranks.
        """
        names = [each.name for each in self.levels]
        if level not in names:
            raise KeyError(f"no level {level!r} here: there are {', '.join(names) or 'none'}")
        depth = names.index(level) + 1
        found: dict[tuple[int, ...], list[int]] = {}
        for rank, path in enumerate(self.places):
            found.setdefault(path[:depth], []).append(rank)
        return tuple(tuple(ranks) for ranks in found.values())

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The ranks by host; on one host by the outermost of packages, NUMA nodes and L3 caches that leaves none alone,
        if one does. What algorithms over groups take."""
        names = [each.name for each in self.levels]
        if "hosts" in names:
            return self.groups("hosts")
        found = (self.groups(name) for name in names if name in ("packages", "numa", "l3"))
        return next((groups for groups in found if min(map(len, groups)) > 1), (tuple(range(self.size)),))

    def with_links(self, links: Mapping[str, Link]) -> Topology:
        """The same with other figures, by the names of the links that they are for; those not named stay."""
        levels = (level._replace(link=links.get(level.link.name, level.link)) for level in self.levels)
        return replace(self, levels=tuple(levels))

    def to_json(self) -> str:
        """All of it, so that one rank can tell the others what it goes by; `from_json` is the way back."""
        return json.dumps({"levels": self.levels, "places": self.places, "make": self.make}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Topology:
        """Raises ValueError where `text` is not of `to_json`."""
        try:
            told = json.loads(text)
            levels = tuple(Level(name, Link(*link)) for name, link in told["levels"])
            return cls(levels, tuple(tuple(map(int, path)) for path in told["places"]), str(told["make"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"no topology: {error}") from None

    def fingerprint(self) -> str:
        """16 hexadecimal digits of what decides choices: the levels, the kinds of links, who sits where, the make.

        Links count by their names, not by their figures: to measure them does not make another machine.
        """
        levels = [(level.name, level.link.name, level.link.shared) for level in self.levels]
        told = repr((levels, self.places, self.make))
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
