"""Ranks of one host that are bound to parts of it, each knowing only where it may run itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx import tuning
from collx.communicator import Communicator
from collx.decisions import Decisions
from collx.explaining import contest
from collx.perf.race import candidates
from collx.schedule import REGISTER
from collx.spots import NOWHERE, Spot
from collx.topology import describe
from collx.tuning import Key, Step, Table
from tests.ranks import on_hosts
from tests.topology.test_running import PACKAGE, SPOTS

IN_TURN = [PACKAGE[rank % 2] for rank in range(4)]


def bearings(comm: Communicator) -> str:
    """All that a rank's choices are made of, and some of them."""
    told = [str(comm.explain(collective, 1 << 14)) for collective in ("all_reduce", "broadcast", "all_to_all")]
    return json.dumps([comm.topology.to_json(), comm.topology.fingerprint(), comm.groups, comm.hosts, told])


def everything(comm: Communicator) -> tuple[str, str]:
    half = comm.split(comm.rank // 2)
    assert half is not None
    x = np.arange(64, dtype=np.float64) + comm.rank
    total = sum(np.arange(64, dtype=np.float64) + rank for rank in range(comm.size))
    for name in ("hierarchical", "leaders", "ring", None):
        assert np.array_equal(comm.all_reduce(x, algorithm=name), total)
    for name in ("hierarchical", "leaders", None):
        assert np.array_equal(comm.all_gather(x[:1], algorithm=name), np.arange(comm.size, dtype=np.float64))
    return bearings(comm), bearings(half)


def test_groups_are_the_parts_of_the_host() -> None:
    def body(comm: Communicator) -> Any:
        return comm.groups, everything(comm), comm.explain("all_reduce", 1 << 20)

    (groups, found, explained), *others = on_hosts(body, ["here"] * 4, spots=IN_TURN)
    assert groups == ((0, 2), (1, 3))
    assert all(other[1][0] == found[0] for other in others)
    assert all(entry.predicted for entry in explained.candidates if entry.objection is None)
    by_name = {entry.name: entry for entry in explained.candidates}
    bytes_across = {name: by_name[name].links["packages"] for name in ("hierarchical", "recursive_doubling")}
    assert bytes_across["hierarchical"] < bytes_across["recursive_doubling"]
    assert REGISTER["all_reduce", explained.chosen].over is None  # nobody has measured it


def test_in_a_group_ranks_follow_the_parts_further_in() -> None:
    spots = [Spot(rank % 2, rank % 4, rank % 2, rank, 1) for rank in range(8)]
    found = on_hosts(
        lambda comm: (comm.groups, everything(comm), comm.explain("all_reduce", 1 << 20)), "a" * 8, spots=spots
    )
    assert {groups for groups, _, _ in found} == {((0, 4, 2, 6), (1, 5, 3, 7))}
    links = {entry.name: entry.links for entry in found[0][2].candidates}
    assert links["ring"]["packages"] == links["ring"]["numa"] == links["ring"]["cores"] / 2  # two of eight steps each
    apart = on_hosts(lambda comm: comm.groups, "ab" * 4, spots=spots)
    assert set(apart) == {((0, 4, 2, 6), (1, 5, 3, 7))}


def test_where_nobody_is_bound_all_are_one_group() -> None:
    assert on_hosts(lambda comm: comm.groups, ["here"] * 3) == [((0, 1, 2),)] * 3
    spots = [Spot(-1, -1, -1, 0, 16)] * 3
    assert on_hosts(lambda comm: comm.groups, ["here"] * 3, spots=spots) == [((0, 1, 2),)] * 3


def test_groups_of_hosts_are_the_hosts() -> None:
    assert on_hosts(lambda comm: comm.groups, list("abab"), spots=PACKAGE * 2) == [((0, 2), (1, 3))] * 4
    assert on_hosts(lambda comm: comm.groups, list("aabb"), spots=PACKAGE * 2) == [((0, 1), (2, 3))] * 4


@settings(max_examples=15, deadline=None)
@given(st.lists(SPOTS | st.just(NOWHERE) | st.sampled_from(PACKAGE), min_size=2, max_size=6), st.booleans())
def test_all_ranks_decide_alike_whatever_each_finds(spots: list[Spot], apart: bool) -> None:
    hosts = ["a" if rank % 2 or not apart else "b" for rank in range(len(spots))]
    told = on_hosts(everything, hosts, spots=spots)
    assert len({world for world, _ in told}) == 1
    for rank in range(0, len(spots), 2):
        assert len({half for _, half in told[rank : rank + 2]}) == 1


def test_a_table_is_for_ranks_that_lie_alike() -> None:
    def of(layout: str) -> Table:
        return Table(Key("m", 4, layout, "shm"), {"all_reduce": (Step(None, "leaders"),)})

    def chosen(layout: str, spots: list[Spot]) -> list[str]:
        decided = Decisions(tables=(of(layout),), transports="shm")

        def body(comm: Communicator) -> str:
            comm.all_reduce(np.ones(9))
            return comm.explain("all_reduce", 1 << 10).chosen

        return on_hosts(body, ["here"] * 4, spots=spots, decisions=decided)

    assert chosen("4=1x4@2", IN_TURN) == ["leaders"] * 4
    assert chosen("4=2+2", IN_TURN) == chosen("4", IN_TURN) == ["direct"] * 4
    assert chosen("4", []) == ["leaders"] * 4


@pytest.mark.parametrize(
    ("hosts", "groups", "text"),
    [
        ("aaaa", ((0, 1, 2, 3),), "4"),
        ("aaaa", ((0, 1), (2, 3)), "4=2+2"),
        ("aabb", ((0, 1), (2, 3)), "2+2"),
    ],
)
def test_layouts_in_short(hosts: str, groups: tuple[tuple[int, ...], ...], text: str) -> None:
    assert tuning.layout_text(hosts, groups) == text


def test_what_is_over_groups_is_measured_where_there_are_some() -> None:
    def body(comm: Communicator) -> list[str]:
        return candidates(comm, comm.explain("all_reduce", 1 << 12))

    assert {"hierarchical", "leaders"} <= set(on_hosts(body, ["here"] * 4, spots=IN_TURN)[0])
    assert not {"hierarchical", "leaders"} & set(on_hosts(body, ["here"] * 4)[0])


def test_a_described_machine_is_reckoned_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLX_ALGO", raising=False)
    found = contest("all_reduce", 1 << 20, describe("2 packages x 4 cores"), described=True)
    links = {entry.name: entry.links for entry in found.candidates}
    assert links["hierarchical"]["packages"] < links["recursive_doubling"]["packages"]
