"""NCCL's XML: what NCCL_TOPO_DUMP_FILE gets and NCCL_TOPO_FILE gives; RCCL's is the same but for `xgmi`."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from collx.topology.document import Refused, cpu_set, number
from collx.topology.machine import MOST_CORES, MOST_GPUS, Machine, Node, pairs

SWITCH = "switch"  # every NVLink switch is one: they all join the same GPUs
SWITCH_CLASS = "0x068000"
GPU_CLASSES = ("0x0302", "0x0380")  # PCI's for what computes and shows no picture
FABRICS = ("nvlink", "xgmi")


def read(system: Element, source: str) -> Machine:
    """The machine of a <system>. It tells which CPUs are near to which NUMA node, not which share a core or a cache:
    each is taken for a core.

    Raises Refused where it describes none, or several.
    """
    processors = system.findall("cpu")
    if not processors:
        raise Refused("NCCL's <system> without a <cpu> in it")
    if len({cpu.get("host_hash") for cpu in processors}) > 1:
        raise Refused("it describes several hosts; give one at a time, and how many there are by --hosts")
    reading = _Reading()
    parts = tuple(reading.numa(cpu) for cpu in sorted(processors, key=lambda cpu: number(cpu, "numaid")))
    loose = tuple(part for child in system if child.tag != "cpu" for part in reading.device(child))
    if not reading.gpus and not any(path[-1].kind == "core" for part in parts for path in part.walk()):
        raise Refused(
            "NCCL's <system> tells neither of CPUs nor which of its devices are GPUs, as files do that only say which"
            " devices are near each other; give what NCCL_TOPO_DUMP_FILE writes in a job that uses this one"
        )
    links = {gpu: {reading.names.get(end, end) for end in ends} for gpu, ends in reading.links.items()}
    return Machine(source, Node("host", "host", (*parts, *loose)), pairs(reading.links, links))


class _Reading:
    def __init__(self) -> None:
        self.cores = self.gpus = 0
        self.links: dict[str, set[str]] = {}
        self.names: dict[str, str] = {}  # of GPUs, by their PCI address

    def numa(self, cpu: Element) -> Node:
        near = sorted(cpu_set(cpu.get("affinity", "")))
        cores = tuple(self.core(each) for each in near)
        devices = tuple(part for child in cpu for part in self.device(child))
        vendor = cpu.get("vendor")
        told = (("model", f"{vendor} {cpu.get('familyid', '?')}/{cpu.get('modelid', '?')}"),) if vendor else ()
        return Node("numa", f"NUMA {number(cpu, 'numaid')}", cores + devices, told)

    def core(self, cpu: int) -> Node:
        self.cores += 1
        if self.cores > MOST_CORES:
            raise Refused(f"it has more than {MOST_CORES} CPUs")
        return Node("core", f"CPU {cpu}", (), (), frozenset((cpu,)))

    def device(self, element: Element) -> Iterator[Node]:
        """What computes or sends at a PCI address or behind it; switches and bridges are transparent."""
        if element.tag == "pci":
            gpu, kind = element.find("gpu"), element.get("class", "")
            if gpu is not None or kind.startswith(GPU_CLASSES):
                yield self.gpu(element, gpu)
                return
            if kind.startswith("0x02") and element.find("nic") is None:
                yield Node("nic", f"NIC {element.get('busid', '')}")
                return
        if element.tag == "net":
            speed = number(element, "speed") / 1000
            told = (("Gbit/s", f"{speed:g}"),) if speed > 0 else ()
            yield Node("nic", f"NIC {element.get('name', '')}", (), told)
        for child in element:
            yield from self.device(child)

    def gpu(self, pci: Element, gpu: Element | None) -> Node:
        index = self.gpus if gpu is None else number(gpu, "dev", self.gpus)
        self.gpus += 1
        name, address = f"GPU {index}", pci.get("busid", "")
        if name in self.links:
            raise Refused(f"two GPUs have the number {index}")
        if self.gpus > MOST_GPUS:
            raise Refused(f"it has more than {MOST_GPUS} GPUs")
        self.names[address.lower()] = name
        told = [("model", f"sm_{gpu.get('sm')}")] if gpu is not None and gpu.get("sm") else []
        told += [("pci", address), ("number", str(index if gpu is None else number(gpu, "rank", index)))]
        ends = [] if gpu is None else [end for fabric in FABRICS for end in gpu.findall(fabric)]
        self.links[name] = {_end(end) for end in ends} - {address.lower()}
        return Node("gpu", name, (), tuple(told))


def _end(link: Element) -> str:
    return SWITCH if link.get("tclass", "").lower() == SWITCH_CLASS else link.get("target", "").lower()
