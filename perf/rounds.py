"""What `collx.perf.regret` runs in a job: which algorithms are chosen, and the times of all that can serve, in rounds.

`python -m collx.perf.rounds OUT` writes the choices to a file; with `--seconds` the times too, and with `--also FILE`
those of the choices in there.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import collx
from collx.perf.collectives import MEASURED, Arrays, Call
from collx.perf.measure import longest, settle
from collx.perf.options import nbytes
from collx.perf.program import Parser, program
from collx.perf.progress import Progress
from collx.perf.race import Field, candidates
from collx.perf.report import size_text

CARD = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")
_DTYPE = np.dtype(np.float32)
_STEP = 4  # from one size to the next
_TURN, _CALLS = 0.004, 500  # seconds and calls that a turn takes at most: many rounds say more than long ones
_FEWEST, _MOST = 4, 40  # rounds
Choices = Mapping[str, Mapping[str, str]]  # by collective, and by size as JSON has it


def sizes(most: int) -> list[int]:
    """From 8 bytes to `most`; most of them are not among those that `collx tune` measures."""
    found = [8]
    while found[-1] < most:
        found.append(min(found[-1] * _STEP, most))
    return found


def choices(comm: Any, collectives: list[str], most: int) -> dict[str, dict[str, str]]:
    """The algorithm that a call would take, by collective and size."""
    return {
        name: {
            str(size): comm.explain(name, _whole(name, size, comm.size) * _DTYPE.itemsize).chosen
            for size in sizes(most)
        }
        for name in collectives
    }


def _whole(collective: str, size: int, ranks: int) -> int:
    return MEASURED[collective].whole(size // _DTYPE.itemsize, ranks)


def rounds(comm: Any, calls: Mapping[str, Call], kept: set[str], seconds: float) -> dict[str, list[float]]:
    """Seconds per call of the slowest rank in each round, by algorithm: of those `kept`, and of those that are not far
    behind at a first look, nor in all of the first rounds. In every round all take their turns, in an order of its
    own. Collective."""
    field = Field(comm, calls, kept)
    for number in range(_MOST):
        passed = field.round(random.Random(number).sample(field.left, len(field.left)), _TURN, _CALLS)
        if number + 1 == _FEWEST:
            field.narrow()
        if number + 1 >= _FEWEST and passed >= seconds:
            break
    return {name: field.taken[name] for name in field.left}


def measured(comm: Any, chosen: Choices, also: Choices, seconds: float, progress: Progress) -> list[dict[str, Any]]:
    """Every point with its rounds, the smallest sizes first: the time that they leave is for the large ones."""
    settle(comm)
    wanted = sorted((int(size), collective) for collective, of in chosen.items() for size in of)
    arrays = Arrays(max(wanted)[0] // _DTYPE.itemsize + comm.size)
    start, points = perf_counter(), []
    for index, (size, collective) in enumerate(wanted):
        progress.start(f"{collective} {size_text(size)}")
        whole = _whole(collective, size, comm.size)
        names = candidates(comm, comm.explain(collective, whole * _DTYPE.itemsize))
        calls = {one: arrays.call(comm, MEASURED[collective], whole, one) for one in names}
        name = chosen[collective][str(size)]
        (passed,) = longest(comm, [perf_counter() - start])
        share = (seconds * len(wanted) - passed) / (len(wanted) - index)
        taken = rounds(comm, calls, {name, also.get(collective, {}).get(str(size), name)}, share)
        points.append({"collective": collective, "size": size, "rounds": taken})
        progress.advance()
    return points


@program("collx.perf.rounds")
def main(argv: list[str]) -> int:
    """Run in a job, the same on all ranks; rank 0 writes."""
    parser = Parser("collx.perf.rounds", main.__doc__)
    add = parser.add_argument
    add("out", type=Path)
    add("--collectives", default=",".join(CARD))
    add("-e", "--maxbytes", default="64M")
    add("--seconds", type=float, default=0)
    add("--also", type=Path)
    given = parser.parse_args(argv)
    also = json.loads(given.also.read_text())["chosen"] if given.also else {}
    with collx.init() as comm:
        chosen = choices(comm, given.collectives.split(","), nbytes(given.maxbytes))
        total = sum(map(len, chosen.values())) if given.seconds else 0
        with Progress(total, shown=comm.rank == 0, left=True) as progress:
            points = measured(comm, chosen, also, given.seconds, progress) if total else []
        if comm.rank == 0:
            given.out.write_text(json.dumps({"chosen": chosen, "points": points}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
