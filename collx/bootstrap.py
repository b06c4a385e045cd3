"""Who are we: finds rank, size and meeting place in the environment, and makes the world communicator of them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collx import checks
from collx.communicator import Communicator
from collx.engine import Engine, ReferenceEngine
from collx.errors import BootstrapError, ClosedError, TransportError
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.shm import ShmGroup, memory_file

TIMEOUT = 300.0  # seconds
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


_world: Communicator | None = None
_world_pid = 0


def init(timeout: float = TIMEOUT) -> Communicator:
    """Join the job that this process was started in; a process that no launcher started is a world of its own.

    Collective among the job's ranks. `timeout`, in seconds, holds for this call and, as the default, for every
    later call on the communicator. Called again, returns the same communicator while it is open.

    Environment: COLLX_RANK, COLLX_SIZE, COLLX_RENDEZVOUS and COLLX_LOCAL_RANK (set by `collx run`);
    COLLX_TRANSPORT (shm, memory) forces a transport, by default shm, or memory for a world of one.

    Raises BootstrapError where the environment is half-set or ranks are missing at the deadline (it lists
    them), TransportError where the transport cannot serve, ClosedError where this process has closed its
    job's world or was forked from a rank, TypeError or ValueError for a timeout that is none.
    """
    timeout = checks.seconds(timeout)
    place = find_place(os.environ)
    if _world is not None and (_world_pid == os.getpid() or place.size > 1):
        if _world_pid != os.getpid():
            raise ClosedError(f"rank {place.rank}: this process was forked from a rank; use collx.spawn for more ranks")
        if not _world.closed:
            return _world
        if place.size > 1:
            raise ClosedError(f"rank {place.rank}: the world was closed; a process joins its job once")
    return join(place, timeout)


def join(place: Place, timeout: float) -> Communicator:
    """As init, for a given place; the world so made is what init returns from then on."""
    global _world, _world_pid
    transport = _transport(place)
    _world = _lone_world(timeout) if transport == "memory" else _shm_world(place, timeout)
    _world_pid = os.getpid()
    return _world


def _transport(place: Place) -> str:
    asked = os.environ.get("COLLX_TRANSPORT", "")
    if not asked:
        return "memory" if place.size == 1 else "shm"
    if asked not in TRANSPORTS:
        raise TransportError(f"COLLX_TRANSPORT is {asked!r}, but the transports are {', '.join(TRANSPORTS)}")
    if asked in ("tcp", "mpi"):
        raise TransportError(f"COLLX_TRANSPORT={asked}: the {asked} transport is not built yet; unset it for shm")
    if asked == "memory" and place.size > 1:
        raise TransportError(f"COLLX_TRANSPORT=memory joins threads, but this job has {place.size} processes; use shm")
    return asked


def _lone_world(timeout: float) -> Communicator:
    def make_group(members: Sequence[int], label: str, timeout: float) -> Engine:
        return ReferenceEngine(MemoryTransport(MemoryHub(1), 0))

    engine = make_group((0,), "init", timeout)
    return Communicator(engine, 0, 1, 0, (os.uname().nodename,), engine.transports, timeout, make_group)


def _shm_world(place: Place, timeout: float) -> Communicator:
    deadline = time.monotonic() + timeout
    group = ShmGroup.join(_directory(place), place.rank, place.size, deadline)

    def make_group(members: Sequence[int], label: str, timeout: float) -> Engine:
        return _shm_engine(group, members, label, time.monotonic() + timeout)

    engine = _shm_engine(group, range(place.size), "init", deadline)
    return Communicator(
        engine, place.rank, place.size, place.local_rank, group.hosts, engine.transports, timeout, make_group
    )


def _directory(place: Place) -> str:
    kind, _, directory = place.rendezvous.partition(":")
    if place is LONE:
        return tempfile.mkdtemp(prefix="collx-")
    if kind != "unix" or not directory.startswith("/"):
        raise BootstrapError(f"COLLX_RENDEZVOUS is {place.rendezvous!r}, but must be unix:/DIRECTORY")
    return directory


def _shm_engine(group: ShmGroup, members: Sequence[int], label: str, deadline: float) -> Engine:
    """The native engine of a communicator of `members`, who all call this with the same label."""
    from collx import native  # here, so that a lone process needs no compiled module

    fd = memory_file(native.segment_bytes(len(members)))
    fds = [fd]
    try:
        rank = list(members).index(group.rank)
        segment = native.Segment(rank, len(members), fd)  # before anybody else sees it
        fds = group.connect(members, label, fd, deadline)
        return native.NativeEngine(segment, fds, rank=rank)
    finally:
        for fd in fds:
            os.close(fd)
