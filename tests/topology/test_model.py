"""The model of who sits where, and the short text that describes it."""

import re
import subprocess
import sys
from itertools import combinations, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.topology import DEFAULT_LINKS, Level, Link, Topology, describe

FAST, SLOW = Link("fast", 1e-7, 1e-10, 0), Link("slow", 1e-5, 1e-9, 1e-6, shared=True)
WORDS = st.lists(
    st.sampled_from(["racks", "hosts", "packages", "numa", "l3", "cores", "gpus", "ranks"]),
    unique=True,
    min_size=1,
    max_size=4,
)


@st.composite
def texts(draw: st.DrawFn) -> list[tuple[int, str]]:
    names = sorted(draw(WORDS), key=list(DEFAULT_LINKS).index)
    return [(draw(st.integers(1, 4)), name) for name in names]


@given(texts())
def test_a_text_says_how_many_and_who_is_together(parts: list[tuple[int, str]]) -> None:
    topology = describe(" x ".join(f"{count} {name}" for count, name in parts))
    size = 1
    for count, name in parts:
        size *= count
        if count > 1:
            together = topology.groups(name)
            assert len(together) == size
            assert [rank for group in together for rank in group] == list(range(topology.size))
    assert topology.size == size
    assert [level.name for level in topology.levels] == [name for count, name in parts if count > 1]


@given(texts())
def test_a_pair_is_joined_by_the_outermost_level_that_parts_it(parts: list[tuple[int, str]]) -> None:
    topology = describe(" x ".join(f"{count} {name}" for count, name in parts))
    for a, b in islice(combinations(range(topology.size), 2), 200):
        link = next(
            level.link for level in topology.levels if not any(a in g and b in g for g in topology.groups(level.name))
        )
        assert topology.between(a, b) == topology.between(b, a) == link


def test_a_rank_order_that_goes_around_the_hosts() -> None:
    topology = Topology((Level("hosts", SLOW), Level("cores", FAST)), tuple((r % 2, r // 2) for r in range(4)))
    assert topology.groups("hosts") == ((0, 2), (1, 3))
    assert (topology.between(0, 1), topology.between(0, 2)) == (SLOW, FAST)


def test_spellings_of_one_text() -> None:
    plain = describe("4 hosts x 2 packages x 8 ranks")
    assert plain == describe("4 Host \u00d7 2 package x 8 rank") == describe(" 4hosts, 2 packages, 8 ranks ")
    assert [level.link.name for level in plain.levels] == ["network", "packages", "cores"]
    assert describe("512 hosts x 8 gpus").size == 4096


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no number and name"),
        ("hosts", "'hosts' is no number and name"),
        ("4 hosts x 8", "'8' is no number and name"),
        ("4 host x 2 sockets", "no level 'sockets'"),
        ("2 packages x 4 hosts", "packages cannot have hosts; the order is racks, hosts, packages"),
        ("2 hosts x 2 hosts", "hosts cannot have hosts"),
        ("0 hosts x 8 ranks", "'0 hosts' leaves no ranks"),
        ("999999 hosts x 999999 gpus", "are more than 1048576"),
    ],
)
def test_a_text_that_says_nothing_is_told_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        describe(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_flat(size: int) -> None:
    topology = Topology.flat(size, SLOW)
    assert topology.size == size
    assert all(topology.between(a, b) == SLOW for a, b in combinations(range(size), 2))


@given(texts())
def test_one_rank_tells_another(parts: list[tuple[int, str]]) -> None:
    topology = describe(" x ".join(f"{count} {name}" for count, name in parts))
    heard = Topology.from_json(topology.to_json())
    assert heard == topology
    assert heard.fingerprint() == topology.fingerprint()


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"levels": [["a", 1]], "places": [[0]], "make": ""}'])
def test_what_is_no_topology_is_not_heard(text: str) -> None:
    with pytest.raises(ValueError, match="no topology"):
        Topology.from_json(text)


def test_no_two_ranks_at_one_place() -> None:
    with pytest.raises(ValueError, match="rank 0 shares its path"):
        Topology((Level("cores", FAST),), ((0,), (0,)))
    with pytest.raises(ValueError, match=r"rank 1's path \(\) has not one number"):
        Topology((Level("cores", FAST),), ((0,), ()))
    with pytest.raises(ValueError, match="at least one rank"):
        Topology((), ())


def test_questions_without_an_answer() -> None:
    topology = describe("2 hosts x 4 ranks")
    with pytest.raises(KeyError, match="there are hosts, ranks"):
        topology.groups("l3")
    with pytest.raises(ValueError, match="rank 3 to itself"):
        topology.between(3, 3)


def test_a_fingerprint_tells_what_decides_and_no_more() -> None:
    topology = describe("2 hosts x 4 ranks")
    measured = topology.with_links({"network": Link("network", 1e-3, 1e-9, 0, shared=True)})
    assert measured.between(0, 4).alpha == 1e-3
    assert measured.between(0, 1) == topology.between(0, 1)
    assert measured.fingerprint() == topology.fingerprint()
    others = [describe("4 hosts x 2 ranks"), describe("2 packages x 4 ranks"), describe("2 hosts x 4 gpus")]
    others.append(Topology(topology.levels, topology.places, "another make"))
    others.append(Topology(topology.levels, topology.places[::-1]))
    assert len({each.fingerprint() for each in [topology, *others]}) == 1 + len(others)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    program = "from collx.topology import describe; print(describe('2 hosts x 4 ranks').fingerprint())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == describe("2 hosts x 4 ranks").fingerprint()
