"""What joins the ranks of a group: shared memory on one host, TCP or MPI between hosts, or one of these alone where
asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from collx import lifeline
from collx.bootstrap import Place, compares
from collx.engine import Engine, ReferenceEngine
from collx.errors import CollxError, TransportError
from collx.transports.base import Transport
from collx.transports.groups.machines import Machines
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.shm import ShmGroup, heap_bytes, memory_file

if TYPE_CHECKING:
    from collx.mpi.ways import Ways
    from collx.transports.groups.mpi import MpiGroup
    from collx.transports.groups.tcp import TcpGroup
    from collx.transports.lanes import Region
    from collx.transports.tcp import Exchange

Look = Callable[[], None] | None
EndJob = Callable[[str], object]


class Lone:
    """A process by itself."""

    def engine(self, members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        return ReferenceEngine(MemoryTransport(MemoryHub(1), 0))


class Shm:
    """Ranks of one host. `numbers` are their ranks in the job, where they have any: by them one communicator finds who
    waits in another."""

    def __init__(self, group: ShmGroup, numbers: Sequence[int]) -> None:
        self.group, self.numbers = group, numbers

    def engine(self, members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        """The native engine of a communicator of `members`, who all call this with the same label."""
        from collx.native import NativeEngine  # here, so that a lone process needs no compiled module

        numbers = [self.numbers[member] for member in members] if self.numbers else []
        with _memory(self.group, members, range(len(members)), len(members), label, timeout, look) as memory:
            return NativeEngine(**memory, keep=self.group.pidfds, label=label, members=numbers)

    def transport(self, members: Sequence[int], label: str, timeout: float) -> Transport:
        """As engine, but what moves bytes alone."""
        from collx.transports.lanes import LaneTransport

        with _memory(self.group, members, range(len(members)), len(members), label, timeout, None) as memory:
            return LaneTransport(**memory, keep=self.group.pidfds)


class Tcp:
    """Ranks that TCP joins; those that share a machine by its memory, where `shm` has them. For `numbers` see Shm."""

    def __init__(self, group: TcpGroup, shm: ShmGroup | None, numbers: Sequence[int]) -> None:
        self.group, self.shm, self.numbers = group, shm, numbers
        self._near = group.near(range(group.size)) if shm else [group.rank]  # the ranks that `shm` numbers from 0

    def engine(self, members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        """The native engine of a communicator of `members`, who all call this with the same label."""
        from collx.native import NativeEngine

        near = [member for member in members if member in self._near]
        here, seats = [self._near.index(member) for member in near], [list(members).index(member) for member in near]
        wires = self.group.connect(members, label) if not self.shm or len(near) < len(members) else None
        keep = (self.group, self.shm and self.shm.pidfds)
        numbers = [self.numbers[member] for member in members] if self.numbers else []
        with _memory(self.shm, here, seats, len(members), label, timeout, look) as memory:
            return NativeEngine(**memory, keep=keep, label=label, members=numbers, wires=wires)


class _Memory(TypedDict):
    """What an engine is given of its own memory and of that of its host's ranks."""

    region: Region
    fds: list[int]
    rank: int
    pidfds: list[int]


@contextmanager
def _memory(
    group: ShmGroup | None,
    here: Sequence[int],
    seats: Sequence[int],
    size: int,
    label: str,
    timeout: float,
    look: Look,
) -> Iterator[_Memory]:
    """New memory of a communicator of `size` ranks, connected with that of the ranks `here` of `group`, which are its
    ranks `seats`; descriptors of all others are -1. None: this process alone."""
    from collx.transports.lanes import Region, region_bytes

    rank = seats[here.index(group.rank) if group else 0]
    fd = memory_file(region_bytes(size), heap_bytes(len(seats)))
    found = [fd]
    try:
        region = Region(rank, size, fd)  # before anybody else sees it
        if group:
            found = group.connect(here, label, fd, time.monotonic() + timeout, look)
        fds, pidfds = [-1] * size, [-1] * size
        for member, seat, theirs in zip(here, seats, found, strict=True):
            fds[seat], pidfds[seat] = theirs, group.pidfds.fds[member] if group else -1
        yield _Memory(region=region, fds=fds, rank=rank, pidfds=pidfds)
    except CollxError:
        raise
    except RuntimeError as error:  # no address space, no thread or no descriptor to be had
        raise TransportError(f"rank {rank} of {size} cannot join {label}: {error}") from error
    finally:
        for theirs in found:
            os.close(theirs)


class Mpi:
    """Ranks that MPI joins; those that share a machine by its memory, where `shm` has them. `ways` is how they make
    MPI's own collectives, `end_job` what ends them all where one of these outlives its deadline, after saying so."""

    def __init__(self, group: MpiGroup, shm: Shm | None, ways: Ways, end_job: EndJob) -> None:
        self.group, self.shm, self.ways, self.end_job = group, shm, ways, end_job
        self._near = group.near(range(group.size))  # the ranks that `shm` numbers from 0

    def engine(self, members: Sequence[int], label: str, timeout: float, look: Look = None) -> Engine:
        deadline = time.monotonic() + timeout
        near = self.group.near(members)
        here = [self._near.index(member) for member in near]
        if self.shm is not None and len(near) == len(members):
            return self.shm.engine(here, label, timeout, look)
        from collx.mpi.engine import MpiEngine
        from collx.transports.mixed import MixedTransport
        from collx.transports.mpi import MpiTransport

        far = MpiTransport(self.group.connect(members, label, deadline))
        if self.shm is None or not self.group.share(members):
            return MpiEngine(far, far, self.ways, self.end_job)
        shm = self.shm.transport(here, label, max(deadline - time.monotonic(), 0.0))
        mixed = MixedTransport(far, shm, [list(members).index(member) for member in near])
        return MpiEngine(mixed, far, self.ways, self.end_job)


def over_mpi(group: MpiGroup, forced: bool, end_job: EndJob, deadline: float) -> Mpi | Shm:
    """What joins all ranks of `group`: MPI alone where that is forced, else shared memory wherever there is some.
    Collective. For `end_job` see Mpi."""
    from collx.mpi.ways import agreed_ways
    from collx.transports.groups.mpi import exchange

    ways = agreed_ways(group.comm, compares(os.environ), deadline)
    if forced or not group.share(range(group.size)):
        return Mpi(group, None, ways, end_job)
    near = group.near(range(group.size))
    processes = _near(group, exchange(group.comm, lifeline.new_path(), deadline)[near[0]], deadline)
    numbers = group.numbers()
    shm = Shm(processes, [numbers[member] for member in near] if numbers else [])
    return shm if len(near) == group.size else Mpi(group, shm, ways, end_job)


def over_tcp(
    place: Place, forced: bool, deadline: float, numbers: Sequence[int], exchange: Exchange | None = None
) -> Tcp | Shm:
    """What joins the ranks of a job, which meet where `place` says, or by `exchange`: TCP alone where that is forced,
    else shared memory wherever there is some. For `numbers` see Shm. Collective."""
    from collx.transports.connections.secret import find_secret, need_secret
    from collx.transports.tcp import Joining

    kind, _, where = place.rendezvous.partition("://")
    alone, word = place.local_size == place.size, lifeline.new_path()
    joining = Joining(place.rank, place.size, os.environ, deadline, word=word, apart=forced, alone=alone)
    if exchange is not None:
        group = joining.by(exchange)
    elif kind == "tcp":
        group = joining.at(where, need_secret(os.environ, place.rank))
    elif kind == "file":
        group = joining.by_file(where, find_secret(os.environ) if alone else need_secret(os.environ, place.rank))
    else:
        with lifeline.meeting_place(place.rendezvous) as directory:
            group = joining.by_file(f"{directory}/rank-0", None)
    if forced or not group.share(range(group.size)):
        return Tcp(group, None, numbers)
    near = group.near(range(group.size))
    processes = _near(group, group.cards[near[0]].word, deadline)
    if len(near) < group.size:
        return Tcp(group, processes, numbers)
    group.close()  # nobody is far
    return Shm(processes, numbers)


def _near(group: Machines, path: str, deadline: float) -> ShmGroup:
    """The ranks of `group` that share this one's machine, who meet in a directory at `path`."""
    near = group.near(range(group.size))
    with lifeline.shared_directory(path) as directory:
        return ShmGroup.join(directory, near.index(group.rank), len(near), deadline)
