"""Who sits where."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.topology import Machine, Node, place, read
from collx.topology.machine import pairs

DATA = Path(__file__).parent / "data"
SUB_NUMA = read(str(DATA / "hwloc-28intel64-2p2g7c-CoDgroups.v1.xml"))  # 2 packages, 4 NUMA nodes, 28 cores
A100 = read(str(DATA / "simccl-topo_8A100_4CX6.xml"))


@given(st.integers(1, 90), st.integers(1, 4))
def test_unbound_ranks_fill_the_cores_evenly_and_in_order(ranks: int, hosts: int) -> None:
    placed = place(SUB_NUMA, ranks * hosts, hosts=hosts)
    first = [part.name for host, part in zip(placed.hosts, placed.parts, strict=True) if host == 0]
    assert first[:28] == [f"core {rank}" for rank in range(min(ranks, 28))]
    counts = Counter(first).values()
    assert max(counts) - min(counts) <= (1 if len(counts) == 28 else 0)
    assert placed.topology.size == ranks * hosts
    parting = {level.name for level in placed.topology.levels}
    assert ("hosts" in parting) == (hosts > 1)
    assert ("ranks" in parting) == (ranks > 28)


def test_ranks_that_share_a_core_are_joined_by_it() -> None:
    topology = place(SUB_NUMA, 30).topology
    assert topology.between(0, 28).name == "core"
    assert topology.between(0, 1).name == "cores"
    assert topology.between(0, 7).name == "numa"
    assert topology.between(0, 14).name == "packages"


@given(st.integers(1, 60))
def test_ranks_bound_to_all_there_is_are_as_good_as_unbound(ranks: int) -> None:
    assert place(SUB_NUMA, ranks, cpus=[None] * ranks) == place(SUB_NUMA, ranks)


def test_bound_ranks_sit_where_they_are_bound() -> None:
    numas = [part.cpus for part in SUB_NUMA.all("core")]
    bound = [numas[20], numas[0], frozenset().union(*numas[14:21]), None]
    parts = place(SUB_NUMA, 4, cpus=bound).parts
    assert [part.name for part in parts] == ["core 20", "core 0", "core 14", "core 1"]


def test_ranks_around_the_hosts() -> None:
    topology = place(SUB_NUMA, hosts=[0, 1, 0, 1]).topology
    assert topology.groups("hosts") == ((0, 2), (1, 3))
    assert topology.between(0, 2).name == "cores"


def test_gpus_in_the_order_of_their_numbers() -> None:
    placed = place(A100, 16, hosts=2, on="gpu")
    assert [part.name for part in placed.parts] == 2 * [f"GPU {number}" for number in range(8)]
    assert [level.name for level in placed.topology.levels] == ["hosts", "gpus"]


@pytest.mark.parametrize(
    ("links", "levels"),
    [
        ({"A": "B", "C": "D"}, ["islands", "gpus"]),  # as in Azure's NCv4, whose pairs keep to no NUMA node
        ({"A": "B"}, ["numa"]),  # the others are joined by no NVLink
        ({}, ["numa"]),
    ],
)
def test_nvlink_may_join_gpus_of_several_numa_nodes(links: dict[str, str], levels: list[str]) -> None:
    numas = tuple(Node("numa", f"numa {name}", (Node("gpu", name),)) for name in "ABCD")
    machine = Machine("four", Node("host", "four", numas), pairs("ABCD", {gpu: [to] for gpu, to in links.items()}))
    topology = place(machine, on="gpu").topology
    assert [level.name for level in topology.levels] == levels
    if links and levels[0] == "islands":
        assert topology.groups("islands") == ((0, 1), (2, 3))
        assert topology.between(0, 1).beta < topology.between(0, 2).beta


@pytest.mark.parametrize(
    ("ranks", "hosts", "on", "complaint"),
    [
        (5, 2, "core", "5 ranks cannot be dealt out evenly to 2 hosts"),
        (0, 1, "core", "0 ranks on 1 hosts: give at least 1 of each"),
        (4, 0, "core", "4 ranks on 0 hosts: give at least 1 of each"),
        (1 << 21, 1, "core", "2097152 ranks are more than 1048576"),
        (4, 1, "gpu", "there is no gpu that may be used"),
    ],
)
def test_what_cannot_be(ranks: int, hosts: int, on: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        place(SUB_NUMA, ranks, hosts=hosts, on=on)


def test_a_rank_bound_to_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="rank 1 may run on none of the cores"):
        place(SUB_NUMA, 2, cpus=[None, frozenset({999})])


def test_cores_outside_any_cache_are_together() -> None:
    fast = Node("l3", "L3 0", tuple(Node("core", f"core {n}", (), (), frozenset({n})) for n in range(2)))
    slow = tuple(Node("core", f"core {n}", (), (), frozenset({n})) for n in range(2, 4))
    machine = Machine("a laptop", Node("host", "host", (fast, *slow)))
    assert place(machine).topology.groups("l3") == ((0, 1), (2, 3))
