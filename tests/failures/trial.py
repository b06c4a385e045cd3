"""A job in which ranks are killed, given by one number, and the life of a rank in it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from collx import Communicator, RankFailedError, world
from collx.bootstrap import Place

LIMIT = 30.0  # seconds that a call may wait
FAT = 2 << 30  # bytes
WHOLE = ("all_reduce", "broadcast", "reduce", "scan", "exscan")  # one buffer for all ranks
SHARED = ("reduce_scatter", "all_to_all", "scatter")  # its rows are shared out
ROOTED = ("broadcast", "reduce", "gather", "scatter")
COLLECTIVES = (*WHOLE, *SHARED, "all_gather", "gather", "barrier")


@dataclass(frozen=True)
class Trial:
    """One job. The first victim is killed `moment` seconds after all ranks have begun, a second one `gap` later. With
    `absent` the first one stops calling after so many calls, so that the others come to wait."""

    seed: int
    size: int
    victims: tuple[int, ...]
    fat: bool
    absent: int | None
    moment: float
    gap: float

    @classmethod
    def of(cls, seed: int) -> Trial:
        chance = random.Random(seed)
        size = chance.randint(2, 6)
        two = size > 2 and chance.random() < 0.4  # at once, or while the others shrink
        victims = tuple(chance.sample(range(size), 2 if two else 1))
        waited_for = chance.random() < 0.5
        return cls(
            seed,
            size,
            victims,
            fat=chance.random() < 0.05,
            absent=chance.randrange(20) if waited_for else None,
            moment=chance.uniform(0.05, 0.15) if waited_for else chance.uniform(0.0, 0.03),
            gap=chance.choice([0.0, chance.uniform(0.0, 0.002), chance.uniform(0.0, 0.04)]),
        )

    @property
    def survivors(self) -> list[int]:
        return [rank for rank in range(self.size) if rank not in self.victims]


class Calls:
    """A rank's random calls, the same on all ranks. `entered` is when it last began to wait for others."""

    def __init__(self, comm: Communicator, trial: Trial) -> None:
        self.comm, self.trial, self.chance = comm, trial, random.Random(trial.seed)
        self.entered = time.monotonic_ns()

    def forever(self) -> None:
        for number in count():
            if number == self.trial.absent and self.comm.rank == self.trial.victims[0]:
                signal.pause()
            for end in [self.begin() for _ in range(self.chance.choice([1, 1, 2]))]:  # sometimes two are under way
                end()

    def begin(self) -> Callable[[], None]:
        """Begins a call; what it returns ends it, and checks the result."""
        rank, size, chance = self.comm.rank, self.comm.size, self.chance
        name, root = chance.choice(COLLECTIVES), chance.randrange(size)
        later = name != "barrier" and chance.random() < 0.25
        rows = int(2 ** chance.uniform(0, 19)) // (1 if name in WHOLE else size) or 1  # up to 4 MiB of float64
        n = rows * size if name in SHARED else rows
        x = np.full(n, rank + 1.0)
        total, everyone = size * (size + 1) / 2, np.arange(1.0, size + 1)
        wanted: Any = {
            "all_reduce": total,
            "reduce_scatter": total,
            "all_gather": np.repeat(everyone, n),
            "all_to_all": np.repeat(everyone, rows),
            "broadcast": root + 1.0,
            "reduce": total if rank == root else None,
            "gather": np.repeat(everyone, n) if rank == root else None,
            "scatter": root + 1.0,
            "scan": everyone[: rank + 1].sum(),
            "exscan": everyone[:rank].sum(),
        }.get(name)
        given = {} if name == "barrier" else {"x": x}
        rooted = {"root": root} if name in ROOTED else {}
        self.entered = time.monotonic_ns()
        result = getattr(self.comm, name)(**given, **rooted, **({"async_op": True} if later else {}))

        def end() -> None:
            if later:
                self.entered = time.monotonic_ns()
            found = result.wait() if later else result
            assert (wanted is None) == (found is None), name
            assert found is None or (found == wanted).all(), name

        return end


def go_on(comm: Communicator, trial: Trial, report: dict[str, Any]) -> None:
    """Shrink until only survivors are left, and reduce once more."""
    while comm.size > len(trial.survivors):
        members = comm._world_ranks
        try:
            comm = comm.shrink(LIMIT)
            while comm.size > len(trial.survivors):  # the second victim is still there
                comm.barrier()
        except RankFailedError as error:
            report["failed"].append([members[rank] for rank in error.ranks])
    report["members"] = list(comm._world_ranks)
    found = comm.all_reduce(np.full(1000, float(1 << report["rank"])))
    report["right"] = bool((found == sum(1 << rank for rank in trial.survivors)).all())
    comm.close()


def live(trial: Trial, rank: int, directory: str, pipe: int) -> None:
    """The life of a rank. Writes a line when it begins to work, and one at its end."""
    ballast = np.ones(FAT // 8) if trial.fat and rank == trial.victims[0] else None
    comm = world.join(Place(rank, trial.size, rank, f"unix:{directory}", trial.size), LIMIT)
    comm.barrier()
    os.write(pipe, b"begun\n")
    calls = Calls(comm, trial)
    report: dict[str, Any] = {"rank": rank}
    try:
        calls.forever()
    except RankFailedError as error:
        report |= {"raised": time.monotonic_ns(), "entered": calls.entered, "failed": [list(error.ranks)]}
        go_on(comm, trial, report)
    os.write(pipe, json.dumps(report).encode() + b"\n")
    del ballast
