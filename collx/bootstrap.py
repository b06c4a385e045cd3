"""Who are we: rank, size and meeting place, as the launcher's environment tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from collx import jobs
from collx.environment import COLLX_RUN, TORCH, Launcher, find_mark
from collx.errors import BootstrapError, TransportError

TRANSPORTS = ("shm", "memory", "tcp", "mpi")
UNKNOWN = -1
STORE = "store://"  # the meeting place of ranks that meet in a store of their program's
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
            COLLX_RUN.rank: str(self.rank),
            COLLX_RUN.size: str(self.size),
            jobs.MEETING: self.rendezvous,
            COLLX_RUN.local_rank: str(self.local_rank),
            COLLX_RUN.local_size: str(self.local_size),
        }


LONE = Place(0, 1, 0, "", 1)


def find_place(environ: Mapping[str, str]) -> Place:
    """This process's place by the first launcher that left its mark; LONE where none did.

    Raises BootstrapError for half-set or impossible variables, naming one.
    """
    mark = find_mark(environ)
    return _place_by(mark.launcher, f"{mark.name} is set, as by {mark.launcher.name}", environ) if mark else LONE


def choose_place(method: str, rank: int | None, size: int | None, environ: Mapping[str, str]) -> Place:
    """The place of rank `rank` of `size` who meet by `method`: "tcp://HOST:PORT", "file:///PATH", or "env://" for where
    the environment says. It also says the rank and the size where they are None.

    Raises BootstrapError where the environment does not say enough.
    """
    own = {} if method == "env://" else {jobs.MEETING: method}
    if rank is None or size is None:
        if find_mark(environ) is None:
            raise BootstrapError(
                f"init_method={method!r} wants rank= and size=, as there are no launcher's variables that tell them"
            )
        return find_place({**environ, **own})
    if not own and jobs.MEETING not in environ:
        own = {TORCH.rank: str(rank), TORCH.size: str(size)}
        return _place_by(TORCH, "init_method is env://", {**environ, **own})
    own = {COLLX_RUN.rank: str(rank), COLLX_RUN.size: str(size), jobs.MEETING: environ.get(jobs.MEETING, "")} | own
    return _place_by(COLLX_RUN, "rank= is given", own)


def _place_by(launcher: Launcher, why: str, environ: Mapping[str, str]) -> Place:
    launcher.need(launcher.required, why, environ)
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
    launcher.need(launcher.several, why, environ)
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
