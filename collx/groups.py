"""What joins the ranks of a group: shared memory on one host, MPI between hosts, or MPI alone where asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from collx import lifeline
from collx.bootstrap import compares
from collx.engine import Engine, ReferenceEngine
from collx.errors import CollxError, TransportError
from collx.transports.base import Transport
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.shm import ShmGroup, heap_bytes, memory_file

if TYPE_CHECKING:
    from collx.mpi.ways import Ways
    from collx.transports.lanes import Region
    from collx.transports.mpi_group import MpiGroup

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
        with self._memory(members, label, timeout, look) as (rank, region, fds, pidfds):
            keep = self.group.pidfds
            return NativeEngine(region, fds, rank=rank, pidfds=pidfds, keep=keep, label=label, members=numbers)

    def transport(self, members: Sequence[int], label: str, timeout: float) -> Transport:
        """As engine, but what moves bytes alone."""
        from collx.transports.lanes import ShmTransport

        with self._memory(members, label, timeout, None) as (rank, region, fds, pidfds):
            return ShmTransport(region, fds, rank=rank, pidfds=pidfds, keep=self.group.pidfds)

    @contextmanager
    def _memory(
        self, members: Sequence[int], label: str, timeout: float, look: Look
    ) -> Iterator[tuple[int, Region, list[int], list[int]]]:
        """This rank's number among the members, its region, and all members' descriptors of memory and of processes."""
        from collx.transports.lanes import Region, region_bytes

        rank, size = list(members).index(self.group.rank), len(members)
        fd = memory_file(region_bytes(size), heap_bytes(size))
        fds = [fd]
        try:
            region = Region(rank, size, fd)  # before anybody else sees it
            fds = self.group.connect(members, label, fd, time.monotonic() + timeout, look)
            yield rank, region, fds, [self.group.pidfds.fds[member] for member in members]
        except CollxError:
            raise
        except RuntimeError as error:  # no address space, no thread or no descriptor to be had
            raise TransportError(f"rank {rank} of {size} cannot join {label}: {error}") from error
        finally:
            for fd in fds:
                os.close(fd)


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
    from collx.transports.mpi_group import exchange

    ways = agreed_ways(group.comm, compares(os.environ), deadline)
    if forced or not group.share(range(group.size)):
        return Mpi(group, None, ways, end_job)
    near = group.near(range(group.size))
    path = exchange(group.comm, lifeline.new_path(), deadline)[near[0]]
    with lifeline.shared_directory(path) as directory:
        processes = ShmGroup.join(directory, near.index(group.rank), len(near), deadline)
    numbers = group.numbers()
    shm = Shm(processes, [numbers[member] for member in near] if numbers else [])
    return shm if len(near) == group.size else Mpi(group, shm, ways, end_job)
