"""Tuning tables: what is chosen by them, and that whatever lies in their folder harms nobody."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx import tuning
from collx.guide import Guide
from collx.request import Request
from collx.selector import choose
from collx.topology import Link
from collx.tuning import Key, Point, Step, Table, of_document, steps_of
from collx.types import reduce_op
from collx.wishes import may_choose, parse

KEY = Key("abc", 4, "4", "shm")
NAMES = may_choose("all_reduce")
TIMES = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 10**12), min_size=1)
SIZES = st.lists(st.integers(0, 1 << 40), min_size=1, max_size=8, unique=True).map(sorted)
POINTS = SIZES.flatmap(lambda sizes: st.tuples(*(st.builds(Point, st.just(at), TIMES) for at in sizes)))

SECONDS = st.floats(0.0, 1e3)


def table(points: tuple[Point, ...]) -> Table:
    return Table(KEY, {"all_reduce": steps_of(points)}, {"all_reduce": points})


@given(POINTS)
def test_what_is_chosen_where_it_was_measured_is_the_fastest_but_for_noise(points: tuple[Point, ...]) -> None:
    found = table(points)
    for point in points:
        name = found.chosen("all_reduce", point.nbytes)
        assert name is not None
        assert point.nanoseconds[name] <= min(point.nanoseconds.values()) * (1 + tuning.MARGIN)


@given(POINTS, st.dictionaries(st.text(max_size=9), st.tuples(SECONDS, SECONDS, SECONDS, st.booleans())), SECONDS)
def test_a_table_comes_back_from_its_file_as_it_was(
    points: tuple[Point, ...], links: dict[str, tuple[float, float, float, bool]], gamma: float
) -> None:
    found = replace(table(points), links={name: Link(name, *figures) for name, figures in links.items()}, gamma=gamma)
    assert of_document(json.loads(json.dumps(found.document()))) == found


@given(POINTS)
def test_steps_ascend_and_change_the_algorithm(points: tuple[Point, ...]) -> None:
    steps = steps_of(points)
    assert steps[-1].nbytes is None
    assert all(a.algorithm != b.algorithm for a, b in pairwise(steps))
    bounds = [step.nbytes for step in steps[:-1] if step.nbytes is not None]
    assert bounds == sorted(set(bounds))


def test_neighbours_within_noise_do_not_take_turns() -> None:
    close = [Point(1 << at, {"ring": 100 + at % 2 * 4, "pat": 104 - at % 2 * 4}) for at in range(10)]
    assert len(steps_of(close)) == 1


def test_what_was_chosen_before_stays_unless_another_gains() -> None:
    points = [Point(1 << at, {"ring": 104, "pat": 100, "direct": 130}) for at in range(4)]
    assert steps_of(points, ["ring"] * 4) == (Step(None, "ring"),)
    assert steps_of(points, ["direct"] * 4) == (Step(None, "pat"),)
    assert [step.algorithm for step in steps_of(points, ["ring", "ring", "pat", "direct"])] == ["ring", "pat"]


def test_between_two_sizes_the_lines_decide() -> None:
    points = (Point(1 << 10, {"ring": 400, "direct": 100}), Point(1 << 20, {"ring": 1000, "direct": 4000}))
    assert steps_of(points) == (Step(1 << 15, "direct"), Step(None, "ring"))


def test_a_change_that_stays_is_where_it_was() -> None:
    points = (Point(1 << 10, {"ring": 400, "direct": 100}), Point(1 << 20, {"ring": 1000, "direct": 4000}))
    assert steps_of(points, ["direct", "ring"], lambda low, high: 5000) == (Step(5000, "direct"), Step(None, "ring"))
    assert steps_of(points, ["direct", "pat"], lambda low, high: 5000)[0] == Step(1 << 15, "direct")


def request(nbytes: int, op: str = "sum") -> Request:
    return Request("all_reduce", (nbytes // 4,), np.dtype(np.float32), op=reduce_op(op))


def test_the_table_comes_after_the_wish_and_before_the_rules() -> None:
    found = Table(KEY, {"all_reduce": (Step(4096, "swing"), Step(None, "ring"))})

    def names(algo: str, nbytes: int, size: int = 4) -> tuple[str, str]:
        choice = choose(request(nbytes), size, 1 << 16, guide=Guide(parse(algo), found))
        return choice.name, choice.by

    assert names("", 4096) == ("swing", "measured")
    assert names("", 4100) == ("ring", "measured")
    assert names("", 64, size=3) == ("direct", "rule")  # no swing on three ranks
    assert names("^swing", 64) == ("direct", "rule")
    assert names("pat", 64) == ("pat", "COLLX_ALGO")
    assert names("pat,ring", 1 << 20) == ("ring", "measured")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tuning.folder()


def test_written_is_read(cache: Path) -> None:
    found = table((Point(8, {"ring": 5}),))
    path = tuning.write(found)
    assert path.parent == cache
    assert list(cache.iterdir()) == [path]
    assert tuning.read("abc") == ([found], [])
    assert tuning.read("abd") == ([], [])


def broken() -> dict[str, Any]:
    good: dict[str, Any] = json.loads(json.dumps(table((Point(8, {"ring": 5, "pat": 7}),)).document()))
    return {
        "nothing": "",
        "half": json.dumps(good)[:-9],
        "bytes": "\x00\xff",
        "list": [],
        "deep": "[" * 100_000,
        "format": good | {"collx tuning table": 1},
        "key": good | {"key": {}},
        "type": good | {"key": good["key"] | {"size": "4"}},
        "foreign": good | {"key": good["key"] | {"machine": "abd"}},
        "collective": good | {"steps": {"all_redcue": [[None, "ring"]]}},
        "algorithm": good | {"steps": {"all_reduce": [[None, "rng"]]}},
        "nan": json.dumps(good).replace("5", "NaN"),
        "negative": good | {"points": {"all_reduce": [[8, {"ring": -1}]]}},
        "row": good | {"steps": {"all_reduce": [[None, "ring", 1]]}},
        "unhashable": good | {"steps": {"all_reduce": [[None, ["ring"]]]}},
        "order": good | {"steps": {"all_reduce": [[9, "ring"], [8, "pat"], [None, "ring"]]}},
        "links": good | {"links": {}},
        "link": good | {"links": [["cores", 1e-6, 1e-9, 1e-7]]},
        "twice": good | {"links": [["cores", 1e-6, 1e-9, 1e-7, False]] * 2},
        "endless": json.dumps(good | {"links": [["cores", 1e-6, 1e-9, 1e-7, False]]}).replace("1e-09", "Infinity"),
        "backwards": good | {"links": [["cores", -1e-6, 1e-9, 1e-7, False]]},
        "gamma": good | {"gamma": "1e-10"},
        "open": good | {"steps": {"all_reduce": [[9, "ring"]]}},
        "huge": good | {"points": {"all_reduce": [[8, {"ring": 10**400}]]}},
        "below": good | {"points": {"all_reduce": [[-1, {"ring": 5}], [0, {"ring": 5}]]}},
        "points": good | {"points": {"all_reduce": [[9, {"ring": 5}], [8, {"ring": 5}]]}},
        "boundless": good | {"steps": {"all_reduce": [[1 << 63, "ring"], [None, "pat"]]}},
        "long": json.dumps(good) + " " * tuning.MOST,
    }


@pytest.mark.parametrize("kind", broken())
def test_what_is_no_table_is_named_and_ignored(kind: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    found = broken()[kind]
    (cache / KEY.file).write_text(found if isinstance(found, str) else json.dumps(found))
    tables, complaints = tuning.read("abc")
    assert tables == []
    assert len(complaints) == 1
    assert str(cache / KEY.file) in complaints[0]
    assert "\n" not in complaints[0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_keeps_nobody_waiting(make: Callable[[Path], None], cache: Path) -> None:
    cache.mkdir(parents=True)
    make(cache / KEY.file)
    tables, (complaint,) = tuning.read("abc")
    assert tables == []
    assert str(cache / KEY.file) in complaint
    assert tuning.kept(KEY) == Table(KEY)


def test_a_folder_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/" + "a" * 5000)
    assert tuning.any_kept()
    tables, (complaint,) = tuning.read("abc")
    assert tables == []
    assert "folder cannot be read" in complaint


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_table_with_other_bytes_in_it_is_one_or_none(noise: bytes, at: int) -> None:
    text = json.dumps(table((Point(8, {"ring": 5, "pat": 7}),)).document()).encode()
    with contextlib.suppress(ValueError, RecursionError):
        of_document(json.loads(text[:at] + noise + text[at + len(noise) :]))


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("a", "1"),
        ("aaaa", "4"),
        ("aabb", "2+2"),
        ("abab", "1x4@2"),
        ("aabbcc", "2x3"),
        ("aaab", "3+1"),
        ("aabbccd", "2x3+1"),
    ],
)
def test_hosts_in_short(hosts: str, text: str) -> None:
    assert tuning.hosts_text(hosts) == text


def test_however_ranks_lie_there_is_a_file_for_it(cache: Path) -> None:
    uneven = [f"host {number}" for number in range(200) for _ in range(1 + number % 3)]
    texts = {tuning.hosts_text(uneven[at:]) for at in range(20)}
    assert len(texts) == 20
    for text in texts:
        tuning.write(Table(KEY._replace(hosts=f"{text}={text}", transports="shm+tcp")))
    assert len(list(cache.iterdir())) == 20
