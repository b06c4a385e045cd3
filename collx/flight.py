"""The flight recorder as people see it: the last collectives of every rank, in a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SHOWN = 32  # calls of each rank
STATES = ("under way", "done", "failed")
_HEAD = ("rank", "#", "collective", "algorithm", "dtype", "op", "root", "count", "state", "began", "took")
_RIGHT = ("rank", "#", "root", "began", "took")


class Flown(NamedTuple):
    """One collective that a rank has begun; times in seconds of `time.monotonic`."""

    sequence: int
    collective: str
    dtype: str
    op: str
    root: int  # -1: none
    counts: str
    algorithm: str
    state: int  # of STATES
    started: float
    ended: float  # 0: not yet, or so soon that it was not measured


def table(title: str, calls: Mapping[int, Sequence[Flown]]) -> str:
    """The calls of every rank, oldest first; "began" is in seconds before now."""
    now = time.monotonic()
    rows = [_HEAD, *(_row(rank, call, now) for rank, flown in calls.items() for call in flown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title]
    for row in rows:
        cells = zip(_HEAD, row, widths, strict=True)
        lines.append("  ".join(f"{cell:{'>' if name in _RIGHT else '<'}{width}}" for name, cell, width in cells))
    silent = [str(rank) for rank, flown in calls.items() if not flown]
    if silent:
        lines.append(f"no collective yet: rank {', '.join(silent)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(rank: int, call: Flown, now: float) -> tuple[str, ...]:
    root = str(call.root) if call.root >= 0 else "-"
    end = call.ended if call.state else now
    took = f"{max(end - call.started, 0.0) * 1e3:.2f} ms" if end else "short"
    texts = (call.collective, call.algorithm, call.dtype or "-", call.op or "-", root, call.counts or "-")
    return (str(rank), str(call.sequence), *texts, STATES[call.state], f"{now - call.started:.3f} s", took)
