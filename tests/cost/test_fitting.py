"""Links come out of what collectives take over them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collx.algorithms  # noqa: F401  (fills the register)
from collx.cost import GAMMA, estimate
from collx.cost.fitting import Observation, fit
from collx.schedule import REGISTER
from collx.topology import Link, Topology, describe

PROBES = [
    (REGISTER[collective, name], nbytes)
    for collective, name in (
        ("all_reduce", "direct"),
        ("all_reduce", "ring"),
        ("all_gather", "direct"),
        ("all_gather", "ring"),
        ("broadcast", "tree"),
    )
    for nbytes in (64, 1 << 14, 1 << 20)
]
TEXTS = st.sampled_from(["3 ranks", "4 ranks", "7 ranks", "2 hosts x 3 ranks"])
FACTORS = st.tuples(*[st.floats(0.5, 2.0)] * 3)  # each figure still shows beside the others


def observed(topology: Topology, gamma: float) -> list[Observation]:
    return [
        Observation(algorithm, nbytes, estimate(algorithm, topology.size, topology, nbytes, gamma=gamma).seconds)
        for algorithm, nbytes in PROBES
    ]


def other(link: Link, factors: tuple[float, float, float]) -> Link:
    alpha, beta, overhead = (figure * factor for figure, factor in zip(link[1:4], factors, strict=True))
    return link._replace(alpha=alpha, beta=beta, overhead=overhead)


@settings(max_examples=5, deadline=None)
@given(st.integers(3, 8), FACTORS, st.floats(1.0, 4.0))
def test_on_a_flat_network_the_figures_come_back(size: int, factors: tuple[float, float, float], factor: float) -> None:
    before = Link("net", 2e-6, 1e-9, 5e-7)
    link = other(before, factors)
    found = fit(Topology.flat(size, before), observed(Topology.flat(size, link), GAMMA * factor), prior=1e-6)
    assert found.gamma == pytest.approx(GAMMA * factor, rel=0.02)
    assert found.links["net"][1:4] == pytest.approx(link[1:4], rel=0.02)


@settings(max_examples=5, deadline=None)
@given(TEXTS, FACTORS)
def test_what_was_observed_is_predicted(text: str, factors: tuple[float, float, float]) -> None:
    shipped = describe(text)
    there = shipped.with_links({level.link.name: other(level.link, factors) for level in shipped.levels})
    seen = observed(there, GAMMA)
    found = fit(shipped, seen)
    told = observed(shipped.with_links(found.links), found.gamma)
    assert [each.seconds for each in told] == pytest.approx([each.seconds for each in seen], rel=0.35)


def test_what_nothing_tells_stays_as_it_was() -> None:
    topology = describe("2 hosts x 2 ranks")
    found = fit(topology, [])
    assert found.gamma == pytest.approx(GAMMA)
    assert all(found.links[level.link.name][1:4] == pytest.approx(level.link[1:4]) for level in topology.levels)
