"""What it costs to leave the choice to the selector: how it is figured, and the whole measurement in small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.perf import outlay
from collx.perf.regret import Job, main, regret
from collx.perf.rounds import sizes

times = st.floats(1e-6, 1.0)


@given(st.lists(times, min_size=2, max_size=20), st.floats(1.0, 9.0))
def test_what_drifts_befalls_all_candidates(drift: list[float], factor: float) -> None:
    rounds = {"chosen": [factor * one for one in drift], "best": drift, "worse": [20 * one for one in drift]}
    assert math.isclose(regret(rounds, "chosen"), factor)
    assert math.isclose(regret(rounds, "best"), 1.0)


@given(st.lists(times, min_size=4, max_size=20))
def test_who_seems_best_by_luck_in_half_of_the_rounds_is_none_the_better(noise: list[float]) -> None:
    lucky = [one / 2 if number % 2 else one * 2 for number, one in enumerate(noise)]
    assert regret({"chosen": noise, "lucky": lucky}, "chosen") < 1


def test_sizes_reach_the_largest() -> None:
    assert sizes(100) == [8, 32, 100]
    assert sizes(64 << 20)[-2:] == [32 << 20, 64 << 20]


def point(job: str, after: float, before: float) -> outlay.Point:
    return {
        "job": job,
        "collective": "broadcast",
        "size": 1024,
        "rounds": 4,
        "seconds": {"tree": 2e-6, "direct": 1e-6},
        "after": {"choice": "tree", "regret": after},
        "before": {"choice": "direct", "regret": before},
    }


def test_goals_are_judged_over_all_points() -> None:
    points = [point("2", 1.0, 1.0)] * 19 + [point("2x2", 1.4, 1.6)]
    text = "\n".join(outlay.summary(points))
    assert "| 2x2 | 1 | 0% | 100% | 1.40 (broadcast 1K, tree) | 0% | 1.60 (broadcast 1K, direct) |" in text
    assert text.count(": reached") == 3
    assert "NOT REACHED, 90.0%" in "\n".join(outlay.summary(points[10:]))
    assert "| 2x2, broadcast 1K | after | tree 2 us | direct 1 us | 1.40 | 4 |" in outlay.beyond(points)


def test_the_whole_measurement(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--collectives", "all_gather", "-e", "32", "--seconds", "0.01", "--tune-seconds", "0.01"]
    assert main(["2", *words, "--output", str(tmp_path / "regret")]) == 0
    assert "| 2 | 2 |" in capfd.readouterr().out
    document = json.loads((tmp_path / "regret.json").read_text())
    for found in document["points"]:
        assert {found["after"]["choice"], found["before"]["choice"]} <= found["seconds"].keys()
    assert "## all_gather, 2" in (tmp_path / "regret.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1"], "'1' is no job"),
        (["4@1gbit"], "'4@1gbit' is no job"),
        (["--collectives", "scan"], "scan not measured"),
        (["2", "--seconds", "0"], "must be above 0"),
        (["2", "--tune-seconds", "nan"], "must be above 0"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_words_for_jobs() -> None:
    assert [Job.of(word) for word in ("4", "2x2", "2x2@1gbit")] == [(1, 4, ""), (2, 2, ""), (2, 2, "1gbit")]
