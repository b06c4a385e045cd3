"""Who are we: rank, size and meeting place, as the launcher's environment tells them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from collx import jobs
from collx.errors import BootstrapError, TransportError

TRANSPORTS = ("shm", "memory", "tcp", "mpi")


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables by which a launcher tells a process its place in the job."""

    name: str
    command: str
    mark: tuple[str, ...]  # any one of these selects it
    rank: str
    size: str
    local_rank: str
    local_size: str  # with `host`, which host this is, a list for all hosts
    meeting: tuple[str, ...]  # what `rendezvous` needs
    rendezvous: Callable[[Mapping[str, str]], str]
    host: str = ""
    line: str = ""  # the descriptor of one that must be told to end the job, and does not name the rank that died
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        named = (self.rank, self.size, self.local_rank, self.local_size, self.host, *self.meeting)
        return tuple(name for name in named if name and name not in self.optional)


_COLLX_RUN = Launcher(
    "collx run",
    "collx run -n N",
    mark=("COLLX_RANK", "COLLX_SIZE", "COLLX_RENDEZVOUS"),
    rank="COLLX_RANK",
    size="COLLX_SIZE",
    local_rank="COLLX_LOCAL_RANK",
    local_size="COLLX_LOCAL_SIZE",
    meeting=("COLLX_RENDEZVOUS",),
    rendezvous=lambda environ: environ["COLLX_RENDEZVOUS"],
    optional=("COLLX_LOCAL_RANK", "COLLX_LOCAL_SIZE"),  # on one host they are rank and size
)
_OPEN_MPI = Launcher(
    "Open MPI",
    "mpirun -n N",
    mark=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    rank="OMPI_COMM_WORLD_RANK",
    size="OMPI_COMM_WORLD_SIZE",
    local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
    local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    meeting=("PMIX_NAMESPACE",),
    rendezvous=jobs.open_mpi,
)
_HYDRA = Launcher(
    "Hydra (MPICH, Intel MPI)",
    "mpiexec -n N",
    mark=("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    rank="PMI_RANK",
    size="PMI_SIZE",
    local_rank="MPI_LOCALRANKID",
    local_size="MPI_LOCALNRANKS",
    meeting=("PMI_FD",),
    rendezvous=jobs.hydra,
    line="PMI_FD",
)
_SLURM = Launcher(
    "Slurm",
    "srun -n N",
    mark=("SLURM_STEP_ID",),  # a batch script has SLURM_PROCID, but is no step
    rank="SLURM_PROCID",
    size="SLURM_STEP_NUM_TASKS",
    local_rank="SLURM_LOCALID",
    local_size="SLURM_STEP_TASKS_PER_NODE",
    meeting=("SLURM_JOB_ID",),
    rendezvous=jobs.slurm,
    host="SLURM_NODEID",
)
# In the order in which they are looked for. Open MPI and Hydra may have their servers started by Slurm, whose variables
# their ranks inherit. Slurm itself may set PMI_RANK, which therefore marks only what is nothing else.
LAUNCHERS = (
    _COLLX_RUN,
    _OPEN_MPI,
    _HYDRA,
    _SLURM,
    dataclasses.replace(_HYDRA, mark=("PMI_RANK", "PMI_SIZE")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """One process's place in a job, and on its host, where `local_size` of the job's ranks are.

    `rendezvous` says where those meet: "unix:DIRECTORY" in one that is there, "job:DIRECTORY" in one that whoever
    comes first makes; "" for a world of one. `pmi` is the descriptor of a launcher that has to be told when a job is to
    end because a rank failed, and that does not name a rank that was killed; -1: it does both by itself.
    """

    rank: int
    size: int
    local_rank: int
    rendezvous: str
    local_size: int
    pmi: int = -1

    def environment(self) -> dict[str, str]:
        """The variables in which `collx run` tells it to a process."""
        return {
            _COLLX_RUN.rank: str(self.rank),
            _COLLX_RUN.size: str(self.size),
            "COLLX_RENDEZVOUS": self.rendezvous,
            _COLLX_RUN.local_rank: str(self.local_rank),
            _COLLX_RUN.local_size: str(self.local_size),
        }


LONE = Place(0, 1, 0, "", 1)


def find_place(environ: Mapping[str, str]) -> Place:
    """This process's place by the first launcher that left its mark; LONE where none did.

    Raises BootstrapError for half-set or impossible variables, naming one.
    """
    for launcher in LAUNCHERS:
        marks = [name for name in launcher.mark if name in environ]
        if marks:
            for name in launcher.required:
                if name not in environ:
                    raise BootstrapError(
                        f"{marks[0]} is set, as by {launcher.name}, but {name} is not; "
                        f"start the program by `{launcher.command}`"
                    )
            return _read_place(launcher, environ)
    return LONE


def _read_place(launcher: Launcher, environ: Mapping[str, str]) -> Place:
    size = _number(environ[launcher.size], launcher.size)
    if size < 1:
        raise BootstrapError(f"{launcher.size} is {size}, but a job has at least one rank")
    rank = _rank(environ, launcher.rank, size)
    local_size = _local_size(launcher, environ) if launcher.local_size in environ else size
    if not 1 <= local_size <= size:
        raise BootstrapError(f"{launcher.local_size} is {local_size}, but the job has {size} ranks")
    local_rank = _rank(environ, launcher.local_rank, local_size) if launcher.local_rank in environ else rank
    if size == 1:
        return LONE
    pmi = _number(environ[launcher.line], launcher.line) if launcher.line else -1
    return Place(rank, size, local_rank, launcher.rendezvous(environ), local_size, pmi)


def _local_size(launcher: Launcher, environ: Mapping[str, str]) -> int:
    """How many of the job's ranks are on this host. Slurm lists it for all hosts, as in "2(x3),1"."""
    name = launcher.local_size
    if not launcher.host:
        return _number(environ[name], name)
    counts: list[int] = []
    for part in environ[name].split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise BootstrapError(f"{name} is {environ[name]!r}, which does not list how many ranks are on each host")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts[_rank(environ, launcher.host, len(counts))]


def _rank(environ: Mapping[str, str], name: str, size: int) -> int:
    rank = _number(environ[name], name)
    if not 0 <= rank < size:
        raise BootstrapError(f"{name} is {rank}, but it goes from 0 to {size - 1}")
    return rank


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BootstrapError(f"{name} is {text!r}, which is not a number") from None


def find_transport(place: Place, environ: Mapping[str, str]) -> str:
    """The transports that COLLX_TRANSPORT asks for, or the usual ones, joined by "+". Raises TransportError where they
    cannot serve."""
    asked = environ.get("COLLX_TRANSPORT", "")
    several = place.local_size < place.size
    if asked and asked not in TRANSPORTS:
        raise TransportError(f"COLLX_TRANSPORT is {asked!r}, but the transports are {', '.join(TRANSPORTS)}")
    if asked == "tcp":
        raise TransportError("COLLX_TRANSPORT=tcp: the tcp transport is not built yet; unset it for shm and mpi")
    if asked == "memory" and place.size > 1:
        raise TransportError(f"COLLX_TRANSPORT=memory joins threads, but this job has {place.size} processes; use shm")
    if asked == "shm" and several:
        raise TransportError(
            f"COLLX_TRANSPORT=shm: only {place.local_size} of {place.size} ranks are on this host; unset it, and"
            " MPI joins the others"
        )
    return asked or ("memory" if place.size == 1 else "shm+mpi" if several else "shm")


def compares(environ: Mapping[str, str]) -> bool:
    """Whether ranks compare their calls before one of MPI's own collectives; COLLX_CHECK=0: they do not."""
    asked = environ.get("COLLX_CHECK", "1")
    if asked not in ("0", "1"):
        raise BootstrapError(f"COLLX_CHECK is {asked!r}, but must be 0 or 1")
    return asked == "1"
