"""Starts programs by the launchers of MPIs, each in the environment that the Makefile makes for it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests import jobs

DEADLINE = 200.0  # seconds, for many more ranks than there are cores
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Launcher:
    """An MPI's own command, and what it must be told to start more ranks than there are cores, and as root."""

    name: str
    command: str
    options: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()  # what enters the host on which the launcher itself runs

    def __str__(self) -> str:
        return self.name

    @property
    def python(self) -> Path:
        """The interpreter of the environment with this MPI and its mpi4py."""
        found = ROOT / ".venvs" / f"on-{self.name}" / "bin" / "python"
        assert found.exists(), f"{found} is missing; `make test` makes it, or `make .venvs/on-{self.name}/.stamp`"
        return found

    def line(self, ranks: int, *arguments: object) -> list[str]:
        """The command that starts a program of Python on so many ranks."""
        launcher = str(self.python.with_name(self.command))
        return [*self.inside, launcher, *self.options, "-n", str(ranks), str(self.python), *map(str, arguments)]

    def start(self, ranks: int, *arguments: object, **environ: str) -> subprocess.Popen[str]:
        """The job under way, in an environment without COLLX_* but `environ`."""
        return subprocess.Popen(
            self.line(ranks, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=jobs.CLEAN | environ,
        )

    def run(self, ranks: int, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """What the job does; one that hangs is ended by its launcher, which then ends its ranks."""
        job = self.start(ranks, *arguments, **environ)
        try:
            out, err = job.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            job.terminate()
            out, err = job.communicate(timeout=jobs.DEADLINE)
            raise AssertionError(f"{job.args!r} hung:\n{out}\n{err}") from None
        return subprocess.CompletedProcess(job.args, job.returncode, out, err)


_OPENMPI = ("--allow-run-as-root", "--oversubscribe", "--mca", "btl", "^ofi")  # libfabric looks a second for networks
MPIS = (Launcher("openmpi", "mpirun", _OPENMPI), Launcher("mpich", "mpiexec"))
