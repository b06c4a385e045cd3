"""Bytes between processes through lanes, moved by the native endpoint: the shm transport, whose lanes lie in shared
memory, the tcp transport, whose lanes go on over connections, and both at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collx import _core
from collx.errors import (
    AbortedError,
    CancelledError,
    ClosedError,
    CollxError,
    MismatchError,
    TimeoutError,
    TransportError,
    TruncatedError,
)
from collx.transports.base import Threads
from collx.transports.shm import check_available
from collx.transports.verdict import FAILED, Verdict, named

Region = _core.Region
region_bytes = _core.region_bytes

# Status of csrc/wait.hpp, in its order.
OK, TIMED_OUT, DECIDED, DEPARTED, MISMATCHED, LENGTH, INTERRUPTED, CLOSED = range(8)
OP_FAILED, BUSY, NO_MEMORY, UNREADABLE, RECALLED, TRUNCATED = range(8, 14)
TRANSFER_TAG = -2  # of the transport's own messages; users' tags are not negative, and -1 is any of those
FOREVER = 1e8  # seconds
UNDECIDED, UNITED, ATTEMPT_FAILED, GIVEN_UP = range(4)  # of csrc/shrink.hpp; GIVEN_UP + r: by rank r


class Wires(NamedTuple):
    """What leads to those ranks of a communicator that are on other machines."""

    control: _core.Control
    communicator: int  # its number, the same for all members, and no other's that two of them have in common
    epoch: int  # of the job
    members: tuple[int, ...]  # the communicator's ranks as `control` numbers them
    here: int  # how many of them run on this machine
    places: tuple[str, ...]  # where each of them is, for people


class LaneTransport:
    """One rank's end of the regions `fds`, one per rank, its own (`region`) among them; -1 for a rank that `wires` lead
    to.

    The descriptors may be closed once it is made. `pidfds`, by rank, -1 where there is none, tell of the end of the
    ranks' processes; `keep` owns them. Sends are buffered up to a few tens of KiB, and wait for the
    receiver beyond.
    """

    threads = Threads.ANY

    def __init__(
        self,
        region: Region,
        fds: Sequence[int],
        *,
        rank: int,
        pidfds: Sequence[int] = (),
        keep: object = None,
        wires: Wires | None = None,
    ) -> None:
        self.rank, self.size = rank, len(fds)
        # By rank: what carries messages to it.
        self.links = tuple("tcp" if fd < 0 and peer != rank else "shm" for peer, fd in enumerate(fds))
        others = {link for peer, link in enumerate(self.links) if peer != rank}
        self.name = "+".join(sorted(others)) or ("tcp" if wires else "shm")
        self.place = wires.places[rank] if wires else ""  # where others reach this rank
        oversubscribed = (wires.here if wires else self.size) > len(os.sched_getaffinity(0))
        self._region = region
        network = (wires.control, wires.communicator, wires.epoch, list(wires.members)) if wires else ()
        self.endpoint = _core.Endpoint(region, list(fds), oversubscribed, list(pidfds), keep, *network)

    def reaches(self, peer: int) -> bool:
        return 0 <= peer < self.size

    def send(self, peer: int, view: memoryview) -> Transfer:
        address, keep = _address(view)
        task = self.endpoint.start_send(peer, TRANSFER_TAG, address, view.nbytes, FOREVER)
        return Transfer(self, task, f"a send to rank {peer}", keep)

    def recv(self, peer: int, view: memoryview) -> Transfer:
        address, keep = _address(view)
        task = self.endpoint.start_recv(peer, TRANSFER_TAG, address, view.nbytes, FOREVER)
        return Transfer(self, task, f"a receive from rank {peer}", keep)

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """`nbytes` bytes in this rank's heap, which go back to it with the last view. Raises MemoryError."""
        try:
            check_available(nbytes)
            return Region.allocate(self._region, nbytes)
        except MemoryError as error:
            raise MemoryError(f"rank {self.rank}: {error}") from None

    def close(self) -> None:
        self.endpoint.close()

    def verdict(self) -> Verdict:
        """What ended the communicator; `why` is NONE where nothing has."""
        why, rank, text, ranks = self.endpoint.verdict()
        return Verdict(why, rank, text, tuple(ranks))

    def sentence(self, here: str) -> CollxError:
        """What this rank raises for the verdict."""
        verdict = self.verdict()
        return verdict.error(here, [rank for rank in verdict.ranks if self.endpoint.left(rank)])

    def error(self, outcome: tuple[int, int, int, int], what: str, told: str, timeout: float) -> CollxError:
        """The exception for an outcome that is not ok: one line that names ranks, call and remedy. `told` is what the
        records say of it: who is late, or what two ranks disagree on."""
        status, peer, nbytes, wanted = outcome
        here = f"rank {self.rank} in {what}"
        match status:
            case _ if status == TIMED_OUT:
                there = f": {told}" if told else ""
                remedy = "is every rank calling it, or is timeout= too short?"
                return TimeoutError(f"{here} waited {timeout:g} s{there}; {remedy}")
            case _ if status == DECIDED:
                return self.sentence(here)
            case _ if status == DEPARTED:
                return Verdict(FAILED, self.rank, ranks=(peer,)).error(here, (peer,))
            case _ if status == MISMATCHED:
                return MismatchError(told)
            case _ if status == LENGTH:
                return MismatchError(
                    f"{here}: rank {peer} sent {nbytes} bytes, which is not the length of this receive"
                )
            case _ if status == BUSY:
                return CollxError(f"{here}: a signal handler or user's op called it inside another call")
            case _ if status == NO_MEMORY:
                return CollxError(f"{here}: out of memory for what the call keeps aside")
            case _ if status == UNREADABLE:
                return CollxError(
                    f"{here}: the memory of rank {peer} can no longer be read; has it changed its user or"
                    " what it may do since the communicator was made?"
                )
            case _ if status == RECALLED:
                return CancelledError(f"{here}: it was cancelled before anything came")
            case _ if status == TRUNCATED:
                return TruncatedError(
                    f"{here}: rank {peer} sent {nbytes} bytes with tag {wanted}, for which there is no room"
                )
            case _ if status == CLOSED:
                return ClosedError(f"{here}: the communicator was closed meanwhile")
        return CollxError(f"{here}: unexpected status {status} about rank {peer}")


class LaneSurvivors:
    """See `base.Survivors`; the agreement itself is in csrc/shrink.hpp."""

    def __init__(self, transport: LaneTransport) -> None:
        self._endpoint, self._rank = transport.endpoint, transport.rank
        self._here = f"rank {transport.rank} in shrink"

    def members(self, attempt: int, timeout: float) -> tuple[int, ...]:
        try:
            members = tuple(self._endpoint.members(attempt, timeout))
        except BaseException as error:
            self._endpoint.give_up(attempt, type(error).__name__)
            raise
        if not members:
            waited = f"waited {timeout:g} s to agree on who goes on; does every survivor call it?"
            self._endpoint.give_up(attempt, f"TimeoutError: it {waited}")
            raise TimeoutError(f"{self._here} {waited}")
        if self._rank not in members:
            raise TransportError(f"{self._here}: the other survivors cannot reach this rank, and go on without it")
        return members

    def failed(self, attempt: int) -> bool:
        return self._judged(self._endpoint.outcome(attempt)) == ATTEMPT_FAILED

    def unite(self, attempt: int, timeout: float) -> bool:
        outcome = self._judged(self._endpoint.unite(attempt, timeout))
        if outcome == UNDECIDED:
            missing = named(self._endpoint.missing(attempt))
            raise TimeoutError(f"{self._here} waited {timeout:g} s for {missing}; does every survivor call it?")
        return outcome == UNITED

    def give_up(self, attempt: int, reason: str) -> bool | None:
        outcome = self._endpoint.give_up(attempt, reason)
        return None if outcome >= GIVEN_UP else outcome == UNITED

    def _judged(self, outcome: int) -> int:
        if outcome >= GIVEN_UP:
            rank = outcome - GIVEN_UP
            raise AbortedError(f"{self._here}: rank {rank} gave up: {self._endpoint.regret(rank)}")
        return outcome


class Transfer:
    """A message under way; see `base.Request`."""

    __slots__ = ("_keep", "_task", "_transport", "_what")

    def __init__(self, transport: LaneTransport, task: _core.Task, what: str, keep: object) -> None:
        self._transport, self._task, self._what, self._keep = transport, task, what, keep

    def done(self) -> bool:
        if self._task.done():
            self.wait(FOREVER)
            return True
        return False

    def wait(self, timeout: float) -> None:
        outcome = self._transport.endpoint.wait(self._task, timeout)
        if outcome[0] != OK:
            told = f"rank {outcome[1]} has not answered" if outcome[1] >= 0 else ""
            raise self._transport.error(outcome, self._what, told, timeout)


def _address(view: memoryview) -> tuple[int, object]:
    """The address of a view's bytes, and what keeps them where they are."""
    array = np.frombuffer(view, np.uint8)
    return array.__array_interface__["data"][0], array
