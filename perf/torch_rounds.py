"""What `collx.perf.torch_versus` runs in a job: collx and Gloo as backends of torch.distributed, taking turns.

`python -m collx.perf.torch_rounds OUT ...` on every rank. Both backends have a process group in the same processes, so
they work on the same tensors. Between turns ranks meet in a barrier of Gloo's, in which they sleep.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

from collx.perf import standing
from collx.perf.contest import Round
from collx.perf.program import Parser, program
from collx.perf.torch_job import BACKENDS, Job, Turn
from collx.perf.torch_points import Point, Start
from collx.perf.torch_steps import steps

FORMS = {"sync": False, "async": True}


def in_a_row(start: Start, group: Any, async_op: bool) -> Turn:
    """The call so many times in a row, each waited for."""

    def sync(calls: int) -> None:
        for _ in range(calls):
            start(group, False)

    def waited(calls: int) -> None:
        for _ in range(calls):
            start(group, True).wait()

    return waited if async_op else sync


def measured(job: Job, call: str, dtype: str, size: int, seconds: float) -> dict[str, Any]:
    """A point: the figures of both forms, and how many elements of all results on all ranks were wrong."""
    itemsize = getattr(torch, dtype).itemsize
    count = max(1, size // itemsize // job.size) * job.size if _shared(call) else max(1, size // itemsize)
    point = Point(call, count, dtype, job.rank, job.size)
    every = [(backend, form) for form in FORMS.values() for backend in BACKENDS]
    wrong = sum(point.wrong(job.groups[backend], form) for backend, form in every)
    turns = {f"{backend} {form}": in_a_row(point.start, job.groups[backend], form) for backend, form in every}
    rounds = job.rounds(turns, seconds)
    wrong += sum(point.wrong(job.groups[backend], form) for backend, form in every)
    (total,) = job.total([wrong])
    figures = {name: standing.figures([_only(each, form) for each in rounds]) for name, form in FORMS.items()}
    return {"call": call, "dtype": dtype, "size": size, "wrong": total, **figures}


def _only(each: Round, form: bool) -> Round:
    return Round(each.tag, {backend: each.seconds[f"{backend} {form}"] for backend in BACKENDS})


def _shared(call: str) -> bool:
    return call not in ("all_reduce", "broadcast")


@program("collx.perf.torch_rounds")
def main(argv: list[str]) -> int:
    """Run in a job of two ranks, the same on all; rank 0 writes what was asked for to OUT."""
    parser = Parser("collx.perf.torch_rounds", main.__doc__)
    add = parser.add_argument
    add("out", type=Path)
    add("--calls", default="")
    add("--dtypes", default="")
    add("--sizes", default="")
    add("--models", default="")
    add("--seconds", type=float, default=1.0)
    given = parser.parse_args(argv)

    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    job = Job(given.out.with_suffix(".meeting"))
    points = [
        measured(job, call, dtype, int(size), given.seconds)
        for call in words(given.calls)
        for dtype in words(given.dtypes)
        for size in words(given.sizes)
    ]
    models = [steps(job, name, given.seconds) for name in words(given.models)]
    if job.rank == 0:
        given.out.write_text(json.dumps({"points": points, "models": models}))
    job.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
