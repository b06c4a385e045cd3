"""What is explained is what is chosen, and every candidate is there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collx.collectives import COLLECTIVES
from collx.explain import explain, typical
from collx.explaining import contest
from collx.guide import Guide
from collx.selector import choose
from collx.topology import DEFAULT_LINKS, describe
from collx.tuning import Key, Point, Table, steps_of
from collx.wishes import may_choose, parse
from tests.jobs import finished
from tests.perf.test_tune import command

ROOM = 1 << 16


@settings(max_examples=40)
@given(st.sampled_from(sorted(COLLECTIVES)), st.integers(0, 1 << 30), st.integers(1, 17))
def test_the_choice_is_the_selectors_and_nobody_is_left_out(collective: str, nbytes: int, size: int) -> None:
    found = explain(collective, nbytes, size, ROOM)
    assert found.chosen == choose(typical(collective, nbytes, size), size, ROOM).name
    assert sorted(entry.name for entry in found.candidates) == sorted(may_choose(collective))
    assert found.candidates[0].name == found.chosen
    assert all(entry.name in str(found) for entry in found.candidates)


def test_a_table_shows_what_was_measured_and_decides() -> None:
    points = (Point(1 << 10, {"ring": 4000, "pat": 1000}), Point(1 << 20, {"ring": 4000, "direct": 9000}))
    table = Table(Key("m", 4, "4", "shm"), {"all_reduce": steps_of(points)}, {"all_reduce": points})
    found = explain("all_reduce", 1 << 15, 4, ROOM, guide=Guide(table=table))
    measured = {entry.name: entry.measured for entry in found.candidates}
    assert measured["ring"] == pytest.approx(4e-6)
    assert measured["pat"] is measured["swing"] is None
    assert (found.chosen, found.why) == ("pat", "measured to be the fastest")


def test_a_table_knows_the_links() -> None:
    slow = DEFAULT_LINKS["cores"]._replace(alpha=1.0)
    guide = Guide(table=Table(Key("m", 4, "4", "shm"), links={"cores": slow}, gamma=1e-9))

    def predicted(predicts: bool) -> list[float]:
        found = explain("all_reduce", 1 << 10, 4, ROOM, guide=guide, topology=describe("4 ranks"), predicts=predicts)
        return [entry.predicted for entry in found.candidates if entry.predicted is not None]

    assert min(predicted(predicts=False)) > 1
    assert max(predicted(predicts=True)) < 1  # of another machine it knows nothing


def test_a_wish_is_named() -> None:
    found = explain("all_reduce", 1024, 4, ROOM, guide=Guide(parse("all_reduce:ring,pat")))
    assert found.why == "as COLLX_ALGO says, ring,pat"


def test_where_nobody_has_measured_the_cost_model_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLX_ALGO", raising=False)
    found = contest("all_reduce", 64 << 20, describe("64 hosts x 8 gpus"), described=True)
    assert "predicted to be the fastest" in found.why
    assert found.candidates[0].predicted == min(entry.predicted for entry in found.candidates if entry.predicted)
    assert set(found.candidates[0].links) == {"nvlink", "network"}


def test_the_command_prints_the_contest() -> None:
    told = finished(command("explain", "all_reduce", "1M", "-n", 4))
    assert told.returncode == 0, told.stderr
    first, head, chosen, *_ = told.stdout.splitlines()
    assert first.startswith("all_reduce of 1 MiB on 4 ranks: ")
    assert head.split()[:5] == ["algorithm", "predicted", "measured", "rounds", "sent"]
    assert chosen.startswith("*")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("all_redcue", "1M"), "unknown collective 'all_redcue': did you mean all_reduce"),
        (("all_reduce", "large"), "'large' is not a size"),
        (("all_reduce", "1M", "-n", 0), "-n 0: there is at least one rank"),
        (("all_reduce", "1M", "--topology", "rubbish"), "topology 'rubbish'"),
    ],
)
def test_mistakes_are_one_line(words: tuple[object, ...], said: str) -> None:
    told = finished(command("explain", *words))
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1)
    assert said in told.stderr
