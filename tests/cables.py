"""Ranks that are threads of this process, joined as if they were on several hosts: those of one host by memory, all
others by real connections over loopback, without doors in front of them."""

from __future__ import annotations

import atexit
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import NamedTuple

from collx import _core
from collx.transports.conformance import run_threads
from collx.transports.connections.dialer import Dialer
from collx.transports.lanes import Region, Wires, region_bytes
from collx.transports.shm import memory_file

_numbers = itertools.count(1)  # of communicators


class End(NamedTuple):
    """What the engine of one rank is made of."""

    region: Region
    fds: list[int]
    wires: Wires | None


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for end in (one, other):
        end.setblocking(False)
    return one, other


class Cables:
    """The control connections between `size` processes, all pairs; data connections are made as they are wanted."""

    def __init__(self, size: int) -> None:
        self.controls = [_core.Control(rank, size) for rank in range(size)]
        for one, other in itertools.combinations(range(size), 2):
            ends = pair()
            self.controls[one].add(other, ends[0].detach())
            self.controls[other].add(one, ends[1].detach())
        self._dialers = [Dialer(control, partial(self._dial, rank)) for rank, control in enumerate(self.controls)]

    def _dial(self, rank: int, communicator: int, peer: int) -> None:
        own, theirs = pair()
        self.controls[rank].attach(communicator, peer, own.detach())
        self.controls[peer].attach(communicator, rank, theirs.detach())

    def close(self) -> None:
        for dialer in self._dialers:
            dialer.close()
        # Each waits for the others to say goodbye.
        run_threads(len(self.controls), lambda rank: self.controls[rank].close())


@cache
def cables(size: int) -> Cables:
    """For all communicators of so many ranks, as long as this process lives."""
    found = Cables(size)
    atexit.register(found.close)
    return found


@contextmanager
def ends(size: int, host: Callable[[int], int]) -> Iterator[list[End]]:
    """One communicator's ranks, each on its `host`. The descriptors are closed when the block ends."""
    hosts = [host(rank) for rank in range(size)]
    number = next(_numbers)
    with ExitStack() as stack:
        files = [memory_file(region_bytes(size), 1 << 30) for _ in range(size)]
        for file in files:
            stack.callback(os.close, file)
        controls = cables(size).controls
        places = tuple(f"rank {rank}'s host {host}" for rank, host in enumerate(hosts))
        found = []
        for rank in range(size):
            fds = [file if hosts[peer] == hosts[rank] else -1 for peer, file in enumerate(files)]
            wires = Wires(controls[rank], number, 1, tuple(range(size)), size, places)
            found.append(End(Region(rank, size, files[rank]), fds, wires if -1 in fds else None))
        yield found
