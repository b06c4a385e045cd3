"""Libraries taking turns at the same call, so that what the machine does meanwhile happens to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from collx.perf import machine
from collx.perf.rivals import Job, JobFailed, Rival

Bracket = Callable[[], str]  # how far apart the two cores are just now: NEAR, FAR, or ? where nobody can tell

_TURN = 0.02  # seconds that one library's turn should take
_WARM = 0.002  # seconds of calls before it
_MOST_CALLS = 10_000
_FEWEST, _MOST = 3, 40  # rounds
_SPARE = 1 << 30  # bytes that the libraries need beside the arrays


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of every library: seconds per call by library, and the tag that holds for all of the round."""

    tag: str
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Call:
    """What is measured: `count` elements of the whole buffer."""

    collective: str
    count: int
    dtype: str
    op: str
    root: int


def tag_between(before: str, after: str) -> str:
    """The tag of what was measured between two looks at the machine."""
    return before if before == after else "mixed"


class Contest:
    """The jobs of one number of ranks, all alive and waiting. The first is the one that the others are compared
    with: without it there is no contest. Others that fail leave, and `absent` says why."""

    def __init__(self, rivals: Iterable[Rival], size: int, bracket: Bracket) -> None:
        self.size, self.bracket = size, bracket
        self.jobs: list[Job] = []
        self.absent: dict[str, str] = {}
        self._rivals = list(rivals)
        self._started = 0.0

    def __enter__(self) -> Self:
        try:
            for rival in self._rivals:
                try:
                    self.jobs.append(Job(rival, self.size).__enter__())
                except JobFailed as error:
                    self._without(rival, error)
                except OSError as error:
                    self._without(rival, JobFailed(rival, f"did not start: {error}"))
        except BaseException:
            self.__exit__()
            raise
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs:
            job.__exit__()
        self.jobs.clear()

    @property
    def versions(self) -> dict[str, str]:
        return {job.rival.name: job.version for job in self.jobs}

    @property
    def idle(self) -> dict[str, float]:
        """Processor time that each library took while it was not at turn, as a share of all the time there was."""
        passed = max(time.monotonic() - self._started, 1e-9)
        return {job.rival.name: job.idle / passed for job in self.jobs}

    def measure(self, call: Call, seconds: float, nbytes: int) -> tuple[list[Round], list[str]]:
        """Rounds of one call for about so many seconds, and the libraries whose results differ from the first's.
        `nbytes` is what the call's arrays take in one library. Nothing where they do not fit into memory."""
        for job in self.jobs:
            job.ask(do="release")
        if nbytes * len(self.jobs) + _SPARE > machine.available():
            return [], []
        while True:
            jobs = list(self.jobs)
            try:
                odd = _prepare(jobs, call)
                return list(_rounds(jobs, seconds, self.bracket)), odd
            except JobFailed as error:  # the others start this point again, without it
                self._without(error.rival, error)
                for job in jobs:
                    if job.rival is error.rival:
                        self.jobs.remove(job)
                        job.__exit__()

    def _without(self, rival: Rival, error: JobFailed) -> None:
        if rival is self._rivals[0]:
            raise error
        self.absent[rival.name] = str(error)


def _prepare(jobs: list[Job], call: Call) -> list[str]:
    command = {field: getattr(call, field) for field in Call.__slots__}
    digests = [[answer["digest"] for answer in job.ask(do="prepare", **command)] for job in jobs]
    return [job.rival.name for job, digest in zip(jobs, digests, strict=True) if digest != digests[0]]


def _rounds(jobs: list[Job], seconds: float, bracket: Bracket) -> Iterator[Round]:
    """Turns in rotating order until the time is over; rounds in which the machine moved are made again, for as long
    once more at most."""
    plans = [_turn_of(job) for job in jobs]
    start, kept, before = time.monotonic(), 0, bracket()
    for turn in range(_MOST):
        passed = time.monotonic() - start
        if turn >= _FEWEST and (passed > 2 * seconds or (passed > seconds and kept >= _FEWEST)):
            return
        order = [(place + turn) % len(jobs) for place in range(len(jobs))]
        taken = {index: jobs[index].turn(*plans[index]) for index in (order if turn % 2 else reversed(order))}
        after = bracket()
        tag = tag_between(before, after)
        kept += tag != "mixed"
        yield Round(tag, {job.rival.name: taken[index] for index, job in enumerate(jobs)})
        before = after


def _turn_of(job: Job) -> tuple[int, int]:
    """How many calls fill a turn, and how many warm up for it."""
    estimate = job.turn(1, 1)
    if estimate < _TURN:
        estimate = max(job.turn(3, 0), 1e-7)  # the first one came cold
    calls = max(1, min(_MOST_CALLS, int(_TURN / estimate)))
    return calls, min(calls, int(_WARM / estimate) + 1) if estimate < _TURN else 0
