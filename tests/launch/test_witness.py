"""Who is said to have been killed, by the ledger that ranks keep."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from collx import lifeline
from collx.witness import FAILED, LEFT, Ledger, watch


def rank_of(number: int, folder: Path, *, state: int | None = None, killed: bool = False) -> int:
    """A process that enters itself as rank 10 + `number`, writes `state`, waits to be told to go, and is killed then or
    exits. Returns the end by which it is told."""
    come, came = os.pipe()
    told, tell = os.pipe()
    if lifeline.fork() == 0:
        try:
            ledger = Ledger(str(folder), 10 + number, number)
            os.write(came, b"!")
            os.read(told, 1)
            if state is not None:
                ledger.write(state)
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    os.read(come, 1)
    return tell


def go(*ends: int) -> None:
    for end in ends:
        os.write(end, b"!")


def said(folder: Path, pages: int, capfd: pytest.CaptureFixture[str], meanwhile: Callable[[], object]) -> str:
    """What the witness says of ranks to whom `meanwhile` something happens."""
    ledger = os.open(folder / "ledger", os.O_RDONLY)
    if lifeline.fork() == 0:
        try:
            watch(ledger, 20, pages)
        finally:
            os._exit(0)
    meanwhile()
    with contextlib.suppress(ChildProcessError):  # all have ended
        while True:
            os.wait()
    return capfd.readouterr().err


def test_the_killed_one_is_named_and_those_after_it_are_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = rank_of(0, tmp_path), rank_of(1, tmp_path, killed=True)
    read, write = os.pipe()

    def meanwhile() -> None:
        go(second)
        os.set_blocking(read, False)
        while "rank 11" not in (text := capfd.readouterr().err):
            pass
        os.write(write, text.encode())
        go(first)

    assert said(tmp_path, 2, capfd, meanwhile) == ""
    assert os.read(read, 1000).startswith(b"collx: rank 11 of 20 (pid ")


@pytest.mark.parametrize("state", [LEFT, FAILED])
def test_who_says_that_it_ends_is_not_named(state: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ranks = [rank_of(number, tmp_path, state=state) for number in range(2)]
    assert said(tmp_path, 2, capfd, lambda: go(*ranks)) == ""


def test_those_whom_a_failed_one_took_along_are_not_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failed, other = rank_of(0, tmp_path, state=FAILED), rank_of(1, tmp_path, killed=True)
    assert said(tmp_path, 2, capfd, lambda: go(failed, other)) == ""


def test_a_page_may_be_another_programs_by_then(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    left = rank_of(0, tmp_path, state=LEFT)

    def meanwhile() -> None:
        following = rank_of(0, tmp_path)
        go(left, following)
        os.wait()

    assert said(tmp_path, 1, capfd, meanwhile) == ""


def test_what_a_rank_forks_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), 0, 0)
    before = (tmp_path / "ledger").read_bytes()
    if lifeline.fork() == 0:
        ledger.write(LEFT)
        os._exit(0)
    os.wait()
    assert (tmp_path / "ledger").read_bytes() == before


def test_who_comes_later_is_watched_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = rank_of(0, tmp_path)

    def meanwhile() -> None:
        go(rank_of(1, tmp_path, killed=True))
        while "rank 11 of 20" not in capfd.readouterr().err:
            pass
        go(first)

    assert said(tmp_path, 2, capfd, meanwhile) == ""


def test_who_is_killed_for_one_who_never_came_is_not_blamed_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rank = rank_of(0, tmp_path, killed=True)
    told = said(tmp_path, 2, capfd, lambda: go(rank))
    assert "rank 10 of 20" in told
    assert told.endswith("killed, or exited without closing; if not for another: number 1 there had not come to init\n")
