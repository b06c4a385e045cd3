"""Persistent requests of large reductions: MPI allocates room for them once, where each call would touch new pages."""

from __future__ import annotations

from mpi4py import MPI

from collx.mpi.collectives import Collective

MOST = 4  # requests, each with room for as much as its call reduces


class Kept:
    """The requests that were last made, by collective and memory. To make one is collective: all ranks do, or none. So
    each has a number, the same on all ranks, by which they know whether they mean the same one: another rank may have
    used other memory in between.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[Collective, int, int], tuple[int, MPI.Prequest]] = {}
        self._made = 0

    def number(self, collective: Collective, source: int, target: int) -> int:
        """Of the request for this memory; 0 where there is none."""
        return self._requests.get((collective, source, target), (0,))[0]

    def make(self, collective: Collective, source: int, target: int) -> None:
        """A new request, also where there is one already."""
        key = (collective, source, target)
        if key not in self._requests and len(self._requests) >= MOST:
            self._free(next(iter(self._requests)))
        elif key in self._requests:
            self._free(key)
        self._made += 1
        self._requests[key] = self._made, collective.persistent(source, target)

    def start(self, collective: Collective, source: int, target: int) -> MPI.Prequest:
        """The request, which must be there, started."""
        key = (collective, source, target)
        number, request = self._requests.pop(key)
        self._requests[key] = number, request  # the newest
        request.Start()
        return request

    def close(self) -> bool:
        """Give them back; whether none is left, as one does that is still under way."""
        for key in [key for key, (_, request) in self._requests.items() if request.Test()]:
            self._free(key)
        return not self._requests

    def _free(self, key: tuple[Collective, int, int]) -> None:
        _, request = self._requests.pop(key)
        request.Free()
