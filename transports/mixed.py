"""Two transports as one: shared memory to the ranks of this host, another one to those of other hosts."""

from __future__ import annotations

from collections.abc import Sequence

from collx.errors import ClosedError, CollxError, MismatchError, RankFailedError, TimeoutError
from collx.transports.base import Request, Transport


class MixedTransport:
    """`far`, but for the ranks in `near`, this one among them, which `shm` reaches and numbers from 0 in that order.
    Both transports are its own from now on."""

    def __init__(self, far: Transport, shm: Transport, near: Sequence[int]) -> None:
        self.rank, self.size = far.rank, far.size
        self.name = f"{shm.name}+{far.name}"
        self.threads = far.threads
        self._far, self._shm = far, shm
        self.links = tuple(shm.name if rank in near else far.name for rank in range(far.size))  # by rank
        self._near = {rank: number for number, rank in enumerate(near) if rank != far.rank}

    def __repr__(self) -> str:
        return f"MixedTransport(rank {self.rank} of {self.size}, {self._shm.name} to {sorted(self._near)})"

    def reaches(self, peer: int) -> bool:
        return self._far.reaches(peer)

    def send(self, peer: int, view: memoryview) -> Request:
        if peer not in self._near:
            return self._far.send(peer, view)
        return _NearRequest(self.rank, peer, self._shm.send(self._near[peer], view))

    def recv(self, peer: int, view: memoryview) -> Request:
        if peer not in self._near:
            return self._far.recv(peer, view)
        return _NearRequest(self.rank, peer, self._shm.recv(self._near[peer], view))

    def close(self) -> None:
        self._shm.close()
        self._far.close()


class _NearRequest:
    """A transfer by shared memory, whose errors number ranks as the whole does."""

    def __init__(self, rank: int, peer: int, request: Request) -> None:
        self.rank, self.peer, self.request = rank, peer, request

    def done(self) -> bool:
        try:
            return self.request.done()
        except CollxError as error:
            raise self._told(error) from None

    def wait(self, timeout: float) -> None:
        try:
            self.request.wait(timeout)
        except CollxError as error:
            raise self._told(error, timeout) from None

    def _told(self, error: CollxError, timeout: float = 0.0) -> CollxError:
        here, there = f"rank {self.rank}", f"rank {self.peer}"
        match error:
            case RankFailedError():
                return RankFailedError(
                    f"{here}: {there}, on the same host, died or closed this communicator", (self.peer,)
                )
            case TimeoutError():
                return TimeoutError(f"{here}: nothing from or to {there} within {timeout:g} s")
            case MismatchError():
                return MismatchError(f"{here}: a message of {there} has another length than its receive")
            case ClosedError():
                return ClosedError(f"{here}: the communicator was closed")
        return type(error)(f"{here} with {there}, by shared memory and its numbers: {error}")
