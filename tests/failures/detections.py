"""How soon deaths were detected: kept, and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Detection(NamedTuple):
    """One survivor's, in ms."""

    ms: float
    blocked: bool
    size: int
    fat: bool


def read(path: Path | None) -> list[Detection]:
    return [Detection(*one) for one in json.loads(path.read_text())] if path and path.exists() else []


def write(path: Path, found: Sequence[Detection]) -> None:
    path.write_text(json.dumps(found))


def table(found: Sequence[Detection]) -> str:
    """Markdown: p50, p99 and the longest, by what the survivor did, how large the job was, and the victim."""
    lines = ["| survivor was | ranks | victim's memory | detections | p50 ms | p99 ms | longest ms |", "|" + "---|" * 7]
    for blocked in (False, True):
        for few, most in ((2, 2), (3, 6), (2, 6)):
            for memory in ("small", "2 GiB", "any"):
                took = sorted(
                    d.ms
                    for d in found
                    if d.blocked == blocked
                    and few <= d.size <= most
                    and memory in ("any", "2 GiB" if d.fat else "small")
                )
                if took:
                    p50, p99 = (took[min(int(share * len(took)), len(took) - 1)] for share in (0.5, 0.99))
                    ranks = f"{few}-{most}" if few < most else f"{few}"
                    cells = ["blocked" if blocked else "at work", ranks, memory, str(len(took))]
                    cells += [f"{ms:.2f}" for ms in (p50, p99, took[-1])]
                    lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
