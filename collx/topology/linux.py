"""The machine that this process runs on, as Linux tells of it in /sys and /proc: what the process may use, and what its
cgroup lets it have of that."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from collx.spots import cpu_list, model
from collx.topology import nvidia
from collx.topology.machine import Machine, Node, pairs, pruned, size_text


class Part(NamedTuple):
    """A set of CPUs that share something."""

    kind: str
    name: str
    cpus: frozenset[int]
    told: tuple[tuple[str, str], ...] = ()


def read(root: Path = Path("/"), allowed: Iterable[int] | None = None) -> Machine:
    """This machine. `root` is where its /sys and /proc are, and `allowed` which CPUs may be used: by default those that
    the process's affinity and cpuset leave it.

    NVIDIA's library (`collx[cuda]`) is asked for NVLinks where it is installed; without it no GPU is taken for joined.
    """
    gpus = {gpu.address: gpu for gpu in nvidia.gpus()}
    devices = _devices(root / "sys", gpus)
    parts, memory = _parts(root, allowed, devices)
    placed = {node for node in devices if node in memory}
    loose = tuple(part for home, found in devices.items() if home not in placed for part in found)
    host = Node("host", os.uname().nodename, (*parts, *loose), _limits(root))
    links = {f"GPU {gpu.number}": set(gpu.links) for gpu in gpus.values()}
    names = {address: f"GPU {gpu.number}" for address, gpu in gpus.items()}
    joined = pairs(links, {name: {names.get(end, end) for end in ends} for name, ends in links.items()})
    return Machine("this machine", pruned(host), joined)


def processors(root: Path = Path("/"), allowed: Iterable[int] | None = None) -> Machine:
    """Of what `read` tells the processors alone, which takes a fraction of the time."""
    parts, _ = _parts(root, allowed, {})
    return Machine("this machine", pruned(Node("host", os.uname().nodename, parts)))


def _parts(
    root: Path, allowed: Iterable[int] | None, devices: dict[str, list[Node]]
) -> tuple[tuple[Node, ...], set[str]]:
    """What the host consists of, with the devices where they are, and the names of its NUMA nodes."""
    system = root / "sys/devices/system"
    usable = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    online = cpu_list(_text(system / "cpu/online")) | usable  # in a container the first may tell of others
    memory = _numas(system)
    layers = [_packages(system, online, root), memory, _caches(system, online), _cores(system, online)]
    # What is larger is outside: a package has NUMA nodes in it on most machines, but the other way around on some.
    layers = sorted((layer for layer in layers if layer), key=lambda layer: -max(len(part.cpus) for part in layer))
    return _nested(layers, online, usable, devices), {part.name for part in memory}


def _nested(
    layers: list[list[Part]], cpus: frozenset[int], usable: frozenset[int], devices: dict[str, list[Node]]
) -> tuple[Node, ...]:
    if not layers:
        return ()
    here, *inner = layers
    nodes = []
    left = cpus
    for part in here:
        within = part.cpus & left
        if not within:
            continue
        left -= within
        told = part.told
        if part.kind == "core":
            threads = (("threads", str(len(within))),) if len(within) > 1 else ()
            told = threads + (() if within & usable else (("not allowed", ""),))
        children = (*_nested(inner, within, usable, devices), *devices.get(part.name, ()))
        nodes.append(
            Node(part.kind, part.name, children, told, within & usable if part.kind == "core" else frozenset())
        )
    return (*nodes, *_nested(inner, left, usable, devices)) if left else tuple(nodes)


def _packages(system: Path, cpus: frozenset[int], root: Path) -> list[Part]:
    name = model(str(root))
    told = (("model", name),) if name else ()
    found: dict[str, set[int]] = {}
    left = set(cpus)
    for cpu in sorted(cpus):
        if cpu in left:
            topology = system / f"cpu/cpu{cpu}/topology"
            all_of_it = cpu_list(_text(topology / "package_cpus_list")) & left or {cpu}
            found.setdefault(_text(topology / "physical_package_id") or "0", set()).update(all_of_it)
            left -= all_of_it
    return [Part("package", f"package {number}", frozenset(each), told) for number, each in found.items()]


def _numas(system: Path) -> list[Part]:
    found = []
    for node in sorted((system / "node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        total = next((line.split()[-2] for line in _text(node / "meminfo").splitlines() if "MemTotal" in line), "")
        told = (("memory", size_text(1024 * int(total))),) if total else ()
        found.append(Part("numa", f"NUMA {node.name[4:]}", cpu_list(_text(node / "cpulist")), told))
    return found


def _caches(system: Path, cpus: frozenset[int]) -> list[Part]:
    found: dict[frozenset[int], str] = {}
    left = set(cpus)
    for cpu in sorted(cpus):
        caches = (system / f"cpu/cpu{cpu}/cache").glob("index*") if cpu in left else ()
        for cache in caches:
            if _text(cache / "level") == "3":
                found.setdefault(cpu_list(_text(cache / "shared_cpu_list")), _text(cache / "size"))
                left -= {cpu}.union(*found)
    sizes = [(("size", size_text(1024 * int(size.removesuffix("K")))),) if size else () for size in found.values()]
    return [Part("l3", f"L3 {at}", each, size) for at, (each, size) in enumerate(zip(found, sizes, strict=True))]


def _cores(system: Path, cpus: frozenset[int]) -> list[Part]:
    found: dict[frozenset[int], None] = {}
    left = set(cpus)
    for cpu in sorted(cpus):
        if cpu not in left:
            continue
        topology = system / f"cpu/cpu{cpu}/topology"
        text = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list")
        core = cpu_list(text) or frozenset((cpu,))
        found.setdefault(core)
        left -= core
    return [Part("core", f"core {at}", each) for at, each in enumerate(found)]


def _devices(sys: Path, gpus: dict[str, nvidia.Gpu]) -> dict[str, list[Node]]:
    """GPUs and NICs, by the name of the NUMA node that they are near to, "" where nobody knows."""
    found: dict[str, list[Node]] = {}
    for number, device in enumerate(_by_class(sys, ("0x0302", "0x0380"), gpus)):
        address = device.name.lower()
        gpu = gpus.get(address)
        told = [("model", gpu.model)] if gpu else []
        told += [("pci", address), ("number", str(gpu.number if gpu else number))]
        name = f"GPU {gpu.number if gpu else number}"
        found.setdefault(_near(device), []).append(Node("gpu", name, (), tuple(told)))
    ports: dict[Path, list[Path]] = {}
    for port in [*sorted((sys / "class/infiniband").glob("*")), *sorted((sys / "class/net").glob("*"))]:
        if (port / "device").exists():
            ports.setdefault((port / "device").resolve(), []).append(port)
    for device, names in ports.items():
        speed = max(map(_gigabits, names))
        rate = (("Gbit/s", f"{speed:g}"),) if speed else ()
        nic = Node("nic", " ".join(("NIC", *(port.name for port in names))), (), rate)
        found.setdefault(_near(device), []).append(nic)
    return found


def _by_class(sys: Path, classes: tuple[str, ...], known: dict[str, nvidia.Gpu]) -> list[Path]:
    devices = sorted((sys / "bus/pci/devices").glob("*"))
    of_class = [path for path in devices if path.name in known or _text(path / "class").startswith(classes)]
    hidden = [sys / "bus/pci/devices" / address for address in known if not any(p.name == address for p in of_class)]
    return of_class + hidden  # a container may not show what its driver does


def _near(device: Path) -> str:
    number = _text(device / "numa_node") or _text(device.parent / "numa_node")  # virtio's is its PCI device's
    return f"NUMA {number}" if number.isdigit() else ""


def _gigabits(port: Path) -> float:
    rate = _text(port / "ports/1/rate").partition(" ")[0]  # "200 Gb/sec (4X HDR)"
    megabits = _text(port / "speed")  # -1, or no answer, where the cable is out or there is none
    return float(rate or 0) if not megabits.isdigit() else int(megabits) / 1000


def _limits(root: Path) -> tuple[tuple[str, str], ...]:
    total = next((line.split()[1] for line in _text(root / "proc/meminfo").splitlines() if "MemTotal" in line), "")
    told = [("memory", size_text(1024 * int(total)))] if total else []
    times, memories = [], []
    for group in _cgroups(root):
        match _text(group / "cpu.max").split() or _quota_of_version_1(group):
            case [quota, period] if quota.isdigit():
                times.append(int(quota) / int(period))
        memories += [int(text) for text in [_text(group / "memory.max")] if text.isdigit()]
    if times:
        told.append(("its cgroup allows", f"{min(times):g} CPUs' time"))
    if memories:
        told.append(("its cgroup allows memory", size_text(min(memories))))
    return tuple(told)


def _cgroups(root: Path) -> list[Path]:
    """This process's groups, and those around them: the least of their limits counts."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        at = Path(path.lstrip("/"))
        found += [top / each for each in (at, *at.parents)]
    return found


def _quota_of_version_1(group: Path) -> list[str]:
    return [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")]


def _text(path: Path) -> str:
    """What a file of the kernel's tells, "" where it is not there or has no answer."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
