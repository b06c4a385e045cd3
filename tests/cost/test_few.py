"""A few ranks tell what all would."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collx.algorithms  # noqa: F401  (fills the register)
from collx.cost import GAMMA, Ports, contenders, estimate, predict
from collx.cost.few import _spread
from collx.cost.sample import Sample
from collx.schedule import REGISTER, Algorithm, Schedule
from collx.topology import Link, Topology, describe

KEYS = sorted(REGISTER)
FLAT = Link("net", 2e-6, 1e-9, 2e-7)
TEXTS = ["4 hosts x 8 gpus", "8 hosts x 3 ranks", "4 hosts x 2 packages x 4 ranks"]
# Chains pass each host once, and what rounds nobody looked at are like is a guess; to a root all come at once.
LOOSE = ("chain", "direct")


@pytest.mark.parametrize("key", KEYS, ids=":".join)
@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 32), nbytes=st.integers(1, 1 << 24))
def test_on_flat_networks_the_estimate_is_the_prediction(key: tuple[str, str], size: int, nbytes: int) -> None:
    algorithm, network = REGISTER[key], Topology.flat(size, FLAT)
    if not algorithm.sizes(size):
        return
    expected = predict(algorithm.build, size, network, nbytes)
    found = estimate(algorithm, size, network, nbytes, 1)
    if _all_alike(algorithm) or size <= 16:
        assert found.seconds == pytest.approx(expected.seconds)
        assert found.by_link == pytest.approx(expected.by_link, abs=1)
    else:
        assert found.seconds == pytest.approx(expected.seconds, rel=0.15)
    assert found.rounds == expected.rounds


def _all_alike(algorithm: Algorithm) -> bool:
    return algorithm.name in ("ring", "pat", "circulant", "bruck", "pairwise", "swing", "dissemination", "two_shot")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", KEYS, ids=":".join)
def test_one_group_tells_what_all_do(key: tuple[str, str], text: str) -> None:
    algorithm, topology = REGISTER[key], describe(text)
    if not algorithm.sizes(topology.size):
        return
    for nbytes in (64, 1 << 20):
        expected = predict(algorithm.build, topology.size, topology, nbytes)
        found = estimate(algorithm, topology.size, topology, nbytes, 1)
        assert found.rounds == expected.rounds
        assert found.seconds == pytest.approx(expected.seconds, rel=0.75 if algorithm.name in LOOSE else 0.03)


@pytest.mark.parametrize("text", ["12 packages x 8 cores", "24 packages x 8 cores", "500 hosts x 8 gpus"])
def test_where_groups_are_no_power_of_two_none_stands_for_the_others(text: str) -> None:
    leaders, topology = REGISTER["all_reduce", "leaders"], describe(text)
    found = estimate(leaders, topology.size, topology, 1 << 16, 1)
    if topology.size < 100:
        expected = predict(leaders.build, topology.size, topology, 1 << 16)
        assert found.seconds == pytest.approx(expected.seconds, rel=0.03)
    assert 0 < found.seconds < float("inf")


@pytest.mark.parametrize("collective", ["all_reduce", "reduce_scatter", "all_gather", "broadcast"])
def test_thousands_of_ranks_need_the_schedules_of_few(collective: str) -> None:
    topology = describe("512 hosts x 8 gpus")
    for algorithm in (REGISTER[key] for key in KEYS if key[0] == collective):
        built: list[int] = []

        def builder(
            rank: int, size: int, root: int = 0, built: list[int] = built, algorithm: Algorithm = algorithm
        ) -> Schedule:
            built.append(rank)
            return algorithm.build(rank, size, root)

        found = estimate(replace(algorithm, builder=builder), topology.size, topology, 64 << 20)
        assert 0 < found.seconds < float("inf")
        assert found.rounds == algorithm.rounds(topology.size)
        assert len(built) < 256


@pytest.mark.parametrize("text", ["200 hosts", "40 hosts x 6 ranks"])
@pytest.mark.parametrize("collective", ["all_reduce", "broadcast", "reduce", "scan"])
def test_of_trees_a_few_groups_tell_roughly(collective: str, text: str) -> None:
    topology = describe(text)
    for key in KEYS:
        if key[0] != collective or key[1] not in ("tree", "double_tree", "recursive_doubling", "doubling"):
            continue
        expected = predict(REGISTER[key].build, topology.size, topology, 1 << 16)
        weights = _spread(topology.size, 6 if "x" in text else 1)
        assert len(weights) < topology.size
        schedules = {rank: REGISTER[key].build(rank, topology.size) for rank in weights}
        found = Sample(schedules, weights, Ports(topology), expected.rounds)
        seconds = found.timed((1 << 16) / found.blocks, GAMMA).seconds
        assert expected.seconds / 1.5 < seconds < expected.seconds * 2.2


def test_cut_short_a_ring_takes_as_long() -> None:
    ring, topology = REGISTER["all_reduce", "ring"], describe("80 hosts x 2 gpus")
    for nbytes in (1 << 10, 1 << 28):
        expected = predict(ring.build, 160, topology, nbytes)
        found = estimate(ring, 160, topology, nbytes, 1)
        assert found.seconds == pytest.approx(expected.seconds, rel=0.01)
        assert found.by_link == pytest.approx(expected.by_link, rel=0.01)


def test_contenders_come_fastest_first_and_only_those_that_can() -> None:
    register = list(REGISTER.values())
    found = contenders("all_reduce", 1 << 20, describe("3 hosts x 2 ranks"), register)
    assert {algorithm.name for algorithm, _ in found} == {
        algorithm.name for algorithm in register if algorithm.collective == "all_reduce" and algorithm.sizes(6)
    }
    assert all(before.seconds <= after.seconds * 1.01 for (_, before), (_, after) in pairwise(found))


def test_of_contenders_that_take_as_long_the_first_given_wins() -> None:
    pair = [REGISTER["all_gather", name] for name in ("ring", "direct", "pat")]  # the same messages, on two ranks
    for order in (pair, pair[::-1]):
        found = contenders("all_gather", 1 << 16, Topology.flat(2, FLAT), order)
        assert [algorithm.name for algorithm, _ in found] == [algorithm.name for algorithm in order]


@settings(max_examples=30, deadline=None)
@given(nbytes=st.integers(0, 1 << 26), text=st.sampled_from(["8 ranks", "2 hosts x 2 ranks", "3 hosts x 2 packages"]))
def test_contenders_take_what_is_estimated(nbytes: int, text: str) -> None:
    topology = describe(text)
    for algorithm, found in contenders("all_reduce", nbytes, topology, list(REGISTER.values())):
        assert found.seconds == pytest.approx(estimate(algorithm, topology.size, topology, nbytes).seconds, rel=0.05)


def test_a_slow_network_is_crossed_by_as_few_bytes_as_can_be() -> None:
    network = describe("2 hosts x 4 ranks").with_links({"network": Link("network", 5e-5, 8e-9, 3e-6, shared=True)})
    by_name = {
        algorithm.name: found
        for algorithm, found in contenders("all_reduce", 1 << 24, network, list(REGISTER.values()))
    }
    assert by_name["ring"].seconds < by_name["circulant"].seconds < by_name["direct"].seconds
    assert by_name["ring"].by_link["network"] < by_name["circulant"].by_link["network"]


@pytest.mark.parametrize(
    ("collective", "name", "crossing"),
    [
        ("reduce_scatter", "ring", 16 * 511 / 512),
        ("reduce_scatter", "halving", 15),
        ("reduce_scatter", "pat", 55),
        ("reduce_scatter", "circulant", 490.65625),
        ("all_reduce", "swing", 71),
    ],
)
def test_circulant_crosses_hosts_thirty_times_as_much_as_ring(collective: str, name: str, crossing: float) -> None:
    found = estimate(REGISTER[collective, name], 512, describe("16 hosts x 32 ranks"), 1 << 20)
    assert found.by_link["network"] == pytest.approx(crossing * (1 << 20), rel=1e-6)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a topology of 4 ranks cannot price a collective of 5"):
        predict(REGISTER["all_reduce", "ring"].builder, 5, Topology.flat(4, FLAT), 8)
    with pytest.raises(ValueError, match="swing on 6 ranks cannot be priced"):
        estimate(REGISTER["all_reduce", "swing"], 6, Topology.flat(6, FLAT), 8)
