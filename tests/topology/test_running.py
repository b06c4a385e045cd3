"""Where the ranks of a running job are, from what each one's affinity and files say."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx import spots
from collx.spots import NOWHERE, Spot
from collx.topology import linux, place
from collx.topology.running import running
from tests.topology.conftest import write

PACKAGE = (Spot(0, -1, 0, 0, 8), Spot(8, -1, 8, 8, 8))  # bound to one or the other of the server's
ANYWHERE = Spot(-1, -1, -1, 0, 16)
SPOTS = st.builds(
    Spot, *[st.integers(-1, 3)] * 3, st.integers(0, 7), st.integers(1, 4)
)  # whatever one rank may have told, whether it fits the others' or not


@pytest.mark.parametrize(
    ("cpus", "spot"),
    [
        ({3, 19}, Spot(0, 0, 0, 3, 1)),
        ({19}, Spot(0, 0, 0, 3, 1)),
        (range(4, 8), Spot(0, 1, 0, 4, 4)),
        ({0, 7}, Spot(0, -1, 0, 0, 2)),
        ([*range(8, 16), *range(24, 32)], PACKAGE[1]),
        (range(32), ANYWHERE),
        ({7, 8}, Spot(-1, -1, -1, 7, 2)),
        ({99}, Spot(-1, -1, -1, 99, 1)),
    ],
)
def test_a_rank_is_in_what_holds_all_its_cpus(cpus: set[int], spot: Spot, server: Path) -> None:
    assert spots.here(str(server), cpus) == spot


def test_this_process_is_somewhere() -> None:
    assert spots.here().cores >= 1
    assert running(["here"], [spots.here()], spots.model()).size == 1


@settings(max_examples=30)
@given(st.lists(st.text(max_size=12) | st.sampled_from(["0-1", "0-99999", "1-0", "3"]), min_size=6, max_size=6))
def test_files_that_say_anything_are_no_error(texts: list[str]) -> None:
    cpu = "sys/devices/system/cpu/cpu0"
    names = ["topology/package_cpus_list", "topology/core_cpus_list", "node0/x", "cache/index3/shared_cpu_list"]
    with tempfile.TemporaryDirectory() as folder:
        files = dict(zip([f"{cpu}/{name}" for name in names], texts, strict=False))
        write(Path(folder), files | {f"{cpu}/cache/index3/level": "3", "proc/cpuinfo": texts[4]})
        write(Path(folder), {"sys/devices/system/node/node0/cpulist": texts[5]})
        found = spots.here(folder, {0, 1})
        assert isinstance(spots.model(folder), str)
    assert found.cores >= 1
    assert running(["a", "a"], [found, found]).size == 2


def test_ranks_bound_to_packages_in_turn() -> None:
    topology = running(["a"] * 4, [PACKAGE[rank % 2] for rank in range(4)], "A Processor")
    assert [level.name for level in topology.levels] == ["packages", "cores"]
    assert topology.parts == topology.groups("packages") == ((0, 2), (1, 3))
    assert topology.between(0, 1).name == "packages"
    assert topology.make == "A Processor"


def test_ranks_that_nobody_bound_are_in_no_part() -> None:
    topology = running(["a"] * 20, [ANYWHERE] * 20)
    assert [level.name for level in topology.levels] == ["cores", "ranks"]
    assert topology.parts == (tuple(range(20)),)
    assert topology.between(0, 16).name == "core"  # there are 16, which they take in turns


def test_what_leaves_a_rank_alone_parts_nobody() -> None:
    numa = [Spot(0, node, 0, 4 * node, 4) for node in (0, 0, 1, 1)]
    assert running(["a"] * 5, [*numa, ANYWHERE]).parts == (tuple(range(5)),)
    assert running(["a"] * 4, numa).parts == ((0, 1), (2, 3))


def test_hosts_come_before_what_is_in_them() -> None:
    topology = running(list("abab"), [PACKAGE[0], PACKAGE[0], PACKAGE[1], PACKAGE[1]])
    assert topology.parts == ((0, 2), (1, 3))
    assert topology.between(0, 2).name == "packages"


@given(st.lists(st.tuples(st.sampled_from("ab"), SPOTS | st.just(NOWHERE)), min_size=1, max_size=12))
def test_any_spots_make_a_topology(ranks: list[tuple[str, Spot]]) -> None:
    hosts, told = zip(*ranks, strict=True)
    topology = running(hosts, told)
    assert sorted(rank for group in topology.parts for rank in group) == list(range(len(ranks)))
    if len(set(hosts)) > 1:
        assert len(topology.parts) == len(set(hosts))
    elif len(topology.parts) > 1:
        assert min(map(len, topology.parts)) > 1


def test_a_machine_is_known_again(server: Path) -> None:
    def fingerprint(cpus: range) -> str:
        return place(linux.processors(server, cpus)).topology.fingerprint()

    known = fingerprint(range(32))
    assert fingerprint(range(32)) == known == place(linux.read(server, range(32))).topology.fingerprint()
    assert fingerprint(range(8)) != known
    write(server, {"proc/cpuinfo": "model name\t: Another"})
    assert fingerprint(range(32)) != known


def test_a_container_may_show_other_cpus_than_its_own(server: Path) -> None:
    write(server, {"sys/devices/system/cpu/online": "0-1"})
    assert len(place(linux.processors(server, range(4))).parts) == 4
