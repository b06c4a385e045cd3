"""What `lstopo --of xml` writes: hwloc's XML of versions 1.11, 2 and 3."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from collx.topology.document import Refused, cpu_set, number
from collx.topology.machine import MOST_CORES, MOST_GPUS, Machine, Node, pairs, pruned, size_text

PACKAGES = ("Package", "Socket")  # what they are called since 1.11, and were before
PCI_TYPE = re.compile(r"(?P<kind>[0-9a-f]{4}) \[(?P<vendor>[0-9a-f]{4}):[0-9a-f]{4}\]")
GPU_VENDORS = ("10de", "1002")  # whose display controllers compute: NVIDIA, AMD


def read(topology: Element, source: str) -> Machine:
    """The machine of a <topology>.

    Raises Refused where it describes none, or several.
    """
    tops = [child for child in topology if child.tag == "object"]
    if len(tops) != 1:
        raise Refused("hwloc's <topology> without one machine in it")
    top = tops[0]
    if sum(each.get("type") == "Machine" for each in top.iter("object")) > 1:
        raise Refused("it describes several machines; give one at a time, and how many there are by --hosts")
    reading = _Reading(top)
    parts = reading.inside(top)
    model = None if reading.packages else _info(top, "CPUModel")
    told = (("model", model),) if model else ()
    memory = (("memory", size_text(reading.memory)),) if reading.memory else ()
    host = Node("host", _info(top, "DMIProductName") or "host", parts, told + memory)
    return Machine(source, pruned(host), pairs(reading.names.values(), reading.nvlinks(topology)))


class _Reading:
    """One pass over a tree. Objects that are of no kind of ours, such as groups and caches within a core, are
    transparent."""

    def __init__(self, top: Element) -> None:
        self.top = top
        self.packages = self.caches = self.cores = self.gpus = 0
        self.memory = 0  # bytes that belong to the machine as a whole
        self.names: dict[str, str] = {}  # of GPUs, by what the matrix of NVLinks calls them
        usable = [cpu_set(text) for key in ("allowed_cpuset", "online_cpuset") if (text := top.get(key)) is not None]
        self.usable = frozenset.intersection(*usable) if usable else None

    def inside(self, parent: Element) -> tuple[Node, ...]:
        """The parts in an object. Since hwloc 2 memory lies beside the cores that it is near to, not around them: those
        are then a NUMA node here."""
        objects = [child for child in parent if child.tag == "object"]
        nodes: list[Element] = []
        parts: list[Node] = []
        for child in objects:
            if child.get("type") in ("NUMANode", "MemCache") and not _has_cores(child):
                nodes += [node for node in child.iter("object") if node.get("type") == "NUMANode"]
            else:
                parts += self.part(child)
        if parent is self.top:
            self.memory = sum(number(node, "local_memory") for node in nodes)
        elif nodes and not any(path[-1].kind == "numa" for part in parts for path in part.walk()):
            return (_numa(nodes, tuple(parts)),)
        return tuple(parts)

    def part(self, element: Element) -> tuple[Node, ...]:
        kind = element.get("type", "")
        if kind in ("Core", "PU"):
            return (self.core(element),)
        if kind == "PCIDev":
            return tuple(self.device(element))
        if kind in PACKAGES:
            self.packages += 1
            model = _info(element, "CPUModel")
            name = f"package {number(element, 'os_index', self.packages - 1)}"
            return (Node("package", name, self.inside(element), (("model", model),) if model else ()),)
        if kind == "NUMANode":
            return (_numa([element], self.inside(element)),)
        if kind == "L3Cache" or (kind == "Cache" and element.get("depth") == "3"):
            self.caches += 1
            name, size = f"L3 {self.caches - 1}", size_text(number(element, "cache_size"))
            return (Node("l3", name, self.inside(element), (("size", size),)),)
        return self.inside(element)

    def core(self, element: Element) -> Node:
        self.cores += 1
        if self.cores > MOST_CORES:
            raise Refused(f"it has more than {MOST_CORES} cores")
        units = [element] if element.get("type") == "PU" else list(element.iter("object"))
        there = frozenset(number(unit, "os_index") for unit in units if unit.get("type") == "PU")
        cpus = there if self.usable is None else there & self.usable
        told = [("threads", str(len(there)))] if len(there) > 1 else []
        if not cpus:
            told.append(("not allowed", ""))
        return Node("core", f"core {self.cores - 1}", (), tuple(told), cpus)

    def device(self, element: Element) -> Iterator[Node]:
        match = PCI_TYPE.match(element.get("pci_type", ""))
        if match is None:
            return
        system = [each for each in element.iter("object") if each.get("type") == "OSDev"]
        names = [each.get("name", "") for each in system]
        kind, vendor = match["kind"], match["vendor"]
        if kind in ("0302", "0380") or (kind == "0300" and vendor in GPU_VENDORS):
            name = f"GPU {self.gpus}"
            model = next((found for each in system if (found := _info(each, "GPUModel"))), _info(element, "PCIDevice"))
            told = [("model", model)] if model else []
            told += [("pci", element.get("pci_busid", "")), ("number", str(self.gpus))]
            for each in (element, *system):
                self.names[f"{each.get('type')}:{each.get('gp_index')}"] = name
            self.gpus += 1
            if self.gpus > MOST_GPUS:
                raise Refused(f"it has more than {MOST_GPUS} GPUs")
            yield Node("gpu", name, (), tuple(told))
        elif kind.startswith("02"):
            link = next((found for each in system if (found := _info(each, "Port1LinkSpeed"))), None)
            told = [("Gbit/s", link)] if link and link.replace(".", "").isdigit() else []
            yield Node("nic", " ".join(("NIC", *(names or [element.get("pci_busid", "")]))), (), tuple(told))

    def nvlinks(self, topology: Element) -> dict[str, set[str]]:
        """What hwloc's matrix of NVLink bandwidths joins: GPUs by their names, and switches by their index."""
        links: dict[str, set[str]] = {}
        for matrix in topology:
            if not matrix.tag.startswith("distances2") or "Link" not in matrix.get("name", ""):
                continue
            prefix = matrix.get("type", "")
            indexes = " ".join(each.text or "" for each in matrix.iter("indexes")).split()
            values = " ".join(each.text or "" for each in matrix.iter("u64values")).split()
            if len(values) != len(indexes) ** 2:
                raise Refused(f"its matrix of NVLinks has {len(values)} values for {len(indexes)} devices")
            keys = [index if ":" in index else f"{prefix}:{index}" for index in indexes]
            ends = [self.names.get(key, key) for key in keys]
            for at, end in enumerate(ends):
                row = values[at * len(ends) : (at + 1) * len(ends)]
                linked = {other for other, value in zip(ends, row, strict=True) if value.strip("0")}
                links.setdefault(end, set()).update(linked - {end})
        return links


def _has_cores(element: Element) -> bool:
    return any(each.get("type") == "PU" for each in element.iter("object"))


def _numa(nodes: list[Element], parts: tuple[Node, ...]) -> Node:
    """One for all memory of the same cores: fast and large memory are nodes of their own to Linux."""
    memory = sum(number(node, "local_memory") for node in nodes)
    name = "+".join(str(number(node, "os_index")) for node in nodes)
    return Node("numa", f"NUMA {name}", parts, (("memory", size_text(memory)),))


def _info(element: Element, name: str) -> str | None:
    found = next((each.get("value", "") for each in element.findall("info") if each.get("name") == name), "")
    return " ".join(found.split()) or None
