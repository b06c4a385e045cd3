"""How the measuring programs end."""

from typing import Self

import pytest

import collx
from collx.errors import BootstrapError, CollxError
from collx.perf.options import UsageError, numbers
from collx.perf.program import in_job, program


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("so"), 2), (BootstrapError("so"), 2), (CollxError("so"), 1), (OSError("so"), 1)],
    ids=lambda case: type(case).__name__,
)
def test_what_fails_is_one_line_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @program("measure")
    def main(argv: list[str]) -> int:
        raise error

    assert main([]) == code
    assert capsys.readouterr() == ("", "measure: so\n")


def test_an_interrupt_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    @program("measure")
    def main(argv: list[str]) -> int:
        raise KeyboardInterrupt

    assert main([]) == 130
    assert capsys.readouterr() == ("", "")


class World:
    """A job of two ranks that tells how it was left."""

    size = 2

    def __init__(self) -> None:
        self.left: list[object] = []

    def barrier(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.left.append(kind)


def test_a_mistake_in_a_job_is_told_when_the_rank_has_left_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised before, it would be an abort to a rank that is still in the barrier."""
    world = World()
    monkeypatch.setattr(collx, "init", lambda: world)

    def mistaken(comm: collx.Communicator) -> None:
        raise UsageError("so")

    with pytest.raises(UsageError, match="-n 4 inside a job of 2 ranks"):
        in_job(4, lambda comm: None, lambda comm: 0)
    with pytest.raises(UsageError, match="so"):
        in_job(None, mistaken, lambda comm: 0)
    assert in_job(2, lambda comm: None, lambda comm: comm.size + 1) == 3
    assert world.left == [None] * 3


def test_a_bug_is_shown() -> None:
    @program("measure")
    def main(argv: list[str]) -> int:
        return int(argv[0])

    assert main(["3"]) == 3
    with pytest.raises(ValueError, match="literal"):
        main(["x"])


def test_numbers_of_a_list() -> None:
    assert numbers("-n", "2,4,8", 2) == (2, 4, 8)
    for wrong in ("", "2,", "1,2", "-2", "x", "2.5"):
        with pytest.raises(UsageError, match="-n"):
            numbers("-n", wrong, 2)
