"""Comparisons of libraries: taking turns, tags, ratios, goals, and what is said of a library that cannot take part.

The libraries are programs that take as long as they are told, so figures can be compared exactly.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collx.perf import comparison, goals, peers, picture, rivals, standing, versus
from collx.perf.contest import Call, Contest, Round
from collx.perf.options import UsageError
from collx.perf.rivals import JobFailed, Rival

FAKE = Path(__file__).with_name("fake_rival.py")
CALL = Call("all_reduce", 100, "float32", "sum", 0)


def fake(name: str, pace: float = 1e-6, digest: int = 1, dies_at: int = -1, contestant: str = "fake") -> Rival:
    def command(python: Path, size: int) -> list[str]:
        return [sys.executable, str(FAKE), str(size), str(digest), str(pace), str(dies_at)]

    return Rival(name, contestant, (), command)


def bracket(tags: Iterator[str]) -> Callable[[], str]:
    return lambda: next(tags)


def rounds_of(rivals: list[Rival], tags: Iterator[str] | None = None) -> tuple[list[Round], list[str]]:
    with Contest(rivals, 2, bracket(tags or repeat("NEAR"))) as contest:
        return contest.measure(CALL, seconds=0.01, nbytes=0)


def test_every_library_has_a_turn_in_every_round() -> None:
    rounds, differing = rounds_of([fake("collx"), fake("openmpi", 2e-6), fake("mpich", 4e-6)])
    figure = standing.figures(rounds)["NEAR"]
    assert len(rounds) >= 3
    assert differing == []
    assert figure["ratio"] == {"collx": {"openmpi": pytest.approx(0.5), "mpich": pytest.approx(0.25)}}
    assert standing.best_mpi(figure) == "openmpi"


def test_rounds_in_which_the_machine_moved_are_made_again() -> None:
    rounds, _ = rounds_of([fake("collx"), fake("openmpi")], chain(["NEAR", "FAR"] * 3, repeat("FAR")))
    assert [each.tag for each in rounds[:5]] == ["mixed"] * 5
    assert len([each for each in rounds if each.tag == "FAR"]) >= 3
    assert list(standing.figures(rounds)) == ["FAR"]


def test_a_machine_that_never_holds_still_is_said_to_be_mixed() -> None:
    rounds, _ = rounds_of([fake("collx"), fake("openmpi")], cycle(["NEAR", "FAR"]))
    assert list(standing.figures(rounds)) == ["mixed"]


def test_results_that_differ_are_named() -> None:
    assert rounds_of([fake("collx"), fake("openmpi"), fake("mpich", digest=2)])[1] == ["mpich"]


def test_who_does_not_start_is_told_and_the_others_go_on() -> None:
    with Contest([fake("collx"), fake("mpich", contestant="absent"), fake("openmpi")], 2, lambda: "?") as contest:
        assert list(contest.versions) == ["collx", "openmpi"]
        assert contest.absent == {"mpich": "mpich did not start: FakeError: there is no such library"}


def test_who_dies_leaves_and_the_point_is_measured_without_it() -> None:
    with Contest([fake("collx"), fake("mpich", dies_at=100), fake("openmpi")], 2, lambda: "?") as contest:
        rounds, _ = contest.measure(CALL, seconds=0.01, nbytes=0)
        assert set(rounds[0].seconds) == {"collx", "openmpi"}
        assert "FakeError: it is too much" in contest.absent["mpich"]


def test_without_collx_there_is_no_comparison() -> None:
    with pytest.raises(JobFailed, match="collx"), Contest([fake("collx", dies_at=100)], 2, lambda: "?") as contest:
        contest.measure(CALL, seconds=0.01, nbytes=0)


def test_what_does_not_fit_into_memory_is_said() -> None:
    with Contest([fake("collx")], 2, lambda: "?") as contest:
        assert contest.measure(CALL, seconds=0.01, nbytes=1 << 60) == ([], [])
    assert "memory" in comparison.row({"size": 8, "figures": {}, "differing": []}, ["collx"])


# -- figures -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
def test_means_of_ratios_do_not_depend_on_who_is_divided(values: list[float]) -> None:
    assert standing.mean(values) * standing.mean([1 / value for value in values]) == pytest.approx(1)
    assert min(values) <= standing.mean(values) * (1 + 1e-9)
    assert standing.mean(values) <= max(values) * (1 + 1e-9)


def point(tag: str = "NEAR", size: int = 8, collective: str = "all_reduce", **seconds: float) -> dict[str, Any]:
    named = {name.replace("_", "."): value for name, value in seconds.items()}
    found = standing.figures([Round(tag, named)] * 3)
    return {"ranks": 2, "collective": collective, "size": size, "differing": [], "figures": found}


def document(*points: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": {"cpu": "a", "cores": 2, "memory_gib": 1, "system": "b", "python": "c", "numpy": "d"},
        "revision": "abc", "load": 0.1,
        "started": "one", "ended": "two", "dtype": "float32", "op": "sum", "seconds": 1.0,
        "versions": {"collx": "collx 1", "openmpi": "Open MPI 5", "mpich": "MPICH 5"},
        "absent": {"2": {"gloo": "gloo did not start: no"}}, "idle": {"2": {"collx": 0.001}}, "points": list(points),
    }  # fmt: skip


def outcome(*points: dict[str, Any], other: str = "openmpi", what: str = "mean") -> goals.Outcome:
    (found,) = (
        each
        for each in goals.outcomes(document(*points))
        if (each.goal.other, each.goal.what, each.goal.collectives) == (other, what, goals.EVERY)
    )
    return found


def test_the_best_mpi_is_the_best_at_that_point() -> None:
    points = [point(collx=1.0, openmpi=2.0, mpich=4.0, gloo=0.5), point(collx=1.0, openmpi=8.0, mpich=5.0, gloo=0.5)]
    assert standing.ratios(points, "collx", standing.BEST) == [0.5, 0.2]
    assert outcome(*points, other=standing.BEST, what="worst").found[""] == (0.5, 2)


def test_a_goal_holds_near_and_far() -> None:
    near, far = point("NEAR", collx=1.0, openmpi=5.0), point("FAR", collx=1.0, openmpi=1.0)
    assert outcome(near, near).verdict == "reached, NEAR only"
    assert outcome(near, point("FAR", collx=1.0, openmpi=4.0)).verdict == "reached"
    assert outcome(point("mixed", collx=1.0, openmpi=5.0)).verdict == "reached, untagged"
    assert outcome(near, near, near, far).found[""][0] == pytest.approx(5**-0.75)
    assert outcome(near, near, near, far).verdict == "NOT REACHED"


def test_a_goal_nobody_measured_is_not_reached() -> None:
    assert outcome(point(collx=1.0, mpich=5.0)).verdict == "not measured"


def test_the_page_says_who_is_missing_and_what_is_not_reached() -> None:
    page = comparison.markdown(
        document(point(collx=1e-6, openmpi=1e-6), point("mixed", 65536, collx=1e-5, openmpi=1.0))
    )
    assert "With 2 ranks, without gloo did not start: no." in page
    assert (
        "| 2 ranks, collx / openmpi: all_reduce of 8 | 0.25 | 1.000 (1 point) | 1.000 (1 point) | - | NOT REACHED |"
        in page
    )
    assert "| 64K | mixed | 10 us | 1 s |" in page
    assert "| worst | 1.00 (all_reduce 8) |" in page


def test_every_goal_has_words_of_its_own() -> None:
    texts = [comparison.goal_text(goal) for goal in goals.GOALS]
    assert len(set(texts)) == len(texts)


def test_the_picture_shows_times_in_times_of_collx_s(tmp_path: Path) -> None:
    points = [point(collx=1.0, openmpi=4.0), point(size=64, collx=1.0, mpich=2.0)]
    assert picture.speeds(points, "openmpi") == ([8], [4.0])
    assert picture.speeds(points, "collx") == ([8, 64], [1.0, 1.0])
    picture.draw(document(*points), 2, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, pace in {"collx": 1e-6, "collx.empty": 1e-6, "openmpi": 2e-6, "gloo": 9e-6}.items():
        monkeypatch.setitem(rivals.RIVALS, name, fake(name, pace))
    monkeypatch.setitem(rivals.RIVALS, "mpich", fake("mpich", contestant="absent"))


@pytest.mark.usefixtures("fakes")
def test_the_whole_comparison_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-n", "2,3", "-e", "64", "-f", "4", "--seconds", "0.01", "--vs", "openmpi,mpich,gloo"]
    assert peers.main([*command, "--output", str(tmp_path / "x")]) == 0
    streams = capsys.readouterr()
    assert streams.out.count("# without mpich did not start: FakeError: there is no such library\n") == 2
    assert streams.err == ""
    written = json.loads((tmp_path / "x.json").read_text())
    assert {each["collective"] for each in written["points"]} == set(goals.EVERY)
    assert {each["size"] for each in written["points"] if each["ranks"] == 2} == {8, 32}
    assert {name for each in written["points"] for f in each["figures"].values() for name in f["seconds"]} == {
        "collx", "collx.empty", "openmpi", "gloo",
    }  # fmt: skip
    assert "NOT REACHED" in (tmp_path / "x.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", "x.md", "x-2.png", "x-3.png"}


@pytest.mark.usefixtures("fakes")
def test_a_comparison_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def piece(collective: str, tag: str) -> int:
        monkeypatch.setattr(peers, "bracketing", lambda say: lambda: tag)
        more = ["--seconds", "0.01", "--vs", "openmpi", "--output", str(tmp_path / "x"), "--add"]
        return peers.main(["-n", "2", "-e", "8", "--collectives", collective, *more])

    assert [piece("broadcast", "NEAR"), piece("all_reduce", "NEAR"), piece("broadcast", "FAR")] == [0, 0, 0]
    points = json.loads((tmp_path / "x.json").read_text())["points"]
    assert [(each["collective"], sorted(each["figures"])) for each in points] == [
        ("all_reduce", ["NEAR"]),
        ("broadcast", ["FAR", "NEAR"]),
    ]


@pytest.mark.usefixtures("fakes")
def test_figures_of_other_code_are_not_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-n", "2", "-e", "8", "--seconds", "0.01", "--vs", "openmpi", "--output", str(tmp_path / "x"), "--add"]
    assert peers.main(command) == 0
    monkeypatch.setattr(versus, "revision", lambda: "another")
    assert peers.main(command) == 2
    assert "another" in capsys.readouterr().err


MISTAKES = {
    "a collective": (["--collectives", "all_redcue"], "all_redcue"),
    "what others have not": (["--collectives", "barrier"], "barrier"),
    "a library": (["--vs", "mpcih"], "mpich"),
    "a range": (["-b", "8", "-e", "4"], "-b"),
    "ranks": (["-n", "2,x"], "2,x"),
    "one rank": (["-n", "1"], "-n 1"),
    "seconds": (["--seconds", "0"], "--seconds"),
    "a folder": (["--output", "/no/such/place/x"], "/no/such/place"),
    "adding to nothing": (["--add"], "--output"),
}


@pytest.mark.parametrize(("argv", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(argv) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert streams.err.count("\n") == 1


def test_groups_of_libraries() -> None:
    assert peers.rivals_named("mpi") == ("openmpi", "mpich", "intelmpi")
    assert peers.rivals_named("gloo,all") == ("gloo", "openmpi", "mpich", "intelmpi")
    with pytest.raises(UsageError, match="collx"):
        peers.rivals_named("collx")


def test_without_a_probe_there_are_no_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise JobFailed(fake("x"), "has one core only")

    said: list[str] = []
    monkeypatch.setattr(versus, "probe", none)
    assert versus.bracketing(said.append)() == "?"
    assert "one core only" in said[0]


def test_the_default_has_the_sizes_of_the_goals() -> None:
    plan, _, _ = peers.plan_of([])
    sizes = [size for call, size in plan.calls(2) if call.collective == "broadcast"]
    assert sizes == [1 << power for power in range(3, 29)]
    assert max(size for _, size in plan.calls(8)) == 64 << 20
    quick, _, _ = peers.plan_of(["--quick"])
    assert {8, 64 << 10, 64 << 20} <= {size for _, size in quick.calls(2)}
