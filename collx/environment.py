"""The variables that launchers set: by which each is known, and how it tells a process its place in the job."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from collx import jobs
from collx.errors import BootstrapError


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables by which a launcher tells a process its place in the job."""

    name: str
    rank: str
    size: str
    local_rank: str
    local_size: str  # with `host`, which host this is, a list for all hosts
    meeting: tuple[str, ...]  # what `here` and `between` need
    here: Callable[[Mapping[str, str]], str]  # where ranks meet that are all on one host
    between: Callable[[Mapping[str, str]], str]  # and where those of several hosts do
    remedy: str  # for a variable that is missing
    several: tuple[str, ...] = ()  # what `between` alone needs
    host: str = ""
    line: str = ""  # the descriptor of one that must be told to end the job, and does not name the rank that died
    optional: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        named = (self.rank, self.size, self.local_rank, self.local_size, self.host, *self.meeting)
        return tuple(name for name in named if name and name not in self.optional)

    def need(self, names: Iterable[str], why: str, environ: Mapping[str, str]) -> None:
        """Raise BootstrapError for one of these that is missing although `why`."""
        for name in names:
            if name not in environ:
                raise BootstrapError(f"{why}, but {name} is not; {self.remedy}")


COLLX_RUN = Launcher(
    "collx run",
    rank="COLLX_RANK",
    size="COLLX_SIZE",
    local_rank="COLLX_LOCAL_RANK",
    local_size="COLLX_LOCAL_SIZE",
    meeting=(jobs.MEETING,),
    here=jobs.told_here,
    between=jobs.told,
    remedy="start the program by `collx run -n N`",
    optional=("COLLX_LOCAL_RANK", "COLLX_LOCAL_SIZE"),
)
_KUBERNETES = dataclasses.replace(
    COLLX_RUN,
    name="an indexed job of Kubernetes",
    rank="JOB_COMPLETION_INDEX",
    remedy="start the pod with COLLX_SIZE, the number of completions, and COLLX_RENDEZVOUS, tcp://HOST:PORT with the"
    " name of the pod that has index 0",
)
TORCH = Launcher(
    "torchrun",
    rank="RANK",
    size="WORLD_SIZE",
    local_rank="LOCAL_RANK",
    local_size="LOCAL_WORLD_SIZE",
    meeting=("MASTER_ADDR", "MASTER_PORT"),
    here=jobs.torch_here,
    between=jobs.torch,
    remedy="start the program by `torchrun`, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
    optional=("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
)
_OPEN_MPI = Launcher(
    "Open MPI",
    rank="OMPI_COMM_WORLD_RANK",
    size="OMPI_COMM_WORLD_SIZE",
    local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
    local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    meeting=("PMIX_NAMESPACE",),
    here=jobs.open_mpi,
    between=jobs.open_mpi,
    remedy="start the program by `mpirun -n N`",
)
_HYDRA = Launcher(
    "Hydra (MPICH, Intel MPI)",
    rank="PMI_RANK",
    size="PMI_SIZE",
    local_rank="MPI_LOCALRANKID",
    local_size="MPI_LOCALNRANKS",
    meeting=("PMI_FD",),
    here=jobs.hydra,
    between=jobs.hydra,
    remedy="start the program by `mpiexec -n N`",
    line="PMI_FD",
)
_SLURM = Launcher(
    "Slurm",
    rank="SLURM_PROCID",
    size="SLURM_STEP_NUM_TASKS",
    local_rank="SLURM_LOCALID",
    local_size="SLURM_STEP_TASKS_PER_NODE",
    meeting=("SLURM_JOB_ID",),
    here=jobs.slurm_here,
    between=jobs.slurm,
    remedy="start the program by `srun -n N`",
    several=("SLURM_STEP_NODELIST",),
    host="SLURM_NODEID",
)


class Mark(NamedTuple):
    """A variable by which a launcher is known, where `beside`, if any, is set as well."""

    launcher: Launcher
    name: str
    beside: str = ""


# In the order in which they are looked for: whoever may have been started by another comes first, as it inherits the
# other's variables. A pod may start any of them, and its template hold COLLX_SIZE and COLLX_RENDEZVOUS. torchrun may be
# started once on each host by all that follow; RANK and the like may also be set by hand, and to what mpirun says. Open
# MPI and Hydra may have their servers started by Slurm, which itself may set PMI_RANK.
_MARKS = (
    Mark(COLLX_RUN, "COLLX_RANK"),
    Mark(_KUBERNETES, "COLLX_SIZE", beside="JOB_COMPLETION_INDEX"),
    Mark(COLLX_RUN, "COLLX_SIZE"),
    Mark(TORCH, "TORCHELASTIC_RUN_ID"),
    Mark(_OPEN_MPI, "OMPI_COMM_WORLD_RANK"),
    Mark(_OPEN_MPI, "OMPI_COMM_WORLD_SIZE"),
    Mark(_HYDRA, "MPI_LOCALRANKID"),
    Mark(_HYDRA, "MPI_LOCALNRANKS"),
    Mark(TORCH, "RANK"),
    Mark(TORCH, "WORLD_SIZE"),
    Mark(TORCH, "MASTER_ADDR"),
    Mark(TORCH, "MASTER_PORT"),
    Mark(_SLURM, "SLURM_STEP_ID"),  # a batch script has SLURM_PROCID, but is no step
    Mark(_HYDRA, "PMI_RANK"),
    Mark(_HYDRA, "PMI_SIZE"),
    Mark(_KUBERNETES, "JOB_COMPLETION_INDEX"),
    Mark(COLLX_RUN, jobs.MEETING),
    Mark(COLLX_RUN, "COLLX_LOCAL_RANK"),
    Mark(COLLX_RUN, "COLLX_LOCAL_SIZE"),
)


def find_mark(environ: Mapping[str, str]) -> Mark | None:
    """The first that is set."""
    for mark in _MARKS:
        if mark.name in environ and (not mark.beside or mark.beside in environ):
            return mark
    return None
