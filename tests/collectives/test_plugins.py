"""Algorithms of installed packages, by the entry point group `collx.algorithms`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from collx import Communicator, ScheduleError, plugins
from collx.planner import make_plan
from collx.request import Request
from collx.schedule import REGISTER
from collx.types import reduce_op
from collx.verify.own import own
from tests.collectives.numbers import same
from tests.collectives.test_own_schedules import star
from tests.ranks import ranks

STAR = "from collx import Recv, Schedule, Send\n" + inspect.getsource(star)
REGISTERS = """
from collx.schedule import algorithm

claims = dict(rounds=lambda size: 2 if size > 1 else 0, volume=lambda size: size - 1, wins="", source="")
algorithm("all_reduce", "acme-star", sizes=lambda size: size < 4, **claims)(star)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to install packages into; what they register and what was loaded is forgotten in the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    registered, modules = dict(REGISTER), set(sys.modules)
    yield tmp_path
    REGISTER.clear()
    REGISTER.update(registered)
    for module in set(sys.modules) - modules:
        del sys.modules[module]
    plugins.offered.cache_clear()
    own.cache_clear()


def install(folder: Path, package: str, source: str, **offers: str) -> None:
    """As pip leaves a package behind: a module and a dist-info folder with its entry points."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
    lines = [f"{name.replace('_', '-')} = {value}" for name, value in offers.items()]
    (info / "entry_points.txt").write_text("\n".join(["[collx.algorithms]", *lines, ""]))


def starred(comm: Communicator) -> None:
    x = np.arange(4.0) + comm.rank
    for _ in range(2):
        same(comm.all_reduce(x, algorithm="acme-star"), comm.all_reduce(x))


@pytest.mark.parametrize("value", ["acme:star", "acme"])
def test_an_algorithm_of_a_package_is_used_by_its_name(kind: str, packages: Path, value: str) -> None:
    install(packages, "acme", STAR + REGISTERS, acme_star=value)
    ranks(kind, 3, starred)


def request(name: str | None, collective: str = "all_reduce") -> Request:
    return Request(collective, (8,), np.dtype(np.float64), name, reduce_op("sum"))


def plan(name: str | None, collective: str = "all_reduce", size: int = 3) -> str:
    return make_plan(request(name, collective), 0, size, 1 << 16, 2)[0].algorithm


def test_what_is_registered_is_proved_too_and_its_claims_are_not_believed(packages: Path) -> None:
    false = REGISTERS.replace('source=""', 'source="", uniform=True')
    install(packages, "acme", STAR + false, acme_star="acme")
    assert plan("acme-star").startswith("acme-star@")
    with pytest.raises(ValueError, match="'acme-star' here: it does not take 5 ranks"):
        plan("acme-star", size=5)
    assert not own(REGISTER["all_reduce", "acme-star"], "all_reduce", 3, 0).uniform
    wrong = STAR.replace("for peer in others))\n", "for peer in others[1:]))\n")
    install(packages, "broken", wrong, bad="broken:star")
    with pytest.raises(ScheduleError, match="all_reduce by star on 3 ranks: rank 1, round 1: rank 0 has no Send"):
        plan("bad")


def test_nothing_of_a_package_is_chosen_unasked(packages: Path) -> None:
    install(packages, "acme", STAR + REGISTERS, acme_star="acme")
    unasked = plan(None)
    plan("acme-star")
    assert plan(None) == unasked
    assert not [entry for key, entry in REGISTER.items() if key[1] == "acme-star" and entry.shipped]


def test_nothing_is_loaded_before_its_name_is_used(packages: Path) -> None:
    install(packages, "acme", "raise SystemError('loaded')", acme_star="acme:star")
    plan("ring")
    with pytest.raises(ValueError, match="all_reduce has no algorithm 'acme-rats'"):
        plan("acme-rats")
    assert "acme" not in sys.modules


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        ("raise OSError('no\\nlicence')", "acme:star", "OSError: no licence"),
        (STAR, "acme:moon", "AttributeError: module 'acme' has no attribute 'moon'"),
        (STAR, "acmee:star", "ModuleNotFoundError: No module named 'acmee'"),
        (STAR, "acme", "LookupError: acme registers no algorithm of that name"),
        ("star = 5", "acme:star", "TypeError: acme:star is neither a function nor a module that registers, but 5"),
        (STAR + REGISTERS + "\nraise ValueError('late')", "acme", "ValueError: late"),
    ],
)
def test_a_broken_package_is_one_line_that_names_it(packages: Path, source: str, value: str, message: str) -> None:
    install(packages, "acme", source, acme_star=value)
    for _ in range(2):  # the second time as the first
        with pytest.raises(ValueError, match="cannot be loaded") as caught:
            plan("acme-star")
        assert str(caught.value) == f"algorithm 'acme-star' of package acme 2.5 cannot be loaded: {message}"


def test_two_packages_with_one_name_are_refused(packages: Path) -> None:
    install(packages, "acme", STAR, acme_star="acme:star")
    install(packages, "emca", STAR, acme_star="emca:star")
    with pytest.raises(ValueError, match=r"'acme-star' is offered by several packages: acme 2\.5, emca 2\.5; keep one"):
        plan("acme-star")


def test_a_package_may_serve_one_collective_only(packages: Path) -> None:
    install(packages, "acme", STAR + REGISTERS, acme_star="acme")
    assert plan("acme-star").startswith("acme-star@")
    with pytest.raises(ValueError, match="reduce has no algorithm 'acme-star'"):
        plan("acme-star", "reduce")
