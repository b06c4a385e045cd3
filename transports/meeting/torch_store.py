"""How ranks tell each other where they are by a store of torch.distributed's: one that their program made, or the one
that torchrun keeps for torch at MASTER_PORT, where rank 0 could therefore not listen itself."""

from __future__ import annotations

import datetime
import re
import time
from typing import Any

from collx.errors import BootstrapError
from collx.transports.verdict import named

PREFIX = "collx"
SLACK = 0.1  # seconds by which its clock may be ahead of ours


def exchange(meeting: str, rank: int, size: int, text: str, deadline: float) -> list[str]:
    """Every rank's text, in rank order, by torchrun's store at `meeting`, torch://HOST:PORT/RESTARTS. As `by_store`;
    also raises BootstrapError where there is no torch."""
    found = re.fullmatch(r"torch://\[?(.+?)\]?:(\d+)/(\d+)", meeting)
    assert found is not None, meeting
    host, port, restarts = found[1], int(found[2]), found[3]
    where = f"torchrun's store at {host}, port {port},"
    try:
        store = _store(rank, host, port, deadline)
    except BootstrapError:
        raise
    except RuntimeError as error:  # torch's errors are
        raise _failed(rank, where, error) from error
    return by_store(store, f"{PREFIX}/{restarts}", where, rank, size, text, deadline)


def by_store(store: Any, prefix: str, where: str, rank: int, size: int, text: str, deadline: float) -> list[str]:
    """Every rank's text, in rank order, by keys of `store` that begin with `prefix`, as often as ranks like. Collective
    among them; `deadline` is of `time.monotonic`. Raises BootstrapError where the store fails, `where` being what to
    call it, and at the deadline, with the ranks that did not come.
    """
    try:
        turn = store.add(f"{prefix}/turn/{rank}", 1)  # a worker may run one program after another
        keys = [f"{prefix}/{turn}/{peer}" for peer in range(size)]
        store.set(keys[rank], text)
        missing = _wait(store, keys, deadline)
        if not missing:
            return [store.get(key).decode() for key in keys]
        store.delete_key(keys[rank])  # so that who tries again meets those who come late
        store.add(f"{prefix}/turn/{rank}", -1)
    except RuntimeError as error:
        raise _failed(rank, where, error) from error
    here = [peer for peer in range(size) if peer not in missing]
    raise BootstrapError(
        f"{named(missing)} of {size} did not come to {where.rstrip(',')} within the timeout; {named(here)} did"
    )


def _failed(rank: int, where: str, error: RuntimeError) -> BootstrapError:
    return BootstrapError(f"rank {rank}: {where} failed: {str(error).splitlines()[0]}")


def _store(rank: int, host: str, port: int, deadline: float) -> Any:
    try:
        from torch.distributed import TCPStore  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise BootstrapError(
            f"rank {rank}: at {host}, port {port}, torchrun keeps a store that only torch can ask, which cannot be"
            f" imported ({error}); set COLLX_RENDEZVOUS=tcp://HOST:PORT to another port of rank 0's host"
        ) from error
    return TCPStore(host, port, is_master=False, timeout=_left(deadline), wait_for_workers=False)


def _wait(store: Any, keys: list[str], deadline: float) -> list[int]:
    """The ranks whose keys are not there at the deadline."""
    try:
        store.wait(keys, _left(deadline))
    except RuntimeError:
        if time.monotonic() + SLACK < deadline:
            raise
        return [rank for rank, key in enumerate(keys) if not store.check([key])]
    return []


def _left(deadline: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=max(deadline - time.monotonic(), 0.001))
