"""The measuring sticks' native part: a shared library, built from `perf/native` on first use."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import shutil
import subprocess
import sys
from pathlib import Path

from collx.errors import CollxError

SOURCES = Path(__file__).resolve().parent / "native"
BUILD = SOURCES.parents[1] / "build" / "yardstick"


@functools.cache
def library() -> ctypes.CDLL:
    """The library, built if it is not there or older than its sources.

    Raises CollxError with the compiler's or CMake's last word where it cannot be built.
    """
    path = BUILD / "libyardstick.so"
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        with (BUILD / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may come here at once
            if not path.exists() or path.stat().st_mtime < max(file.stat().st_mtime for file in SOURCES.iterdir()):
                _build()
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CollxError(f"cannot build or load {path}: {error}; the measuring sticks need a checkout") from error


def _build() -> None:
    beside = Path(sys.executable).parent / "cmake"  # the build group's, in the environment collx was built with
    cmake = str(beside) if beside.exists() else shutil.which("cmake")
    if cmake is None:
        raise CollxError("the measuring sticks are built with CMake, which is not here: pip install cmake")
    for command in ([cmake, "-S", str(SOURCES), "-B", str(BUILD)], [cmake, "--build", str(BUILD)]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            telling = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
            raise CollxError(f"cannot build the measuring sticks in {BUILD}: {telling[0].strip()}")
