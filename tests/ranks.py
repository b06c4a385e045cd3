"""Runs a function on ranks of each kind: threads on the reference engine, processes on the native one, with and without
shared memory."""

from __future__ import annotations

import functools
import os
import threading
import unittest.mock
from collections.abc import Callable, Sequence
from typing import Any

import collx
from collx.communicator import Communicator
from collx.decisions import UNDECIDED, Decisions, agreed
from collx.engine import Engine, ReferenceEngine
from collx.spots import NOWHERE, Spot
from collx.transports.conformance import run_threads
from collx.transports.memory import MemoryHub, MemoryTransport

Body = Callable[..., Any]
TIMEOUT = 60.0


class Hubs:
    """The hubs of one job by label, so that the members of a split find each other's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hubs: dict[tuple[str, tuple[int, ...]], MemoryHub] = {}

    def engine(
        self,
        world_rank: int,
        members: Sequence[int],
        label: str,
        timeout: float,
        look: Callable[[], None] | None = None,
    ) -> Engine:
        with self._lock:
            hub = self._hubs.setdefault((label, tuple(members)), MemoryHub(len(members)))
        return ReferenceEngine(MemoryTransport(hub, list(members).index(world_rank)))


def on_threads(body: Body, size: int, *args: Any) -> list[Any]:
    """As collx.spawn, on threads of this process."""
    return on_hosts(body, ("here",) * size, *args)


def on_hosts(
    body: Body,
    hosts: Sequence[str],
    *args: Any,
    decisions: Decisions = UNDECIDED,
    spots: Sequence[Spot] = (),
) -> list[Any]:
    """The same, each rank believing that the ranks are on these hosts, rank 0 having found these decisions, and each,
    where there are `spots`, its own."""
    hubs, size = Hubs(), len(hosts)

    def run(rank: int) -> Any:
        engine = hubs.engine(rank, range(size), "world", TIMEOUT)
        make_group = functools.partial(hubs.engine, rank)
        mine = (spots or [NOWHERE] * size)[rank]
        told = agreed(engine, rank, size, TIMEOUT, lambda: decisions, lambda: mine)
        near = list(hosts[:rank]).count(hosts[rank])
        with Communicator(engine, rank, near, hosts, TIMEOUT, make_group, decisions=told) as comm:
            return body(comm, *args)

    return run_threads(size, run)


def by_tcp(body: Body, size: int, *args: Any) -> list[Any]:
    """As collx.spawn, with ranks that do not share memory."""
    with unittest.mock.patch.dict(os.environ, COLLX_TRANSPORT="tcp"):
        return collx.spawn(body, size, *args)


KINDS: dict[str, Callable[..., list[Any]]] = {"memory": on_threads, "shm": collx.spawn, "tcp": by_tcp}
SIZES = range(1, 9)


def ranks(kind: str, size: int, body: Body, *args: Any) -> list[Any]:
    """`body(comm, *args)` on `size` ranks of a kind; the results by rank, or the first failure."""
    return KINDS[kind](body, size, *args)
