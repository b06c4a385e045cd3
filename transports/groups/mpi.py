"""The processes that an MPI communicator joins: on which hosts they are, and how some of them form a new one.

MPI's own calls for that block without a deadline. So nobody makes one before all of its members are known to have come,
by calls that do not block.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Sequence
from typing import Self

from mpi4py import MPI

from collx.errors import BootstrapError, CollxError, MismatchError, TimeoutError, TransportError
from collx.transports.groups.machines import Machines, machine
from collx.transports.mpi import abandon, retire
from collx.transports.mpi_calls import blocking_calls, calls
from collx.transports.waiting import Pause

TEXT = 512  # bytes at most that a rank tells of itself
DIGEST = 16  # bytes


class MpiGroup(Machines):
    """This process among those of `comm`, which is the group's own."""

    def __init__(self, comm: MPI.Intracomm, hosts: Sequence[str], machines: Sequence[str]) -> None:
        super().__init__(comm.rank, hosts, machines)
        self.comm = comm
        weakref.finalize(self, retire, comm).atexit = False  # MPI_Finalize does the same then

    @classmethod
    def join(cls, comm: MPI.Intracomm, deadline: float) -> Self:
        """The group of a duplicate of `comm`. Collective among its ranks. Raises BootstrapError at `deadline`, a time
        of `time.monotonic`."""
        if not MPI.Is_initialized() or MPI.Is_finalized():
            state = "was finalized" if MPI.Is_finalized() else "is not initialised: call MPI.Init() first"
            raise TransportError(f"MPI {state}")
        with calls:
            own, request = comm.Idup()
        _await([request], own, deadline, _absent(comm, "came to be joined by MPI"))
        own.Set_errhandler(MPI.ERRORS_RETURN)
        told = exchange(own, "\n".join((os.uname().nodename, machine())), deadline)
        return cls(own, *zip(*(text.split("\n") for text in told), strict=True))

    def numbers(self) -> list[int]:
        """The ranks' numbers in the job that was started together; none where some were not started with it."""
        with calls:
            here, world = self.comm.Get_group(), MPI.COMM_WORLD.Get_group()
            numbers = MPI.Group.Translate_ranks(here, None, world)
            here.Free()
            world.Free()
        return [] if MPI.UNDEFINED in numbers else list(numbers)

    def connect(self, members: Sequence[int], label: str, deadline: float) -> MPI.Intracomm:
        """A communicator of `members`, in this order. Collective among them, who give the same label. Raises
        TimeoutError at `deadline` with one that did not come."""
        digest = hashlib.blake2b(label.encode(), digest_size=DIGEST).digest()
        most = MPI.COMM_WORLD.Get_attr(MPI.TAG_UB)
        assert isinstance(most, int)
        tag = int.from_bytes(digest[:4], "little") % most
        self._gather(members, label, digest, tag, deadline)
        with blocking_calls:
            group = self.comm.Get_group()
            chosen = group.Incl(list(members))
            comm = self.comm.Create_group(chosen, tag)
            comm.Set_errhandler(MPI.ERRORS_RETURN)
            group.Free()
            chosen.Free()
        return comm

    def _gather(self, members: Sequence[int], label: str, digest: bytes, tag: int, deadline: float) -> None:
        """Return when all members have come here, by dissemination: in round k everybody tells the one 2**k further."""
        me, size, distance = members.index(self.rank), len(members), 1
        while distance < size:
            to, source = members[(me + distance) % size], members[(me - distance) % size]
            if self._swapped(digest, to, source, tag, label, deadline) != digest:
                raise MismatchError(
                    f"rank {self.rank} in {label}: rank {source} makes another communicator; its members must make it"
                    " at the same time"
                )
            distance *= 2

    def _swapped(self, digest: bytes, to: int, source: int, tag: int, label: str, deadline: float) -> bytes:
        theirs = bytearray(DIGEST)
        with calls:
            sent = self.comm.Isend([digest, MPI.BYTE], to, tag)
            received = self.comm.Irecv([theirs, MPI.BYTE], source, tag)
        late = TimeoutError(f"rank {self.rank}: rank {source}, or one it waits for, did not come to {label} in time")
        try:
            _await([sent, received], (digest, theirs), deadline, late)
        except BaseException:
            received.Cancel()
            raise
        return bytes(theirs)


def exchange(comm: MPI.Intracomm, text: str, deadline: float) -> list[str]:
    """Every rank's text, in rank order. Collective. Raises BootstrapError at `deadline`."""
    mine = bytearray(text.encode()[:TEXT].ljust(TEXT, b"\0"))
    all_of_them = bytearray(TEXT * comm.size)
    with calls:
        request = comm.Iallgather([mine, MPI.BYTE], [all_of_them, MPI.BYTE])
    _await([request], (mine, all_of_them), deadline, _absent(comm, "told where they are"))
    texts = (all_of_them[start : start + TEXT] for start in range(0, len(all_of_them), TEXT))
    return [bytes(text).rstrip(b"\0").decode(errors="replace") for text in texts]


def _absent(comm: MPI.Intracomm, what: str) -> CollxError:
    return BootstrapError(
        f"rank {comm.rank} of {comm.size}: not all ranks {what} within the timeout; is every rank calling it?"
    )


def _await(requests: Sequence[MPI.Request], memory: object, deadline: float, late: CollxError) -> None:
    """Return when all requests, which use `memory`, have ended."""
    pause = Pause()
    try:
        while True:
            with calls:
                if MPI.Request.Testall(requests):
                    return
            if time.monotonic() >= deadline:
                raise late
            pause()
    except BaseException:
        abandon(requests, memory)
        raise
