"""How ranks under torchrun tell each other where they are: by the store that it keeps for torch at MASTER_PORT, where
rank 0 could therefore not listen itself. It is reached by torch, since its protocol is torch's own."""

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
    """Every rank's text, in rank order, by the store at `meeting`, torch://HOST:PORT/RESTARTS. Collective among the
    ranks of the job; `deadline` is of `time.monotonic`. Raises BootstrapError where there is no torch or no store, and
    at the deadline, with the ranks that did not come.
    """
    found = re.fullmatch(r"torch://\[?(.+?)\]?:(\d+)/(\d+)", meeting)
    assert found is not None, meeting
    host, port, restarts = found[1], int(found[2]), found[3]
    try:
        store = _store(rank, host, port, deadline)
        turn = store.add(f"{PREFIX}/{restarts}/turn/{rank}", 1)  # a worker may run one program after another
        keys = [f"{PREFIX}/{restarts}/{turn}/{peer}" for peer in range(size)]
        store.set(keys[rank], text)
        missing = _wait(store, keys, deadline)
        if not missing:
            return [store.get(key).decode() for key in keys]
    except RuntimeError as error:  # torch's errors are
        if isinstance(error, BootstrapError):
            raise
        reason = str(error).splitlines()[0]
        raise BootstrapError(f"rank {rank}: torchrun's store at {host}, port {port}, failed: {reason}") from error
    here = [peer for peer in range(size) if peer not in missing]
    raise BootstrapError(
        f"{named(missing)} of {size} did not come to torchrun's store within the timeout of init; {named(here)} did"
    )


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
