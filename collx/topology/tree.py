"""A machine, or a topology, as a tree of lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from collx.topology.machine import Node
from collx.topology.model import Topology

SHORT = {"pci", "number"}  # what no reader of a tree asks for
LONGEST = 100  # letters of one thing that is told
ALIKE = 8  # this many siblings of one shape are drawn; of more only the first and the last
Seated = Mapping[str, Sequence[int]]  # the ranks on a part, by its name


def lines(node: Node, seated: Seated | None = None) -> Iterator[str]:
    """The tree under `node`, one line a part; parts alike that follow each other share one."""
    yield label([node], seated or {})
    yield from _below(node, seated or {}, "")


def of_topology(topology: Topology) -> Node:
    """The tree that the levels are, for a topology of which no machine is known."""

    def inside(ranks: Sequence[int], depth: int) -> tuple[Node, ...]:
        level = topology.levels[depth].name.removesuffix("s") if topology.levels else "core"
        if depth >= len(topology.levels) - 1:
            return tuple(Node("gpu" if level == "gpu" else "core", f"rank {rank}") for rank in ranks)
        groups: dict[int, list[int]] = {}
        for rank in ranks:
            groups.setdefault(topology.places[rank][depth], []).append(rank)
        return tuple(Node(level, f"{level} {number}", inside(each, depth + 1)) for number, each in groups.items())

    return Node("job", f"{topology.size} ranks", inside(range(topology.size), 0))


def ranges(numbers: Iterable[int]) -> str:
    """ "0-3, 8" for 0, 1, 2, 3 and 8."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)


def label(parts: Sequence[Node], seated: Seated) -> str:
    """One line for parts alike: their name, what is known of them, and the ranks that sit there."""
    told = [_names(parts)] + [_said(key, value) for key, value in parts[0].attributes if key not in SHORT]
    told = [_safe(each) for each in told]
    ranks = [rank for part in parts for rank in seated.get(part.name, ())]
    if ranks:
        told.append(f"rank{'s' if len(ranks) > 1 else ''} {ranges(ranks)}")
    return " · ".join(told)


def shown(children: Sequence[Node]) -> Iterator[Node]:
    """The children to draw: of many alike that follow each other and have something in them, the first and the last."""
    for _, run in groupby(children, key=_shape):
        alike = list(run)
        if len(alike) <= ALIKE or not alike[0].children:
            yield from alike
        else:
            yield from (alike[0], Node("more", f"… {len(alike) - 2} more like it"), alike[-1])


def _below(node: Node, seated: Seated, indent: str) -> Iterator[str]:
    groups = list(_runs(node.children, seated))
    for at, run in enumerate(groups):
        last = at == len(groups) - 1
        yield f"{indent}{'└' if last else '├'}─ {label(run, seated)}"
        yield from _below(run[0], seated, indent + ("   " if last else "│  "))


def _runs(children: Sequence[Node], seated: Seated) -> Iterator[list[Node]]:
    """Parts that share a line: those alike that follow each other and have nothing in them."""
    for _, run in groupby(shown(children), key=lambda part: (_shape(part), bool(seated.get(part.name)))):
        alike = list(run)
        yield from ([part] for part in alike) if alike[0].children else [alike]


def _shape(node: Node) -> tuple[object, ...]:
    told = tuple(pair for pair in node.attributes if pair[0] not in SHORT)
    return node.kind, told, tuple(_shape(child) for child in node.children), node.kind == "nic" and node.name


def _safe(text: str) -> str:
    """Nothing of a file that could reach a terminal as a command, or fill it."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


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
