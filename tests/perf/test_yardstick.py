"""The measuring sticks: what they say must be believable, for others are judged by it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collx import Communicator, spawn
from collx.errors import CollxError
from collx.perf import bounds, compiled, yardstick
from collx.perf.handwritten import Memory, choices
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


COUNTS = [1, 14, 15, 1000, 4096, 4097, 20_001, 300_007, 2_500_000]
TRIED: list[dict[str, int]] = [
    {},
    {"bypass_stage": 1, "bypass_gather": 1, "bypass_out": 0},
    {"twins": 1, "copy": 1, "chunk": 16 << 10},
    {"one_shot": 8 << 20, "one_shot_chunk": 16 << 10, "bypass_stage": 1},
    {"one_shot": 0, "pieces": 1, "chunk": 1 << 20, "ahead": 3, "fence": 0, "copy": 2},
]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_handwritten_all_reduce_is_right(size: int) -> None:
    memory = Memory(size)
    shared = np.frombuffer(mmap.mmap(-1, 2 * size * max(COUNTS) * 4), np.float32).reshape(2, size, -1)

    def rank(comm: Communicator) -> list[str]:
        hand = memory.join(comm.rank, choices(crowded=True))
        mistakes = []
        for tried in TRIED:
            comm.barrier()
            hand.choose(choices(crowded=True, **tried))
            for count in COUNTS:
                expected = (size * (np.arange(count) % 7) + sum(range(size))).astype(np.float32)
                x, out = shared[0, comm.rank, :count], np.empty(count + 1, np.float32)[1:]
                x[:] = np.arange(count) % 7 + comm.rank
                hand.all_reduce(x, out, times=3)
                if not np.array_equal(out, expected):
                    mistakes.append(f"all_reduce of {count} with {tried}")
                landed = shared[1, comm.rank, :count]
                hand.zero_copy(x, landed, times=2)
                if not np.array_equal(landed, expected):
                    mistakes.append(f"zero copy of {count} with {tried}")
        comm.barrier()
        hand.close()
        return mistakes

    assert spawn(rank, size) == [[]] * size


@needs_two_cores
@pytest.mark.parametrize(
    "command", [["bounds", "--sizes", "64K"], ["yardstick", "-n", "2,3", "--sizes", "8,64K"]], ids=lambda c: c[0]
)
def test_a_stick_prints_a_line_per_size_and_tag(command: list[str]) -> None:
    program = [sys.executable, "-m", f"collx.perf.{command[0]}", *command[1:], "--rounds", "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 1 + (1 if command[0] == "bounds" else 4)  # one round has one tag
    assert all(float(line[-1]) > 0 for line in lines[1:])


@pytest.mark.parametrize("module", [bounds, yardstick])
@pytest.mark.parametrize("mistake", [["--rounds", "0"], ["--sizes", "8X"], ["-n", "x"]], ids=lambda m: m[0])
def test_a_stick_s_mistake_is_one_line(module: Any, mistake: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(mistake) == 2
    assert capsys.readouterr().err.count("\n") == 1
