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
    mark: tuple[str, ...]  # any one of these selects it
    rank: str
    size: str
    local_rank: str
    local_size: str  # with `host`, which host this is, a list for all hosts
    meeting: tuple[str, ...]  # what `here` and `between` need
    here: Callable[[Mapping[str, str]], str]  # where ranks meet that are all on one host
    between: Callable[[Mapping[str, str]], str]  # and where those of several hosts do
    remedy: str  # for a variable that is missing
    several: tuple[str, ...] = ()  # what `between` alone needs
    beside: str = ""  # what must be set as well for it to be selected
    host: str = ""
    line: str = ""  # the descriptor of one that must be told to end the job, and does not name the rank that died
    optional: tuple[str, ...] = ()

    def marks(self, environ: Mapping[str, str]) -> list[str]:
        """Those of its marks that are set, where they select it."""
        return [name for name in self.mark if name in environ] if not self.beside or self.beside in environ else []

    @property
    def required(self) -> tuple[str, ...]:
        named = (self.rank, self.size, self.local_rank, self.local_size, self.host, *self.meeting)
        return tuple(name for name in named if name and name not in self.optional)


_COLLX_RUN = Launcher(
    "collx run",
    mark=("COLLX_RANK",),
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
    _COLLX_RUN,
    name="an indexed job of Kubernetes",
    mark=("JOB_COMPLETION_INDEX",),
    rank="JOB_COMPLETION_INDEX",
    remedy="start the pod with COLLX_SIZE, the number of completions, and COLLX_RENDEZVOUS, tcp://HOST:PORT with the"
    " name of the pod that has index 0",
)
_TORCH = Launcher(
    "torchrun",
    mark=("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
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
    mark=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
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
    mark=("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
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
    mark=("SLURM_STEP_ID",),  # a batch script has SLURM_PROCID, but is no step
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
# In the order in which they are looked for: whoever may have been started by another comes first, as it inherits the
# other's variables. A pod may start any of them, and its template hold COLLX_SIZE and COLLX_RENDEZVOUS. torchrun may be
# started once on each host by all that follow; RANK and the like may also be set by hand, and to what mpirun says. Open
# MPI and Hydra may have their servers started by Slurm, which itself may set PMI_RANK.
LAUNCHERS = (
    _COLLX_RUN,
    dataclasses.replace(_KUBERNETES, mark=("COLLX_SIZE",), beside="JOB_COMPLETION_INDEX"),
    dataclasses.replace(_COLLX_RUN, mark=("COLLX_SIZE",)),
    dataclasses.replace(_TORCH, mark=("TORCHELASTIC_RUN_ID",)),
    _OPEN_MPI,
    _HYDRA,
    _TORCH,
    _SLURM,
    dataclasses.replace(_HYDRA, mark=("PMI_RANK", "PMI_SIZE")),
    _KUBERNETES,
    dataclasses.replace(_COLLX_RUN, mark=(jobs.MEETING, "COLLX_LOCAL_RANK", "COLLX_LOCAL_SIZE")),
)
UNKNOWN = -1
NOTES = "COLLX_NOTES"  # a directory where a rank of several hosts leaves word for `collx run` of whose failure ended it


@dataclass(frozen=True, slots=True)
class Place:
    """One process's place in a job, and on its host, where `local_size` of the job's ranks are; these two are UNKNOWN
    where no launcher tells them, and ranks learn them when they meet.

    `rendezvous` says where they do. Ranks of one host: "unix:DIRECTORY" in one that is there, "job:DIRECTORY" in one
    that whoever comes first makes. Ranks of several: at "tcp://HOST:PORT", where rank 0 listens; in "file:///PATH"; by
    the store of torchrun at "torch://HOST:PORT/RESTARTS"; where MPI joins hosts, those of each in a directory. "" for a
    world of one. `pmi` is the descriptor of a launcher that has to be told when a job is to end because a rank failed,
    and that does not name a rank that was killed; -1: it does both by itself.
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
            jobs.MEETING: self.rendezvous,
            _COLLX_RUN.local_rank: str(self.local_rank),
            _COLLX_RUN.local_size: str(self.local_size),
        }


LONE = Place(0, 1, 0, "", 1)


def find_place(environ: Mapping[str, str]) -> Place:
    """This process's place by the first launcher that left its mark; LONE where none did.

    Raises BootstrapError for half-set or impossible variables, naming one.
    """
    for launcher in LAUNCHERS:
        if marks := launcher.marks(environ):
            return _place_by(launcher, f"{marks[0]} is set, as by {launcher.name}", environ)
    return LONE


def choose_place(method: str, rank: int | None, size: int | None, environ: Mapping[str, str]) -> Place:
    """The place of rank `rank` of `size` who meet by `method`: "tcp://HOST:PORT", "file:///PATH", or "env://" for where
    the environment says. It also says the rank and the size where they are None.

    Raises BootstrapError where the environment does not say enough.
    """
    own = {} if method == "env://" else {jobs.MEETING: method}
    if rank is None or size is None:
        if not any(launcher.marks(environ) for launcher in LAUNCHERS):
            raise BootstrapError(
                f"init_method={method!r} wants rank= and size=, as there are no launcher's variables that tell them"
            )
        return find_place({**environ, **own})
    if not own and jobs.MEETING not in environ:
        own = {_TORCH.rank: str(rank), _TORCH.size: str(size)}
        return _place_by(_TORCH, "init_method is env://", {**environ, **own})
    own = {_COLLX_RUN.rank: str(rank), _COLLX_RUN.size: str(size), jobs.MEETING: environ.get(jobs.MEETING, "")} | own
    return _place_by(_COLLX_RUN, "rank= is given", own)


def _place_by(launcher: Launcher, why: str, environ: Mapping[str, str]) -> Place:
    for name in launcher.required:
        if name not in environ:
            raise BootstrapError(f"{why}, but {name} is not; {launcher.remedy}")
    size = _number(environ[launcher.size], launcher.size)
    if size < 1:
        raise BootstrapError(f"{launcher.size} is {size}, but a job has at least one rank")
    rank = _rank(environ, launcher.rank, size)
    local_rank, local_size = _on_host(launcher, environ, rank, size)
    if size == 1:
        return LONE
    pmi = _number(environ[launcher.line], launcher.line) if launcher.line else -1
    return Place(rank, size, local_rank, _meeting(launcher, why, environ, local_size, size), local_size, pmi)


def _on_host(launcher: Launcher, environ: Mapping[str, str], rank: int, size: int) -> tuple[int, int]:
    """The rank and the number of ranks on this host. All are there where only ranks of one host can meet."""
    if launcher.local_size in environ:
        local_size = _local_size(launcher, environ)
        if not 1 <= local_size <= size:
            raise BootstrapError(f"{launcher.local_size} is {local_size}, but the job has {size} ranks")
    else:
        meeting = launcher.between(environ)
        local_size = size if jobs.is_directory(meeting) or jobs.is_loopback(meeting) else UNKNOWN
    if launcher.local_rank in environ:
        return _rank(environ, launcher.local_rank, size if local_size == UNKNOWN else local_size), local_size
    return rank if local_size == size else UNKNOWN, local_size


def _meeting(launcher: Launcher, why: str, environ: Mapping[str, str], local_size: int, size: int) -> str:
    """Where the ranks meet. Those of one host need no address, whatever is given."""
    if local_size == size:
        return launcher.here(environ)
    if jobs.MEETING in environ:
        return jobs.told(environ)
    for name in launcher.several:
        if name not in environ:
            raise BootstrapError(f"{why}, but {name} is not; {launcher.remedy}")
    return launcher.between(environ)


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
    here = "an unknown number" if place.local_size == UNKNOWN else f"only {place.local_size}"
    several = place.local_size < place.size
    between = "tcp" if "://" in place.rendezvous else "mpi"
    if asked and asked not in TRANSPORTS:
        raise TransportError(f"COLLX_TRANSPORT is {asked!r}, but the transports are {', '.join(TRANSPORTS)}")
    if asked == "memory" and place.size > 1:
        raise TransportError(f"COLLX_TRANSPORT=memory joins threads, but this job has {place.size} processes; use shm")
    if asked == "shm" and several:
        raise TransportError(
            f"COLLX_TRANSPORT=shm: {here} of {place.size} ranks are on this host; unset it, and"
            f" {between.upper()} joins the others"
        )
    if place.size == 1 and asked in ("", "tcp"):  # there is nobody to connect to
        return "memory"
    return asked or (f"shm+{between}" if several else "shm")


def compares(environ: Mapping[str, str]) -> bool:
    """Whether ranks compare their calls before one of MPI's own collectives; COLLX_CHECK=0: they do not."""
    asked = environ.get("COLLX_CHECK", "1")
    if asked not in ("0", "1"):
        raise BootstrapError(f"COLLX_CHECK is {asked!r}, but must be 0 or 1")
    return asked == "1"
