"""The live machine, from trees of files like those of /sys and /proc."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collx.topology import linux as source
from collx.topology import place, read
from collx.topology.tree import lines
from tests.topology.conftest import GPUS, write


def test_a_server(server: Path) -> None:
    machine = source.read(server, range(32))
    topology = place(machine).topology
    assert {level.name: len(topology.groups(level.name)) for level in topology.levels} == {
        "packages": 2,
        "numa": 4,
        "cores": 16,
    }
    drawn = "\n".join(lines(machine.root))
    for what in ("A Processor", "L3 0 · 32 MiB", "cores 0-3 · 2 threads each", "NUMA 3 · 2 GiB", "GPU 2", "1 GiB"):
        assert what in drawn


def test_only_what_affinity_leaves(server: Path) -> None:
    machine = source.read(server, {1, 4, 5, 20})  # 4 and 20 are one core
    assert [core.name for core in machine.all("core") if core.cpus] == ["core 1", "core 4", "core 5"]
    assert place(machine).topology.groups("numa") == ((0,), (1, 2))
    assert "core 0 · 2 threads each · not allowed" in "\n".join(lines(machine.root))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "150000 100000"}, "1.5 CPUs' time"),
        ({"sys/fs/cgroup/a/b/memory.max": "1073741824", "sys/fs/cgroup/memory.max": "max"}, "memory 1 GiB"),
        (
            {"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000"},
            "0.5 CPUs'",
        ),
        ({"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000"}, ""),
    ],
)
def test_what_a_cgroup_allows(server: Path, files: dict[str, str], told: str) -> None:
    write(server, {"proc/self/cgroup": "4:cpu,cpuacct:/c\n3:devices:/d\n0::/a/b", **files})
    drawn = "\n".join(lines(source.read(server, range(32)).root))
    assert told in drawn
    assert ("its cgroup allows" in drawn) == bool(told)


def test_nics_and_their_speed(server: Path) -> None:
    write(server, {"sys/devices/pci0/numa_node": "2", "sys/devices/pci0/net/eth0/speed": "25000"})
    write(server, {"sys/devices/pci0/infiniband/mlx5_0/ports/1/rate": "200 Gb/sec (4X HDR)"})
    write(server, {"sys/devices/virtual/net/veth0/speed": "10000"})
    for kind, port in (("net", "eth0"), ("infiniband", "mlx5_0")):
        (server / f"sys/devices/pci0/{kind}/{port}/device").symlink_to(server / "sys/devices/pci0")
        (server / "sys/class" / kind).mkdir(parents=True)
        (server / "sys/class" / kind / port).symlink_to(server / f"sys/devices/pci0/{kind}/{port}")
    (server / "sys/class/net/veth0").symlink_to(server / "sys/devices/virtual/net/veth0")
    machine = source.read(server, range(32))
    assert [nic.name for nic in machine.all("nic")] == ["NIC mlx5_0 eth0"]  # one card, and no cable without one
    pair = place(machine, hosts=2).topology
    assert pair.between(0, 16).beta == pytest.approx(8 / 200e9)


class FakeNvml(SimpleNamespace):
    """As much of nvidia-ml-py as is asked: three GPUs, the first two on a switch."""

    class NVMLError(Exception):
        pass

    NVML_NVLINK_MAX_LINKS = 18
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 3,
            "nvmlDeviceGetHandleByIndex": lambda number: number,
            "nvmlDeviceGetName": lambda _: b"NVIDIA H100",
            "nvmlDeviceGetPciInfo": lambda gpu: SimpleNamespace(busId=f"0000{GPUS[gpu].upper()}".encode()),
            "nvmlDeviceGetNvLinkRemoteDeviceType": lambda _, link: 2,
        }
        if name == "nvmlDeviceGetNvLinkState":
            return self.state
        return answers[name]

    def state(self, gpu: int, link: int) -> int:
        if gpu == 2 or link >= 6:
            raise self.NVMLError("Not Supported")
        return 1 if link % 2 else 0


def test_nvlinks_by_the_driver(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    machine = source.read(server, range(32))
    assert {tuple(pair) for pair in machine.joined} == {("GPU 0", "GPU 1"), ("GPU 1", "GPU 0")}
    assert machine.make == "A Processor, NVIDIA H100"
    assert place(machine, on="gpu").topology.size == 3


def test_no_driver_is_no_error(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FakeNvml.NVMLError("Driver Not Loaded")

    fake = FakeNvml()
    fake.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert not source.read(server, range(32)).joined


def test_nothing_to_read_is_a_machine_with_the_cpus_that_may_be_used(tmp_path: Path) -> None:
    assert place(source.read(tmp_path, range(3))).topology.size == 3


def test_this_machine() -> None:
    machine = read()
    usable = set().union(*(core.cpus for core in machine.all("core")))
    assert usable == os.sched_getaffinity(0)
    assert place(machine).topology.size == sum(1 for core in machine.all("core") if core.cpus)
