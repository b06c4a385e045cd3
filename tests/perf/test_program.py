"""How the measuring programs end."""

import pytest

from collx.errors import BootstrapError, CollxError
from collx.perf.options import UsageError, numbers
from collx.perf.program import program


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
