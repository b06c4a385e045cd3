"""The directory that ranks make, share and leave."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import collx
from collx import lifeline
from tests import jobs


def eventually_removed(path: str) -> bool:
    deadline = time.monotonic() + jobs.DEADLINE
    while os.path.lexists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
    return not os.path.lexists(path)


def forked(body: Callable[[], object]) -> int:
    """The pid of a process that runs `body`."""
    pid = lifeline.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "job")


def test_only_the_user_can_enter_and_the_last_removes_it(path: str) -> None:
    with lifeline.shared_directory(path):
        with lifeline.shared_directory(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        Path(path, "door").touch()
    assert eventually_removed(path)


def test_it_stays_as_long_as_anybody_is_in(path: str) -> None:
    """Also when whoever made it has left or was killed, and its keeper has looked."""
    for leave in (lambda: None, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        read, write = os.pipe()

        def stay(write: int = write, leave: Callable[[], None] = leave) -> None:
            with lifeline.shared_directory(path):
                os.write(write, b"!")
                time.sleep(0.05)
                leave()

        maker = forked(stay)
        os.read(read, 1)
        with lifeline.shared_directory(path):
            os.waitpid(maker, 0)
            inode = os.stat(path).st_ino
            time.sleep(0.05)
            assert os.stat(path).st_ino == inode
        assert eventually_removed(path)


def test_nothing_is_left_of_one_who_is_killed_at_any_moment(path: str) -> None:
    def enter() -> None:
        with lifeline.shared_directory(path):
            time.sleep(60)

    for moment in range(20):
        pid = forked(enter)
        time.sleep(moment * 0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert eventually_removed(path)


def test_many_come_and_go(path: str) -> None:
    """Nobody is ever in one that is not there any more."""

    def come_and_go() -> None:
        for _ in range(50):
            with lifeline.shared_directory(path):
                Path(path, f"{os.getpid()}").touch()
        os._exit(7)

    pids = [forked(come_and_go) for _ in range(4)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [7] * 4
    assert eventually_removed(path)


def test_no_process_is_left_to_be_waited_for(path: str) -> None:
    with lifeline.shared_directory(path):
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_path_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(collx.BootstrapError, match="does TMPDIR name a local disk"):
        lifeline.shared_directory(str(tmp_path / "file" / "job")).__enter__()
