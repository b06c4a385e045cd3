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
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collx import lifeline
from tests.failures import detections
from tests.failures.trial import Trial, live

HANG = 60.0  # seconds after which a trial has failed
LONG = 5.0  # ms of waiting after which a rank sleeps most of the time


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
