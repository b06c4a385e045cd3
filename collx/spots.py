"""Where a rank may run, in a few numbers that it tells the others: a job's topology is made of these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple


class Spot(NamedTuple):
    """The package, NUMA node and L3 cache that hold all CPUs that a rank may run on, by the first of the part's CPUs or
    a node's number; -1 where none does, or nobody knows. The first of these CPUs, and how many cores they are."""

    package: int
    numa: int
    l3: int
    core: int
    cores: int


NOWHERE = Spot(-1, -1, -1, 0, 1 << 20)  # of a rank that has told nothing: as if it had a core of its own


def here(root: str = "", allowed: Iterable[int] | None = None) -> Spot:
    """That of this process, as /sys under `root` tells and, where they are not given, its affinity says what CPUs are
    allowed. Reads half a dozen files, for every process does so as its job begins."""
    cpus = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    first, system = min(cpus), f"{root}/sys/devices/system"
    cpu = f"{system}/cpu/cpu{first}"
    package = _cpus(f"{cpu}/topology/package_cpus_list") or _cpus(f"{cpu}/topology/core_siblings_list")
    node = _node(cpu)
    memory = _cpus(f"{system}/node/node{node}/cpulist") if node >= 0 else frozenset()
    cache = f"{cpu}/cache/index3"
    shared = _cpus(f"{cache}/shared_cpu_list") if _text(f"{cache}/level") == "3" else frozenset()
    core = _cpus(f"{cpu}/topology/core_cpus_list") or _cpus(f"{cpu}/topology/thread_siblings_list")
    threads = len(core & cpus) or 1  # of other cores as many, for they would be too many to look at
    return Spot(
        min(package) if cpus <= package else -1,
        node if cpus <= memory else -1,
        min(shared) if cpus <= shared else -1,
        min(core, default=first),
        max(len(cpus) // threads, 1),
    )


def model(root: str = "") -> str:
    """What this machine's processors call themselves, "" where they do not."""
    line = re.search(r"^model name[ \t]*:(.+)$", _text(f"{root}/proc/cpuinfo"), re.MULTILINE)
    return " ".join(line[1].split()) if line else ""


def cpu_list(text: str) -> frozenset[int]:
    """The numbers of "0-3,8", none where it says something else."""
    found: set[int] = set()
    if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text):
        return frozenset()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _node(cpu: str) -> int:
    """The number of a CPU's NUMA node, -1 where it has none."""
    try:
        names = os.listdir(cpu)
    except OSError:
        return -1
    return next((int(name[4:]) for name in sorted(names) if re.fullmatch(r"node\d+", name)), -1)


def _cpus(path: str) -> frozenset[int]:
    return cpu_list(_text(path))


def _text(path: str) -> str:
    """The beginning of a file of the kernel's: it writes only as much as is asked for."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(file, 4096).decode(errors="replace").strip()
    except OSError:  # it has no answer
        return ""
    finally:
        os.close(file)
