"""Machines that others published: each is read, placed on, drawn."""

from pathlib import Path

import pytest

import collx.algorithms  # noqa: F401  (fills the register)
from collx.cost import contenders
from collx.schedule import REGISTER
from collx.topology import Topology, load, place, read
from collx.topology.tree import lines

DATA = Path(__file__).parent / "data"
TWO_SOCKETS, SUB_NUMA, DGX2, CPUSET, A100, AZURE = (
    str(DATA / name)
    for name in (
        "hwloc-32em64t-2n8c2t-pci-normalio.xml",
        "hwloc-28intel64-2p2g7c-CoDgroups.v1.xml",
        "hwloc-nvidiaDGX2.xml",
        "hwloc-16amd64-8n2c-cpusets.xml",
        "simccl-topo_8A100_4CX6.xml",
        "azure-ndv4-topo.xml",
    )
)
ALL = (TWO_SOCKETS, SUB_NUMA, DGX2, CPUSET, A100, AZURE)


def groups(topology: Topology) -> dict[str, int]:
    return {level.name: len(topology.groups(level.name)) for level in topology.levels}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (TWO_SOCKETS, {"packages": 2, "cores": 16}),
        (SUB_NUMA, {"packages": 2, "numa": 4, "cores": 28}),
        (DGX2, {"packages": 2, "cores": 4}),
        (CPUSET, {"numa": 4, "packages": 6, "cores": 10}),
        (A100, {"gpus": 8}),
        (AZURE, {"numa": 4, "gpus": 8}),
    ],
    ids=lambda value: Path(value).stem if isinstance(value, str) else "",
)
def test_who_is_together(file: str, expected: dict[str, int]) -> None:
    assert groups(load(file)) == expected


@pytest.mark.parametrize("file", ALL, ids=lambda file: Path(file).stem)
def test_it_is_all_in_the_tree(file: str) -> None:
    machine = read(file)
    drawn = "\n".join(lines(machine.root))
    for kind in ("package", "numa", "nic"):
        assert all(part.name in drawn for part in machine.all(kind))
    assert drawn.count("GPU") >= bool(machine.all("gpu"))


@pytest.mark.parametrize("file", ALL, ids=lambda file: Path(file).stem)
def test_a_choice_can_be_made(file: str) -> None:
    topology = load(file)
    shipped = [algorithm for algorithm in REGISTER.values() if algorithm.shipped]
    for nbytes in (1 << 10, 1 << 20, 1 << 30):
        (_, first), (_, second), *_ = contenders("all_reduce", nbytes, topology, shipped)
        assert 0 < first.seconds <= second.seconds
        assert set(first.by_link) <= {level.link.name for level in topology.levels}


@pytest.mark.parametrize("file", ALL, ids=lambda file: Path(file).stem)
def test_hosts_like_it(file: str) -> None:
    alone, four = load(file), load(file, hosts=4)
    assert four.size == 4 * alone.size
    assert [level.name for level in four.levels] == ["hosts", *(level.name for level in alone.levels)]
    assert four.groups("hosts")[1] == tuple(range(alone.size, 2 * alone.size))


def test_the_published_text_tells_models_memory_and_devices() -> None:
    machine = read(TWO_SOCKETS)
    drawn = "\n".join(lines(machine.root))
    for what in ("E5-2650", "L3 0 · 20 MiB", "cores 0-7 · 2 threads each", "NIC ib0 mlx5_0", "Tesla K40m", "32 GiB"):
        assert what in drawn
    assert "E5-2650" in machine.make
    assert "Matrox" not in drawn  # it shows a console and computes nothing


def test_gpus_of_one_board_are_joined() -> None:
    machine = read(DGX2)
    boards = place(machine, on="gpu").topology
    assert groups(boards) == {"packages": 2, "gpus": 16}
    assert boards.between(0, 7).name == "nvlink"
    assert boards.between(0, 8).name != "nvlink"  # hwloc saw no link between switches


def test_nvlink_comes_first_and_the_network_is_as_fast_as_the_nics() -> None:
    pair = load(A100, hosts=2)
    assert pair.between(0, 7).name == "nvlink"
    network = pair.between(0, 8)
    assert network.shared
    assert network.beta == pytest.approx(8 / (5 * 200e9))  # five NICs of 200 Gbit/s


def test_what_a_cpuset_forbids_has_no_rank() -> None:
    machine = read(CPUSET)
    assert sum(1 for core in machine.all("core") if core.cpus) == load(CPUSET).size == 10
