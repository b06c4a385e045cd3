"""What rank 0 leaves in a file, and whose files the others believe."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import collx
from collx.transports.meeting.posted import Posted, find_posted, posted

HERE = Posted("10.0.0.1:80", "0123456789abcdef", "ab" * 32)


@pytest.mark.parametrize("what", [HERE, HERE._replace(secret=""), HERE._replace(address="[fd00::1]:1")])
def test_it_is_there_in_the_block_for_this_user_alone(tmp_path: Path, what: Posted) -> None:
    path = tmp_path / "rank-0"
    assert find_posted(str(path)) is None
    with posted(str(path), what):
        assert find_posted(str(path)) == what
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_posted(str(path)) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o666, 0o610])
def test_a_file_that_others_can_open_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "rank-0"
    with posted(str(path), HERE):
        path.chmod(mode)
        with pytest.raises(collx.BootstrapError, match="must be a file of this user with mode 0600"):
            find_posted(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "rank-0"
    with posted(str(path), HERE):
        os.chown(path, 12345, 12345)
        with pytest.raises(collx.BootstrapError, match="must be a file of this user"):
            find_posted(str(path))


def test_what_is_something_else_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(collx.BootstrapError, match="is not what rank 0 of a job leaves there"):
        find_posted(str(tmp_path / "pipe"))
    with pytest.raises(collx.BootstrapError, match="cannot be read: Is a directory"):
        find_posted(str(tmp_path))
    for text in ("", "alpha", f"{' '.join(HERE)} more", " ".join(HERE._replace(secret="ab"))):
        (tmp_path / "text").touch(0o600)
        (tmp_path / "text").write_text(text)
        with pytest.raises(collx.BootstrapError, match="is not what rank 0 of a job leaves there"):
            find_posted(str(tmp_path / "text"))
    with (
        pytest.raises(collx.BootstrapError, match="cannot leave its address"),
        posted(str(tmp_path / "no" / "p"), HERE),
    ):
        pass
