"""Runs programs under `collx run`, and sees what jobs leave behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

DEADLINE = 60.0  # seconds, for what is expected to happen at once
TEMPORARY = tempfile.TemporaryDirectory(prefix="jobs-")  # of this test session alone: others leave their own things
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("COLLX_")} | {
    "TMPDIR": TEMPORARY.name
}
RUN = [sys.executable, "-m", "collx", "run"]
PRELUDE = """
import os, signal, subprocess, sys, time
import numpy as np
import collx
"""


def program(folder: Path, text: str) -> Path:
    """A program file with the usual imports before `text`."""
    path = folder / "program.py"
    path.write_text(PRELUDE + textwrap.dedent(text))
    return path


def collx_run(*arguments: object, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """What `collx run` with these arguments does in an environment without COLLX_* but `environ`."""
    return subprocess.run(
        [*RUN, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=CLEAN | environ,
    )


def finished(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """What a command does in an environment without COLLX_* but `environ`."""
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=CLEAN | environ)


def start(*arguments: object) -> subprocess.Popen[str]:
    """`collx run` under way; it is killed by the test session's end at the latest."""
    return subprocess.Popen(
        [*RUN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN
    )


def running(mark: str) -> list[int]:
    """The processes with `mark` in their command line or environment, zombies excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if mark.encode() in text and state != "Z":
                    found.append(int(entry.name))
    return found


def eventually_gone(mark: str) -> bool:
    """Whether all processes with `mark` are gone soon: the kernel takes a moment to end the killed."""
    deadline = time.monotonic() + DEADLINE
    while running(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def left_behind() -> set[str]:
    """What jobs in the environment CLEAN might have left: named shared memory, and anything in their TMPDIR."""
    return {*map(str, Path("/dev/shm").glob("*collx*")), *map(str, Path(TEMPORARY.name).iterdir())}


@contextlib.contextmanager
def nothing_left_behind(mark: str) -> Iterator[None]:
    """Fails where the block leaves processes with `mark`, or files of jobs in the environment CLEAN."""
    before = left_behind()
    yield
    assert eventually_gone(mark), f"still there: {running(mark)}"
    deadline = time.monotonic() + DEADLINE
    while (new := left_behind() - before) and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed launcher's keeper removes its directory a little later
    assert not new
