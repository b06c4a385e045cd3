"""Calls to make again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from collx import Communicator

# Collective -> a call of it with out=, for arrays of `size` rows on each rank and out as the result needs it.
CALLS: dict[str, Callable[..., Any]] = {
    "all_reduce": lambda comm, x, **more: comm.all_reduce(x, **more),
    "reduce_scatter": lambda comm, x, **more: comm.reduce_scatter(x, **more),
    "all_gather": lambda comm, x, **more: comm.all_gather(x, **more),
    "all_to_all": lambda comm, x, **more: comm.all_to_all(x, **more),
    "reduce": lambda comm, x, **more: comm.reduce(x, root=1, **more),
    "gather": lambda comm, x, **more: comm.gather(x, 1, **more),
    "scatter": lambda comm, x, **more: comm.scatter(x, 1, **more),
    "scan": lambda comm, x, **more: comm.scan(x, **more),
    "exscan": lambda comm, x, **more: comm.exscan(x, **more),
}


def rows(name: str, comm: Communicator) -> int:
    """Rows of the result, of `size` rows given."""
    return {"all_gather": comm.size**2, "gather": comm.size**2, "reduce_scatter": 1, "scatter": 1}.get(name, comm.size)


class Named(np.ndarray[Any, Any]):
    """A subclass, which goes the long way."""
