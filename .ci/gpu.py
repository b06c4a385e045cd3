"""`make gpu`: everything that needs a GPU, in under ten minutes and without a network.

Builds collx for the Python that runs this, in .venvs/gpu beside that Python's packages, then runs the tests on GPUs,
the sweeps and compute-sanitizer. What has been measured is written at once, so whoever ends this early keeps it.
"""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import IO

SECONDS = 560.0  # for all of it
GRACE = 6.0  # seconds that a part has to end when its time is over
ENVIRONMENT = Path(".venvs/gpu")
NEEDED = {  # by module, what brings it
    "numpy": "numpy", "ml_dtypes": "ml_dtypes", "rich": "rich", "cuda.bindings": "cuda-bindings",
    "cupy": "cupy-cuda13x", "torch": "torch", "pytest": "pytest", "pytest_timeout": "pytest-timeout",
    "hypothesis": "hypothesis", "nanobind": "nanobind", "scikit_build_core": "scikit-build-core", "pip": "pip",
}  # fmt: skip
# A test that hangs costs its own time: what it hangs in is a wait in Python, which a signal ends.
LIMITED = ["--timeout", "100", "--timeout-method", "signal", "--durations", "10"]
# What can be shared is found out by trying, so errors of the API are no defects.
SANITIZING = ["--target-processes", "all", "--report-api-errors", "no", "--error-exitcode", "9"]
SANITIZED = [  # threads too, in case a tool does not know what another process has allocated
    ("memcheck", "processes", ["-m", "collx", "run", "-n", "2", "--tag", "off", "-m", "tests.gpu.small"]),
    ("racecheck", "processes", ["-m", "collx", "run", "-n", "2", "--tag", "off", "-m", "tests.gpu.small"]),
    ("memcheck", "threads", ["-m", "tests.gpu.small", "threads"]),
]


def no_gpu() -> str:
    """Why there is none to test on; empty where there is one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: libcuda.so.1 cannot be loaded"
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "no GPU: the NVIDIA driver is there, but sees none"
    return ""


def lacking() -> list[str]:
    """The packages that this Python has not."""

    def has(module: str) -> bool:
        try:
            return importlib.util.find_spec(module) is not None
        except ImportError:
            return False

    return [package for module, package in NEEDED.items() if not has(module)]


class Parts:
    """What is done one after the other, each for at most so long, and what became of it."""

    def __init__(self, log: Path) -> None:
        self._end = time.monotonic() + SECONDS
        self._log = log
        self.notes: list[str] = []
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def do(self, what: str, most: float, *command: object, reserve: float = 0.0) -> bool:
        """Run it, its output to the log, unless there is only the `reserve` of time left; whether it went well."""
        seconds = min(most, self._end - time.monotonic() - reserve)
        begun = time.monotonic()
        with self._log.open("a") as log:
            print(f"\n#### {what}: {' '.join(map(str, command))}", file=log, flush=True)
            text = "not begun: no time was left" if seconds < 5 else _ended([str(c) for c in command], seconds, log)
        line = f"{what}: {text}, after {time.monotonic() - begun:.0f} s"
        last = [line for line in self._log.read_text().splitlines() if line.strip()][-1]
        if not last.startswith("####"):
            line += f" ({last.strip(' =')[:160]})"
        print(f"make gpu: {line}", flush=True)
        self.notes.append(line)
        return text == "well"


def _ended(command: list[str], seconds: float, log: IO[str]) -> str:
    cache = str(Path("build/gpu/cache").absolute())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COLLX_")}
    environment |= {"XDG_CACHE_HOME": cache, "PYTHONUNBUFFERED": "1"}
    try:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    except OSError as error:
        return f"cannot be started: {error}"
    try:
        status = process.wait(seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGINT)  # so that it tells how far it came, and ends what it has started
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"ended at its limit of {seconds:.0f} s"
        raise
    return "well" if status == 0 else f"failed with status {status}"


def build(parts: Parts) -> bool:
    """collx, editable, in an environment that sees the packages of this Python."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", ENVIRONMENT], check=True)
        here, there = sysconfig.get_path("purelib"), _purelib(python)
        (there / "base.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        if importlib.util.find_spec("platformdirs") is None:  # pip has a copy
            (there / "platformdirs.py").write_text("from pip._vendor.platformdirs import *\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps"]
    install += ["--no-build-isolation", "-C", "build-dir=build/gpu/{wheel_tag}"]
    older = ["-C", "minimum-version=0.10", "-C", "strict-config=false"]  # what it asks for in vain does no harm
    return parts.do("build", 150, *install, "-e", ".") or parts.do("build", 150, *install, *older, "-e", ".")


def _purelib(python: Path) -> Path:
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())


def main(results: Path) -> int:
    if reason := no_gpu():
        print(f"make gpu: skipped: {reason}")
        return 0
    if lacks := lacking():
        print(f"make gpu: {sys.executable} lacks {', '.join(lacks)}; name one that has them: make gpu PYTHON=...")
        return 2
    parts = Parts((results if "OUT" in os.environ else Path("build/gpu")) / "gpu.log")
    well = build(parts)
    if well:
        python = ENVIRONMENT / "bin/python"
        sweeps = [python, "-m", "collx.perf.on_gpu", "--output", results]
        well &= parts.do("a small program", 60, python, "-m", "tests.gpu.small")
        well &= parts.do("sweeps of all_reduce", 150, *sweeps, "first", reserve=20)
        well &= parts.do("tests/gpu", 220, python, "-m", "pytest", "-v", *LIMITED, "tests/gpu", reserve=120)
        for tool, ranks, program in SANITIZED:
            command = [sanitizer(), *SANITIZING, "--tool", tool, python, *program]
            well &= parts.do(f"compute-sanitizer {tool}, {ranks}", 60, *command, reserve=20)
        well &= parts.do("other sweeps", 180, *sweeps, "rest", reserve=30)
        parts.do("tests/gpu under MPS", 70, python, "-m", "tests.gpu.under_mps", *LIMITED, reserve=15)
        parts.do("kernels by other constants", 60, python, "-m", "tests.gpu.tuning", reserve=15)
        parts.do("the page", 15, *sweeps, "page", *(argument for note in parts.notes for argument in ("--note", note)))
    return 0 if well else 1


def sanitizer() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    return shutil.which("compute-sanitizer", path=path) or "compute-sanitizer"


if __name__ == "__main__":
    sys.exit(main(Path(os.environ.get("OUT") or "perf/results").absolute()))
