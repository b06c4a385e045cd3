"""Who are we: rank, size and meeting place, as the launcher's environment tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collx.errors import BootstrapError, TransportError

TRANSPORTS = ("shm", "memory", "tcp", "mpi")


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables by which a launcher tells a process its place in the job."""

    name: str
    rank: str
    size: str
    rendezvous: str
    local_rank: str

    @property
    def required(self) -> tuple[str, ...]:
        return (self.rank, self.size, self.rendezvous)


# In the order in which they are looked for; the first of which any required variable is set is taken.
LAUNCHERS = (Launcher("collx run", "COLLX_RANK", "COLLX_SIZE", "COLLX_RENDEZVOUS", "COLLX_LOCAL_RANK"),)


@dataclass(frozen=True, slots=True)
class Place:
    """One process's place in a job. `rendezvous` says where the ranks meet: "unix:DIRECTORY"."""

    rank: int
    size: int
    local_rank: int
    rendezvous: str

    def environment(self) -> dict[str, str]:
        """The variables in which `collx run` tells it to a process."""
        names = LAUNCHERS[0]
        return {
            names.rank: str(self.rank),
            names.size: str(self.size),
            names.rendezvous: self.rendezvous,
            names.local_rank: str(self.local_rank),
        }


LONE = Place(0, 1, 0, "")


def find_place(environ: Mapping[str, str]) -> Place:
    """This process's place by the first launcher that left its variables; LONE where none did.

    Raises BootstrapError for half-set or impossible ones, naming the variable.
    """
    for launcher in LAUNCHERS:
        given = [name for name in launcher.required if name in environ]
        if given:
            for name in launcher.required:
                if name not in environ:
                    raise BootstrapError(f"{given[0]} is set but {name} is not; start the program by `{launcher.name}`")
            return _read_place(launcher, environ)
    return LONE


def _read_place(launcher: Launcher, environ: Mapping[str, str]) -> Place:
    size = _number(environ, launcher.size)
    if size < 1:
        raise BootstrapError(f"{launcher.size} is {size}, but a job has at least one rank")
    rank = _rank(environ, launcher.rank, size)
    # Until ranks of several hosts can meet, all are on one, where the local rank is the rank.
    local_rank = _rank(environ, launcher.local_rank, size) if launcher.local_rank in environ else rank
    return Place(rank, size, local_rank, environ[launcher.rendezvous])


def _rank(environ: Mapping[str, str], name: str, size: int) -> int:
    rank = _number(environ, name)
    if not 0 <= rank < size:
        raise BootstrapError(f"{name} is {rank}, but ranks go from 0 to {size - 1}")
    return rank


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except ValueError:
        raise BootstrapError(f"{name} is {environ[name]!r}, which is not a number") from None


def find_transport(place: Place, environ: Mapping[str, str]) -> str:
    """The transport that COLLX_TRANSPORT asks for, or the usual one. Raises TransportError where it cannot serve."""
    asked = environ.get("COLLX_TRANSPORT", "")
    if not asked:
        return "memory" if place.size == 1 else "shm"
    if asked not in TRANSPORTS:
        raise TransportError(f"COLLX_TRANSPORT is {asked!r}, but the transports are {', '.join(TRANSPORTS)}")
    if asked in ("tcp", "mpi"):
        raise TransportError(f"COLLX_TRANSPORT={asked}: the {asked} transport is not built yet; unset it for shm")
    if asked == "memory" and place.size > 1:
        raise TransportError(f"COLLX_TRANSPORT=memory joins threads, but this job has {place.size} processes; use shm")
    return asked
