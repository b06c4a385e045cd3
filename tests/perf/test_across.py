"""Measuring between hosts: what a cable carries, and the comparison of libraries that take as long as they are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collx.perf import across
from collx.perf.hosts import Hosts
from collx.perf.link import rate
from collx.perf.rivals import Rival
from tests.perf.test_peers import fake


def test_a_cable_carries_no_more_than_it_is_held_to(two_hosts: Hosts) -> None:
    assert rate(two_hosts, 0.05) > 0
    with two_hosts.shaped(across.GIGABIT):
        assert rate(two_hosts, 0.2) < 1e9 / 8


@pytest.mark.usefixtures("two_hosts")  # which skips where there can be none
def test_the_whole_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def contestants(hosts: Hosts, ranks: int) -> list[Rival]:
        return [fake("collx"), fake("gloo", 4e-6), fake("openmpi", 1.25e-6)]

    monkeypatch.setattr(across, "contestants", contestants)
    monkeypatch.setattr(across, "SHAPED", 1 << 16)
    short = [
        "-e",
        "64",
        "-f",
        "4",
        "--congestion",
        "cubic",
        "--seconds",
        "0.01",
        "--shaped",
        "0.01",
        "--output",
        str(tmp_path / "tcp"),
    ]
    assert across.main(["--collectives", "all_reduce", "--each", "1", *short]) == 0
    text = (tmp_path / "tcp.md").read_text()
    for other, limit, found in (("gloo", 0.5, "0.250"), ("openmpi", 0.8, "0.800")):
        goal = f"2 ranks, collx / {other}: all five collectives to 64M, geometric mean"
        assert f"| {goal} | {limit} | {found} (2 points) |" in text
    assert "have cubic; " in text
    document = json.loads((tmp_path / "tcp.json").read_text())
    (shaped,) = document["shaped"]
    assert shaped["bound"] == pytest.approx((1 << 16) / shaped["rate"])
    assert set(shaped["seconds"]) == {"collx", "gloo", "openmpi"}


MISTAKES = {
    "a collective": (["--collectives", "scan"], "scan"),
    "no rank": (["--each", "0"], "--each 0"),
    "no number": (["--each", "x"], "--each x"),
    "a folder": (["--output", "/no/such/place/x"], "/no/such/place"),
}


@pytest.mark.parametrize(("argv", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert across.main(argv) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert streams.err.count("\n") == 1
