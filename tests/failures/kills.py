"""Kills ranks at random moments in random collectives: do all survivors learn of it, alike and soon, and go on?

`make kills N=1000`, or `python -m tests.failures.kills 1000 [--first SEED] [--results FILE]`. Every trial is a job of
its own, given by its seed alone. Detection is from before the kill (from the beginning of the next call, where a
survivor was between two) to after the raise, by the clock that all processes share. A survivor was blocked where the
kernel had its thread asleep just before the kill, or where it had waited so long that it slept with breaks; else it was
at work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from collx import Communicator, RankFailedError, lifeline, world
from collx.bootstrap import Place
from tests.failures import detections

HANG = 60.0  # seconds after which a trial has failed
LIMIT = 30.0  # seconds that a call may wait
LONG = 5.0  # ms of waiting after which a rank sleeps most of the time
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


# -- a rank -------------------------------------------------------------------------------------------


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
    comm = world.join(Place(rank, trial.size, rank, f"unix:{directory}"), LIMIT)
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


# -- the job ------------------------------------------------------------------------------------------


class Job:
    """The processes of one trial. Nothing is left of it at the end of the block."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.directory = lifeline.job_directory()
        self.deadline = time.monotonic() + HANG
        self.pids: list[int] = []
        self.pipes: list[int] = []
        self.lines: list[list[str]] = [[] for _ in range(trial.size)]

    def __enter__(self) -> Job:
        for rank in range(self.trial.size):
            read, write = os.pipe()
            pid = lifeline.fork()
            if pid == 0:
                try:
                    lifeline.die_with(os.getppid())
                    live(self.trial, rank, self.directory, write)
                except BaseException as error:
                    os.write(write, f"{type(error).__name__}: {error}\n".encode())
                finally:
                    os._exit(0)
            os.close(write)
            self.pids.append(pid)
            self.pipes.append(read)
        return self

    def __exit__(self, *_: object) -> None:
        for pid, pipe in zip(self.pids, self.pipes, strict=True):
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so nobody else's
            os.close(pipe)
            os.waitpid(pid, 0)

    def await_lines(self, ranks: Sequence[int], number: int) -> None:
        """Return when each of `ranks` has written so many lines."""
        while waiting := [rank for rank in ranks if len(self.lines[rank]) < number]:
            left = self.deadline - time.monotonic()
            ready, _, _ = select.select([self.pipes[rank] for rank in waiting], [], [], max(left, 0.0))
            if not ready:
                for rank in waiting:
                    os.kill(self.pids[rank], signal.SIGUSR1)  # its last calls, on standard error
                time.sleep(1)
                raise AssertionError(f"ranks {waiting} hang")
            for pipe in ready:
                rank = self.pipes.index(pipe)
                text = os.read(pipe, 1 << 16).decode()
                assert text, f"rank {rank} has ended"
                self.lines[rank] += text.splitlines()

    def blocked(self, rank: int) -> bool:
        return Path(f"/proc/{self.pids[rank]}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def kill(self) -> tuple[dict[int, int], set[int]]:
        """When each victim was killed, and which survivors were blocked then."""
        trial = self.trial
        killed: dict[int, int] = {}
        time.sleep(trial.moment)
        blocked = {rank for rank in trial.survivors if self.blocked(rank)}
        for rank in trial.victims:
            if killed:
                time.sleep(trial.gap)
            killed[rank] = time.monotonic_ns()
            os.kill(self.pids[rank], signal.SIGKILL)
        return killed, blocked


def run(trial: Trial) -> list[detections.Detection]:
    """One trial; how long each survivor took. Raises AssertionError for what is not as promised."""
    with Job(trial) as job:
        job.await_lines(range(trial.size), 1)
        killed, blocked = job.kill()
        job.await_lines(trial.survivors, 2)
        lines = [job.lines[rank][1] for rank in trial.survivors]
    assert all(line.startswith("{") for line in lines), lines
    reports = [json.loads(line) for line in lines]
    assert all(report["failed"] == reports[0]["failed"] for report in reports), reports
    first = reports[0]["failed"][0]
    assert first, reports
    assert set(first) <= set(trial.victims), reports
    assert all(report["members"] == trial.survivors and report["right"] for report in reports), reports
    assert not os.path.exists(job.directory)
    return [detection(trial, report, min(killed[rank] for rank in first), blocked) for report in reports]


def detection(trial: Trial, report: dict[str, Any], killed: int, blocked: set[int]) -> detections.Detection:
    slept = report["rank"] in blocked or killed - report["entered"] > LONG * 1e6
    return detections.Detection((report["raised"] - max(killed, report["entered"])) / 1e6, slept, trial.size, trial.fat)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fails where the block leaves a file, a name in shared memory, a descriptor or a child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    had, descriptors, saved = children.read_text(), len(os.listdir("/proc/self/fd")), tempfile.tempdir
    named = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = saved
        assert not os.listdir(folder)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not [name for name in set(os.listdir("/dev/shm")) - named if "collx" in name]
    assert children.read_text() == had


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=int)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first trial")
    parser.add_argument("--results", type=Path, help="a JSON file that the detections are added to")
    parsed = parser.parse_args(arguments)
    found = detections.read(parsed.results)
    for seed in range(parsed.first, parsed.first + parsed.trials):
        trial = Trial.of(seed)
        try:
            with nothing_left():
                found += run(trial)
        except AssertionError as error:
            sys.exit(f"{trial}: {error}")
    if parsed.results:
        detections.write(parsed.results, found)
    print(detections.table(found))


if __name__ == "__main__":
    main()
