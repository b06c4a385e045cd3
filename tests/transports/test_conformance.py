"""Every transport passes the shipped suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from collx.transports.base import Transport
from collx.transports.conformance import CHECKS, Check, Make
from collx.transports.lanes import ShmTransport
from collx.transports.memory import MemoryHub, MemoryTransport
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
        ranks: list[Transport] = [ShmTransport(owned[rank], descriptors, rank=rank) for rank in range(size)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.close()


# Every transport has its line here: a factory `make(size)`, see collx.transports.conformance.
TRANSPORTS: dict[str, Make] = {
    "memory": partial(memory, rendezvous=False),
    "memory-rendezvous": partial(memory, rendezvous=True),
    "shm": shm,
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, transport: str) -> None:
    check(TRANSPORTS[transport])
