"""Measuring between hosts: the hosts, and the comparison with contestants that take as long as they are told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from collx.perf import across
from collx.perf.hosts import ADDRESSES, GIGABIT, Hosts, two_hosts
from collx.perf.rivals import Rival
from tests import hosts as possible
from tests.perf.test_peers import fake


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if reason := possible.missing():
        pytest.skip(f"no second host: {reason}")
    with two_hosts(tmp_path) as found:
        yield found


def test_hosts_have_names_and_a_cable_of_their_own(hosts: Hosts) -> None:
    def on(host: int, *command: str) -> str:
        return subprocess.run([*hosts.inside(host), *command], capture_output=True, text=True, check=True).stdout

    assert [on(host, "uname", "-n").strip() for host in (0, 1)] == ["alpha", "beta"]
    assert on(0, str(hosts.agent), "-x", ADDRESSES[1], "uname", "-n") == "beta\n"
    assert subprocess.run([str(hosts.agent), "gamma", "true"], capture_output=True).returncode == 255


def test_a_cable_carries_no_more_than_it_is_held_to(hosts: Hosts) -> None:
    assert hosts.rate(0.05) > 0
    hosts.shape(GIGABIT)
    assert hosts.rate(0.2) < 1e9 / 8


def test_the_whole_comparison(hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "have cubic." in text
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
