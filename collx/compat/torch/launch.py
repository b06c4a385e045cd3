"""How init_process_group finds the other ranks under a launcher that torch does not know, as mpirun or `collx run`: by
variables that collx knows, and a store whose address rank 0 tells over collx. torch's own variables come first."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
from torch.distributed import TCPStore
from torch.distributed.constants import default_pg_timeout

import collx
from collx.bootstrap import Place, find_place
from collx.environment import TORCH, find_mark
from collx.transports.connections.route import usual_route

LONGEST = 256  # bytes of an address
TIMEOUT = 300.0  # seconds, of collx.init
Met = Iterator[tuple[Any, int, int]]  # a store, the rank and the size

_filled: dict[str, str] = {}  # of torch's variables, those that are ours


def meet(usual: Callable[..., Met], url: str, timeout: timedelta = default_pg_timeout, **options: Any) -> Met:
    """What torch's env:// does; where torch would give up, collx finds the others. `usual` is torch's own way."""
    given = parse_qs(urlparse(url).query)
    place = _place({name: values[0] for name, values in given.items()}, os.environ)
    if place is None:
        yield from usual(url, timeout=timeout, **options)
        return
    yield _store(place, timeout), place.rank, place.size
    raise RuntimeError("Unable to perform re-rendezvous using env:// method")


def _place(given: Mapping[str, str], environ: Mapping[str, str]) -> Place | None:
    """This process's place where only another launcher tells it; None where torch knows as much, or nobody."""
    own = {name: value for name, value in environ.items() if _filled.get(name) != value}
    mark = find_mark(own)
    if mark is None or mark.launcher is TORCH or not own.keys().isdisjoint(TORCH.meeting):
        return None
    place = find_place(own)
    rank, size = given.get("rank", own.get(TORCH.rank)), given.get("world_size", own.get(TORCH.size))
    return place if rank in (None, str(place.rank)) and size in (None, str(place.size)) else None


def _store(place: Place, timeout: timedelta) -> TCPStore:
    """Kept by rank 0, at an address that it tells over collx.init()'s world, and torch's variables from then on."""
    comm = collx.init(min(timeout.total_seconds(), TIMEOUT))
    told = np.zeros(LONGEST, np.uint8)
    if place.rank == 0:
        store, address = _opened(place, timeout)
        text = f"{address} {store.port}".encode()
        told[: len(text)] = np.frombuffer(text, np.uint8)
    host, port = bytes(comm.broadcast(told)).rstrip(b"\0").decode().split()
    values = (place.rank, place.size, comm.local_rank, comm.hosts.count(comm.hosts[comm.rank]), host, port)
    names = (TORCH.rank, TORCH.size, TORCH.local_rank, TORCH.local_size, *TORCH.meeting)
    for name, value in zip(names, map(str, values), strict=True):
        if name not in os.environ or name in _filled:
            os.environ[name] = _filled[name] = value
    if place.rank == 0:
        return store
    return TCPStore(host, int(port), place.size, is_master=False, timeout=timeout, wait_for_workers=False)


def _opened(place: Place, timeout: timedelta) -> tuple[TCPStore, str]:
    """A store at a free port, where only this host can reach it if all ranks are here."""
    options: dict[str, Any] = {"is_master": True, "timeout": timeout, "multi_tenant": True, "wait_for_workers": False}
    if place.local_size == place.size:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            host, port = listening.getsockname()
            return TCPStore(host, port, place.size, master_listen_fd=listening.detach(), **options), host
    host = usual_route(os.environ).address
    return TCPStore(host, 0, place.size, **options), host
