"""Every transport passes the shipped suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from collx.transports.base import Transport
from collx.transports.conformance import CHECKS, Check, Make, run_threads
from collx.transports.lanes import LaneTransport
from collx.transports.memory import MemoryHub, MemoryTransport
from collx.transports.mixed import MixedTransport
from tests.cables import ends
from tests.harness import regions


@contextmanager
def memory(size: int, rendezvous: bool) -> Iterator[list[Transport]]:
    hub = MemoryHub(size, rendezvous=rendezvous)
    ranks: list[Transport] = [MemoryTransport(hub, rank) for rank in range(size)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.close()


@contextmanager
def shm(size: int) -> Iterator[list[Transport]]:
    with regions(size) as (owned, descriptors):
        ranks: list[Transport] = [LaneTransport(owned[rank], descriptors, rank=rank) for rank in range(size)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.close()


@contextmanager
def tcp(size: int, host: Callable[[int], int]) -> Iterator[list[Transport]]:
    """Ranks of the same `host` by shared memory, others by TCP."""
    with ends(size, host) as found:
        ranks: list[Transport] = [
            LaneTransport(end.region, end.fds, rank=rank, wires=end.wires) for rank, end in enumerate(found)
        ]
        try:
            yield ranks
        finally:
            run_threads(size, lambda rank: ranks[rank].close())


@contextmanager
def mixed(size: int, host: Callable[[int], int]) -> Iterator[list[Transport]]:
    """Ranks of the same `host` by shared memory, others by a hub."""
    hosts = [host(rank) for rank in range(size)]
    near = {rank: [other for other in range(size) if hosts[other] == hosts[rank]] for rank in range(size)}
    with memory(size, rendezvous=False) as far, ExitStack() as stack:
        ends: dict[int, Transport] = {}
        for members in {tuple(members) for members in near.values()}:
            ends |= zip(members, stack.enter_context(shm(len(members))), strict=True)
        yield [MixedTransport(far[rank], ends[rank], near[rank]) for rank in range(size)]


# Every transport has its line here: a factory `make(size)`, see collx.transports.conformance.
TRANSPORTS: dict[str, Make] = {
    "memory": partial(memory, rendezvous=False),
    "memory-rendezvous": partial(memory, rendezvous=True),
    "shm": shm,
    "tcp": partial(tcp, host=lambda rank: rank),
    "shm+tcp": partial(tcp, host=lambda rank: rank // 2),
    "mixed-near": partial(mixed, host=lambda rank: rank // 2),
    "mixed-far": partial(mixed, host=lambda rank: rank % 2),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, transport: str) -> None:
    check(TRANSPORTS[transport])
