"""A machine, or a topology, as a tree of lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from collx.topology.machine import Node
from collx.topology.model import Topology

SHORT = {"pci", "number"}  # what no reader of a tree asks for
ALIKE = 8  # this many siblings of one shape are drawn; of more only the first and the last
Seated = Mapping[str, Sequence[int]]  # the ranks on a part, by its name


def lines(node: Node, seated: Seated | None = None) -> Iterator[str]:
    """The tree under `node`, one line a part; parts alike that follow each other share one."""
    yield label([node], seated or {})
    yield from _below(node, seated or {}, "")


def of_topology(topology: Topology) -> Node:
    """The tree that the levels are, for a topology of which no machine is known."""

    def inside(ranks: Sequence[int], depth: int) -> tuple[Node, ...]:
        if depth == len(topology.levels):
            return ()
        level = topology.levels[depth].name.removesuffix("s")
        groups: dict[int, list[int]] = {}
        for rank in ranks:
            groups.setdefault(topology.places[rank][depth], []).append(rank)
        if depth == len(topology.levels) - 1:
            return tuple(
                Node("core", f"{level} {each[0]}" if level == "rank" else f"{level} {number}")
                for number, each in groups.items()
            )
        return tuple(Node(level, f"{level} {number}", inside(each, depth + 1)) for number, each in groups.items())

    return Node("job", f"{topology.size} ranks", inside(range(topology.size), 0))


def ranges(numbers: Iterable[int]) -> str:
    """ "0-3, 8" for 0, 1, 2, 3 and 8."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)


def label(parts: Sequence[Node], seated: Seated) -> str:
    """One line for parts alike: their name, what is known of them, and the ranks that sit there."""
    first = parts[0]
    told = [_said(key, value) for key, value in first.attributes if key not in SHORT]
    ranks = [rank for part in parts for rank in seated.get(part.name, ())]
    if ranks:
        told.append(f"rank{'s' if len(ranks) > 1 else ''} {ranges(ranks)}")
    return " · ".join([_names(parts), *told])


def _below(node: Node, seated: Seated, indent: str) -> Iterator[str]:
    groups = list(_folded(node.children, seated))
    for at, (text, child) in enumerate(groups):
        last = at == len(groups) - 1
        yield f"{indent}{'└' if last else '├'}─ {text}"
        if child is not None:
            yield from _below(child, seated, indent + ("   " if last else "│  "))


def _folded(children: Sequence[Node], seated: Seated) -> Iterator[tuple[str, Node | None]]:
    """A line for each child, and the child where its own children are still to come."""
    for _, run in groupby(children, key=_shape):
        alike = list(run)
        if not alike[0].children:
            for _, same in groupby(alike, key=lambda part: bool(seated.get(part.name))):
                yield label(list(same), seated), None
        elif len(alike) <= ALIKE:
            yield from ((label([child], seated), child) for child in alike)
        else:
            yield label(alike[:1], seated), alike[0]
            yield f"… {len(alike) - 2} more like it", None
            yield label(alike[-1:], seated), alike[-1]


def _shape(node: Node) -> tuple[object, ...]:
    told = tuple(pair for pair in node.attributes if pair[0] not in SHORT)
    return node.kind, told, tuple(_shape(child) for child in node.children), node.kind == "nic" and node.name


def _names(parts: Sequence[Node]) -> str:
    if len(parts) == 1:
        return parts[0].name
    word = parts[0].name.rpartition(" ")[0]
    return f"{word}s {ranges(int(part.name.rpartition(' ')[2]) for part in parts)}"


def _said(key: str, value: str) -> str:
    match key:
        case "threads":
            return f"{value} threads each"
        case "Gbit/s":
            return f"{value} Gbit/s"
        case "not allowed":
            return "not allowed"
    return f"{key} {value}" if key.startswith("its") else value
