"""One machine as some source tells of it: a tree to draw, and to place ranks on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

KINDS = ("host", "package", "numa", "l3", "core", "gpu", "nic")
PLACES = ("core", "gpu")  # what ranks sit on
MOST_CORES, MOST_GPUS = 65536, 1024  # of one machine: a file that tells of more is not of any


@dataclass(frozen=True)
class Node:
    """A part of a machine and the parts in it. `kind` is one of KINDS; `name` is unique in the machine for a GPU. What
    else is known of it are `attributes`, in the order in which they are shown."""

    kind: str
    name: str
    children: tuple[Node, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    cpus: frozenset[int] = field(default=frozenset(), repr=False)  # of a core: its logical CPUs that may be used

    def walk(self) -> Iterator[tuple[Node, ...]]:
        """The path to each part, from this one to the part itself, depth first."""
        yield (self,)
        for child in self.children:
            for path in child.walk():
                yield (self, *path)

    def get(self, key: str) -> str | None:
        return dict(self.attributes).get(key)


class Pair(NamedTuple):
    """Two GPUs, by name, that NVLink or the like joins, directly or through a switch."""

    a: str
    b: str


@dataclass(frozen=True)
class Machine:
    """What `source` (a file, or this machine) tells. `joined` has each pair of GPUs once in each order."""

    source: str
    root: Node
    joined: frozenset[Pair] = frozenset()

    def all(self, kind: str) -> list[Node]:
        return [path[-1] for path in self.root.walk() if path[-1].kind == kind]

    @property
    def make(self) -> str:
        """The models of its processors and GPUs, each once."""
        models = [path[-1].get("model") for path in self.root.walk()]
        return ", ".join(dict.fromkeys(model for model in models if model))


def pairs(gpus: Iterable[str], links: Mapping[str, Iterable[str]]) -> frozenset[Pair]:
    """Which GPUs are joined, by what each end is linked to: a GPU to another, or through switches, which are all ends
    that are no GPUs."""
    among = set(gpus)
    both: dict[str, set[str]] = {}
    for end, others in links.items():
        for other in others:
            both.setdefault(end, set()).add(other)
            both.setdefault(other, set()).add(end)
    found = set()
    for gpu in among:
        seen, open_ends = {gpu}, [gpu]
        while open_ends:
            new = both.get(open_ends.pop(), set()) - seen
            seen |= new
            open_ends += new - among  # a message does not go through a third GPU
        found |= {Pair(gpu, other) for other in seen & among if other != gpu}
    return frozenset(found)


def pruned(node: Node) -> Node:
    """Without parts that hold nothing a rank could use: no core, no GPU, no NIC."""
    kept = [pruned(child) for child in node.children]
    holds = tuple(child for child in kept if child.children or child.kind in (*PLACES, "nic"))
    return replace(node, children=holds)


def size_text(nbytes: float) -> str:
    """1.5 GiB and the like."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while nbytes >= 1024 and unit != "TiB":
        nbytes, unit = nbytes / 1024, next(units)
    return f"{nbytes:.4g} {unit}"
