"""How the ranks of a job make MPI's own collectives, on which they agree when they meet."""

from __future__ import annotations

from typing import Any, NamedTuple

from collx.errors import TransportError
from collx.transports.base import Threads
from collx.transports.groups.mpi import exchange
from collx.transports.mpi_calls import threads


class Ways(NamedTuple):
    """`compare`: all ranks say which call they make before they make it. `block`: a call may block in MPI. It may not
    where threads take turns at MPI, as it would keep out the one that the others wait for."""

    compare: bool = True
    block: bool = True


def agreed_ways(comm: Any, compare: bool, deadline: float) -> Ways:
    """What holds for all ranks of `comm`, which give whether they mean to compare. Collective; as `exchange` raises,
    and TransportError where they do not mean the same."""
    told = exchange(comm, f"{compare:d} {threads() is Threads.ANY:d}", deadline)
    means = [int(text.split()[0]) for text in told]
    if len(set(means)) > 1:
        raise TransportError(
            f"COLLX_CHECK is 0 on rank {means.index(0)} and not on rank {means.index(1)}; set it alike on all ranks"
        )
    return Ways(compare, all(int(text.split()[1]) for text in told))
