"""The measuring sticks: what they say must be believable, for others are judged by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collx.errors import CollxError
from collx.perf import compiled
from collx.perf.probe import FAR, MIXED, NEAR, Probe, joint, probe

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a probe goes between two cores, and there is one"
)


@needs_two_cores
def test_a_probe_gives_a_plausible_figure() -> None:
    before = os.sched_getaffinity(0)
    taken = probe(0.005)
    assert 1 < taken.low <= taken.nanoseconds <= taken.high  # no line travels in under a nanosecond
    assert taken.tag in (NEAR, FAR, MIXED)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("quartiles", "tag"),
    [((25, 26, 27), NEAR), ((150, 160, 180), FAR), ((26, 27, 170), MIXED), ((26, 150, 170), MIXED)],
)
def test_a_probe_is_tagged_by_its_quartiles(quartiles: tuple[float, float, float], tag: str) -> None:
    low, median, high = quartiles
    assert Probe(median, low, high).tag == tag


def test_what_lies_between_probes_that_disagree_is_mixed() -> None:
    near, far = Probe(26, 25, 27), Probe(160, 150, 170)
    assert joint(near, near) == NEAR
    assert joint(far, far, far) == FAR
    assert joint(near, far) == MIXED


def test_a_probe_between_cores_it_may_not_use_says_so() -> None:
    with pytest.raises(CollxError, match="100000"):
        probe(cores=(0, 100000))


def test_one_core_has_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    with pytest.raises(CollxError, match="core 3 only"):
        probe()


@needs_two_cores
def test_the_probe_is_a_program() -> None:
    command = [sys.executable, "-m", "collx.perf.probe", "--times", "2", "--every", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.split()[0] in (NEAR, FAR, MIXED) and "ns one way" in line for line in lines)


def test_what_cannot_be_built_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.26)\nmessage(FATAL_ERROR broken)\n")
    monkeypatch.setattr(compiled, "SOURCES", sources)
    monkeypatch.setattr(compiled, "BUILD", tmp_path / "build")
    with pytest.raises(CollxError, match="cannot build"):
        compiled.library.__wrapped__()
