"""`collx verify` and the documentation made from the register."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from collx.algorithms.table import document
from collx.errors import ScheduleError
from collx.schedule import REGISTER
from collx.verify import command, main
from tests.schedules.cases import KEYS

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"


def test_the_page_of_algorithms_is_current() -> None:
    assert PAGE.read_text() == document(), "run `make docs`"


def test_every_algorithm_is_on_the_page_with_all_it_claims() -> None:
    page = document()
    for key in KEYS:
        algorithm = REGISTER[key]
        assert f"| **{algorithm.name}**" in page
        assert algorithm.builder.__doc__
        assert algorithm.wins in page
        assert algorithm.source in page


def test_it_prints_what_was_proved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all_reduce:ring", "--sizes", "2-5", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["all_reduce:ring", "4", "proofs,", "sizes", "2-5:"]
    assert lines[1].startswith("1 algorithms, 4 proofs in")


def test_a_name_may_stand_for_several(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["double_tree", "--size", "6", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert all(f"{collective}:double_tree" in out for collective in ("all_reduce", "broadcast", "reduce"))


def test_a_collective_stands_for_all_its_algorithms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["barrier", "--size", "4", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert all(f"barrier:{name}" in out for collective, name in KEYS if collective == "barrier")


def test_larger_sizes_tell_their_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["barrier:dissemination", "--size", "4", "--larger", "3", "--seed", "5", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "--seed 5" in out
    assert "4 proofs, sizes 4, " in out


def test_a_wrong_schedule_is_one_line_and_exit_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ScheduleError("rank 1, round 2: not this way")

    monkeypatch.setattr(command, "prove", refused)
    monkeypatch.setattr(command, "ProcessPoolExecutor", InProcess)
    assert main(["pat", "--size", "4"]) == 1
    assert capsys.readouterr().err == "collx verify: rank 1, round 2: not this way\n"


def test_a_function_is_proved_by_module_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples.own_schedule:all_reduce", "--sizes", "1-9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["all_reduce:examples.own_schedule:all_reduce", "9", "proofs,"]
    assert lines[1].startswith("    on 9 ranks 3 rounds, 4 of the buffer sent by the busiest; rank order is kept, any")


def test_a_function_that_is_wrong_is_one_line_and_exit_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["examples.own_schedule:all_reduce", "--collective", "broadcast", "--size", "4"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("collx verify: broadcast by all_reduce on 4 ranks: rank ")
    assert error.count("\n") == 1


class InProcess:
    """A pool without processes."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, call: Callable[[Any], Any], task: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(task))
        except ScheduleError as error:
            done.set_exception(error)
        return done


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rnig"], "no algorithm 'rnig'; nearest: "),
        (["--size", "0"], "'0' is no positive number"),
        (["--sizes", "4-x"], "'x' is no positive number"),
        (["swing", "--size", "6"], "no algorithm 'swing' takes"),
        (["ring", "--size", "4", "--sizes", "1-4"], "not allowed with"),
        (["ring", "--sizes", "4-1"], "'4-1' has no size in it"),
        (["ring", "--sizes", "4-"], "'' is no positive number"),
        (["ring", "--larger", "-2"], "'-2' is no positive number"),
        (["nosuchthing"], "docs/algorithms.md"),
        (["ring", "pat"], "unrecognized arguments: pat"),
        (["ring", "--collective", "broadcast"], "broadcast has no algorithm 'ring'; it has chain, "),
        (["all_reduce:rnig"], "no algorithm 'all_reduce:rnig'; nearest: all_reduce:ring"),
        (["examples.own_schedule:main"], "which collective is 'examples.own_schedule:main' for? say --collective"),
        (["examples.own_schedule:all_redcue", "--collective", "all_reduce"], "has no attribute 'all_redcue'"),
        (["no.such.module:all_reduce"], "cannot load 'no.such.module:all_reduce': ModuleNotFoundError"),
        (["examples.own_schedule:__doc__", "--collective", "scan"], "is no function (rank, size) -> Schedule, but str"),
    ],
)
def test_mistakes_exit_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
