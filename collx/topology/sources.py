"""A machine, or a topology, from what the user names: a file, a text, or nothing for this machine."""

from __future__ import annotations

import os

from collx.topology.machine import Machine
from collx.topology.model import Topology
from collx.topology.placing import place
from collx.topology.text import describe


def read(name: str | None = None) -> Machine:
    """What the XML file `name` describes, "-" being standard input; without a name this machine.

    Raises ValueError, one line that names the file and what is wrong, and OSError where it cannot be read.
    """
    from collx.topology import (
        document,
        hwloc,
        linux,
        nccl,
    )  # most programs read no machine, and XML takes time to import

    if name is None:
        return linux.read()
    root = document.parse(name)
    reader = {"topology": hwloc.read, "system": nccl.read}.get(root.tag)
    if reader is None:
        raise ValueError(
            f"{name}: its outermost element is <{root.tag[:40]}>, neither hwloc's <topology> nor NCCL's <system>"
            " (from `lstopo --of xml` or NCCL_TOPO_DUMP_FILE)"
        )
    try:
        return reader(root, name)
    except document.Refused as refused:
        raise ValueError(f"{name}: {refused}") from None


def load(told: str, ranks: int | None = None, hosts: int = 1, on: str | None = None) -> Topology:
    """What `told` means: the name of an XML file, with ranks placed on `hosts` machines like it; else a text such as
    "4 hosts x 8 ranks", which says itself how many ranks there are. Ranks sit on what `on` says ("core" or "gpu"), by
    default on GPUs where the file is NCCL's.

    Raises ValueError where it is neither, or says another number of ranks than `ranks`; OSError where the file cannot
    be read.
    """
    if told == "-" or told.endswith(".xml") or os.path.exists(told):
        found = read(told)
        return place(found, ranks, hosts=hosts, on=on or places_of(found)).topology
    described = describe(told)
    if ranks is not None and ranks != described.size:
        raise ValueError(f"topology {told!r} has {described.size} ranks, not {ranks}")
    return described


def places_of(found: Machine) -> str:
    """What ranks sit on unless somebody says: GPUs where the source is about GPUs, as NCCL's is."""
    described_by_nccl = not any(found.all(kind) for kind in ("package", "l3"))
    return "gpu" if described_by_nccl and found.all("gpu") else "core"
