"""What textbooks and papers reckon by hand, reckoned from schedules."""

from __future__ import annotations

from fractions import Fraction
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collx.algorithms  # noqa: F401  (fills the register)
from collx.cost import Port, loads, predict
from collx.schedule import REGISTER, Builder, Send
from collx.topology import Level, Link, Topology

ALPHA, BETA, GAMMA = 2e-6, 1e-9, 3e-10
FLAT = Link("net", ALPHA, BETA, 0.0)
SIZES = st.integers(2, 24)
POWERS = st.sampled_from([2, 4, 8, 16])
BYTES = st.integers(0, 1 << 30)


def exactly(seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-9)


def builder(collective: str, name: str) -> Builder:
    return REGISTER[collective, name].builder


def flat(collective: str, name: str, size: int, nbytes: float, segments: int = 1, link: Link = FLAT) -> float:
    network = Topology.flat(size, link)
    return predict(builder(collective, name), size, network, nbytes, segments, gamma=GAMMA).seconds


@settings(max_examples=20, deadline=None)
@given(SIZES, BYTES)
def test_ring(size: int, nbytes: int) -> None:
    block = nbytes / size
    expected = 2 * (size - 1) * (ALPHA + block * BETA) + (size - 1) * block * GAMMA
    assert flat("all_reduce", "ring", size, nbytes) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(POWERS, BYTES)
def test_recursive_doubling(size: int, nbytes: int) -> None:
    expected = log2(size) * (ALPHA + nbytes * (BETA + GAMMA))
    assert flat("all_reduce", "recursive_doubling", size, nbytes) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(POWERS, BYTES)
def test_halving_doubling(size: int, nbytes: int) -> None:
    sent = nbytes * (size - 1) / size
    expected = 2 * log2(size) * ALPHA + 2 * sent * BETA + sent * GAMMA
    assert flat("all_reduce", "halving_doubling", size, nbytes) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(SIZES, BYTES)
def test_pat_takes_logarithmic_rounds_and_the_fewest_bytes_on_any_size(size: int, nbytes: int) -> None:
    rounds, sent = (size - 1).bit_length(), nbytes * (size - 1) / size
    expected = 2 * rounds * ALPHA + 2 * sent * BETA + sent * GAMMA
    assert flat("all_reduce", "pat", size, nbytes) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(POWERS, BYTES)
def test_binomial_tree(size: int, nbytes: int) -> None:
    expected = log2(size) * (ALPHA + nbytes * BETA)
    assert flat("broadcast", "tree", size, nbytes) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(SIZES, BYTES, st.integers(1, 50))
def test_segments_follow_each_other_down_a_chain(size: int, nbytes: int, segments: int) -> None:
    segment = nbytes / segments
    expected = (size - 1) * (ALPHA + segment * BETA) + (segments - 1) * segment * BETA
    assert flat("broadcast", "chain", size, nbytes, segments) == exactly(expected)


@settings(max_examples=20, deadline=None)
@given(SIZES, BYTES)
def test_overhead_is_the_sender_s_and_the_receiver_s(size: int, nbytes: int) -> None:
    """LogP: a short message takes o + L + o."""
    overhead = 5e-7
    slow = flat("all_gather", "ring", size, nbytes, link=FLAT._replace(overhead=overhead))
    assert slow == exactly(flat("all_gather", "ring", size, nbytes) + (size - 1) * 2 * overhead)


@settings(max_examples=20, deadline=None)
@given(SIZES, BYTES)
def test_what_is_sent_to_all_is_written_once_into_memory_and_read_by_each(size: int, nbytes: int) -> None:
    assert flat("broadcast", "direct", size, nbytes) == exactly(ALPHA + nbytes * BETA)
    shared = flat("broadcast", "direct", size, nbytes, link=FLAT._replace(shared=True))
    assert shared == exactly(ALPHA + (size - 1) * nbytes * BETA)


@pytest.mark.parametrize("key", sorted(REGISTER), ids=":".join)
@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_rounds_and_bytes_are_those_of_the_register(key: tuple[str, str], size: int) -> None:
    algorithm = REGISTER[key]
    if algorithm.sizes(size):
        found = predict(algorithm.build, size, Topology.flat(size, FLAT), 1 << 20)
        assert found.rounds == algorithm.rounds(size)
        assert sum(found.by_link.values()) <= size * algorithm.volume(size) * (1 << 20) + 1


def test_recursive_doubling_suffers_where_a_tree_tapers_and_ring_does_not() -> None:
    """Two racks of 8 hosts, and 4 times less bandwidth between the racks than the hosts have: a fourfold time for what
    all hosts send out of the rack at once."""
    rack, nbytes = 8, 1e8
    nic = FLAT._replace(shared=True)
    levels = (Level("racks", Link("spine", ALPHA, BETA * 4 / rack, 0.0, shared=True)), Level("hosts", nic))
    tree = Topology(levels, tuple((at // rack, at % rack) for at in range(2 * rack)))

    def seconds(name: str, network: Topology) -> float:
        return predict(builder("all_reduce", name), 2 * rack, network, nbytes, gamma=0.0).seconds

    assert seconds("ring", tree) == exactly(seconds("ring", Topology.flat(2 * rack, FLAT)))
    near, far = 3 * (ALPHA + nbytes * BETA), ALPHA + 4 * nbytes * BETA
    assert seconds("recursive_doubling", tree) == exactly(near + far)


SIDE = 64


def _around(a: int, b: int) -> list[tuple[Port, Fraction]]:
    """The links of the shortest way from a to b around a ring of SIDE; where there are two, half takes each."""
    ahead = (b - a) % SIDE
    right = [((a + step) % SIDE, "right") for step in range(ahead)]
    left = [((a - step) % SIDE, "left") for step in range(SIDE - ahead)]
    ways = [way for way in (right, left) if len(way) == min(len(right), len(left))]
    return [(port, Fraction(1, len(ways))) for way in ways for port in way]


def _link_load(name: str, turns: tuple[int, int]) -> float:
    """The most that a link of a SIDE x SIDE torus carries, over the least that is possible.

    As De Sensi et al. have it, each quarter of the buffer has a schedule of its own, two beginning along the
    rows and two along the columns, of which `turns` says which is mirrored. One row tells the load of all. Its
    k-th round carries 1/2, and for the two that began along the columns 1/4, of what was left 2k rounds into it.
    """
    total, build = Fraction(0), builder("all_reduce", name)
    for step in range(SIDE.bit_length() - 1):
        messages = []
        for turn in turns:
            for place in range(SIDE):
                (to,) = [op.to for op in build(turn * place % SIDE, SIDE).rounds[step] if isinstance(op, Send)]
                messages.append((place, turn * to % SIDE, Fraction(3, 4) / 4**step))
        total += max(loads(messages, _around).values())
    return float(total / (1 - Fraction(1, SIDE**2)))


def test_swing_loads_the_links_of_a_torus_less_than_recursive_doubling() -> None:
    """De Sensi, Bonato, Saam, Hoefler: Swing (NSDI 2024). 1.185 and 2.930 times the least on this torus; 1.2 and 3 on
    one without end. Recursive doubling is its own mirror."""
    distances = [1, 1, 3, 5, 11, 21]
    swing = sum(Fraction(3, 4) * distance / 4**step for step, distance in enumerate(distances))
    assert _link_load("swing", (1, -1)) == exactly(float(swing / (1 - Fraction(1, SIDE**2))))
    assert round(_link_load("swing", (1, -1)), 3) == 1.185
    assert round(_link_load("recursive_doubling", (1, 1)), 3) == 2.930
