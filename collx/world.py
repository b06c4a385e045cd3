"""Makes the world communicator: `init` for the job this process was started in, `join` for a place one knows."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from collx import bootstrap, checks, lifeline
from collx.bootstrap import Place
from collx.communicator import Communicator, Look
from collx.engine import Engine, ReferenceEngine
from collx.errors import AbortedError, BootstrapError, ClosedError, CollxError, RankFailedError, TransportError
from collx.member import dump_all
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.shm import ShmGroup, heap_bytes, memory_file

TIMEOUT = 300.0  # seconds

_joined: tuple[Communicator, Place, int] | None = None  # the world, this process's place in it, this process


def init(timeout: float = TIMEOUT) -> Communicator:
    """Join the job that this process was started in; a process that no launcher started is a world of its own.

    Collective among the job's ranks. `timeout`, in seconds, holds for this call and, as the default, for every
    later call on the communicator. Called again, returns the same communicator while it is open.

    Environment: what `collx run` (COLLX_RANK, COLLX_SIZE, COLLX_RENDEZVOUS, COLLX_LOCAL_RANK, COLLX_LOCAL_SIZE), Open
    MPI's mpirun, Hydra's mpiexec (MPICH, Intel MPI) or Slurm's srun tells a process of its place;
    COLLX_TRANSPORT (shm, memory) forces a transport, by default shm, or memory for a world of one.

    Where SIGUSR1 has its default disposition, it prints from then on what `Communicator.dump` prints, of all
    communicators, instead of ending the process; not where this is called outside the main thread.

    Raises BootstrapError where the environment is half-set or ranks are missing at the deadline (it lists
    them), TransportError where the transport cannot serve, ClosedError where this process has closed its
    job's world or was forked from a rank, TypeError or ValueError for a timeout that is none.
    """
    timeout = checks.seconds(timeout)
    if _joined is not None:
        world, place, pid = _joined
        if pid == os.getpid() and not world.closed:
            return world
        if place.size > 1:
            who = f"rank {place.rank} of {place.size}"
            if pid != os.getpid():
                raise ClosedError(f"{who}: this process was forked from it and is no rank; collx.spawn makes ranks")
            raise ClosedError(f"{who}: the world was closed, or broken by an error; a process joins its job once")
    return join(bootstrap.find_place(os.environ), timeout)


def join(place: Place, timeout: float) -> Communicator:
    """As init, for a given place; the world so made is what init returns from then on."""
    global _joined
    transport = bootstrap.find_transport(place, os.environ)
    world = _lone_world(timeout) if transport == "memory" else _shm_world(place, timeout)
    _joined = (world, place, os.getpid())
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: dump_all())
    return world


def _lone_world(timeout: float) -> Communicator:
    def make_group(members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        return ReferenceEngine(MemoryTransport(MemoryHub(1), 0))

    engine = make_group((0,), "init", timeout)
    return Communicator(engine, 0, 1, 0, (os.uname().nodename,), engine.transports, timeout, make_group)


def _shm_world(place: Place, timeout: float) -> Communicator:
    deadline = time.monotonic() + timeout
    with _meeting_place(place) as directory:
        group = ShmGroup.join(directory, place.rank, place.size, deadline)

    def make_group(members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        return _shm_engine(group, members, label, time.monotonic() + timeout, look)

    engine = _shm_engine(group, range(place.size), "init", deadline)
    atexit.register(_let_the_culprit_end_first, [pid for pid in group.pids if pid != os.getpid()])
    return Communicator(
        engine, place.rank, place.size, place.local_rank, group.hosts, engine.transports, timeout, make_group
    )


def _shm_engine(
    group: ShmGroup, members: Sequence[int], label: str, deadline: float, look: Callable[[], None] | None = None
) -> Engine:
    """The native engine of a communicator of `members`, who all call this with the same label."""
    from collx.native import NativeEngine  # here, so that a lone process needs no compiled module
    from collx.transports.lanes import Region, region_bytes

    rank, size = list(members).index(group.rank), len(members)
    fd = memory_file(region_bytes(size), heap_bytes(size))
    fds = [fd]
    try:
        region = Region(rank, size, fd)  # before anybody else sees it
        fds = group.connect(members, label, fd, deadline, look)
        pidfds = [group.pidfds.fds[member] for member in members]
        name = "world" if label == "init" else label
        return NativeEngine(region, fds, rank=rank, pidfds=pidfds, keep=group.pidfds, label=name, members=members)
    except CollxError:
        raise
    except RuntimeError as error:  # no address space, no thread or no descriptor to be had
        raise TransportError(f"rank {rank} of {size} cannot join {label}: {error}") from error
    finally:
        for fd in fds:
            os.close(fd)


def _meeting_place(place: Place) -> AbstractContextManager[str]:
    """The directory where the ranks of this host meet, as long as they do."""
    kind, _, directory = place.rendezvous.partition(":")
    if not place.rendezvous:
        return contextlib.nullcontext(lifeline.job_directory())
    if kind not in ("unix", "job") or not directory.startswith("/"):
        raise BootstrapError(f"COLLX_RENDEZVOUS is {place.rendezvous!r}, but must be unix:/DIRECTORY")
    return lifeline.shared_directory(directory) if kind == "job" else contextlib.nullcontext(directory)


def _let_the_culprit_end_first(others: Sequence[int]) -> None:
    """Before this rank ends because another failed: whoever started them all will name who ended first."""
    if isinstance(getattr(sys, "last_value", None), (AbortedError, RankFailedError)):
        lifeline.await_end(others)
