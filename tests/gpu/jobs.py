"""Ranks on GPUs that do many checks, in every sync mode, before they end: starting them takes longer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import collx
from collx.perf.gpu import synchronised
from collx.transports.cuda.driver import driver
from tests.gpu.found import Found
from tests.gpu.kits import Kit

MODES = tuple(os.environ.get("COLLX_GPU_MODES", "host,event,memop").split(","))  # spin: under MPS, or with GPUs enough
Check = Callable[[Any, Kit], Found]
Checks = Callable[[str], Sequence[Check]]  # by sync mode


def found(size: int, checks: Checks, kits: Sequence[Callable[[int], Kit]]) -> list[str]:
    """What `size` ranks found wrong, none being all there is to hope for."""
    return [line for lines in collx.spawn(_rank, size, checks, kits) for line in lines]


def _rank(comm: Any, checks: Checks, kits: Sequence[Callable[[int], Kit]]) -> list[str]:
    lines = []
    for mode in MODES:
        for kit in [make(comm.local_rank % driver().devices()) for make in kits]:
            same = synchronised(comm, mode, partial(kit.put, np.zeros(1, np.float32)))
            for check in checks(mode):
                lines += run(same, kit, check, mode)
            same.close()
    return lines


def run(comm: Any, kit: Kit, check: Check, mode: str) -> list[str]:
    name = getattr(check, "func", check).__name__
    where = f"{name}, {mode}, {kit.name}, rank {comm.rank} of {comm.size}"
    try:
        return check(comm, kit).text(where)
    except BaseException as error:
        error.add_note(where)
        raise
