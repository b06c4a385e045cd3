"""Runs a function on local processes forked from this one, and brings the results home."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from collx import checks, lifeline, world
from collx.bootstrap import Place
from collx.errors import AbortedError, CollxError, RankFailedError
from collx.leaving import leave_all

CULPRIT_GRACE = 1.0  # seconds that a report of somebody else's failure waits for that failure's own report
END_GRACE = 0.5  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class _Report:
    """What a rank tells its parent: its result, or the exception it ended with."""

    rank: int
    time: float = 0.0
    result: Any = None
    error: BaseException | None = None
    trace: str = ""

    @property
    def secondary(self) -> bool:
        """Whether it tells of another rank's failure."""
        return isinstance(self.error, (RankFailedError, AbortedError)) and bool(self.trace)


class _RankTraceback(Exception):
    """Shows where in which rank an exception was raised, as the cause of the one raised here."""


def spawn(fn: Callable[..., Any], n: int, *args: Any) -> list[Any]:
    """Run `fn(comm, *args)` on `n` processes forked from this one, each a rank of a new world; their results in
    rank order.

    `fn` and `args` are inherited, not pickled, so closures and lambdas work; results are pickled. When a rank
    fails the others are ended within a second and the first failure is raised here, with the rank's traceback
    as its cause; RankFailedError for a rank that died. No process outlives the call, nor this process if it
    is killed; Ctrl-C ends all ranks. `collx.init()` inside `fn` returns `comm`.

    Raises TypeError or ValueError for what is not callable, and for n < 1. Threads of this process do not
    exist in the ranks: call it before starting any that hold locks.
    """
    if not callable(fn):
        raise TypeError(f"spawn takes a function to run on each rank, not {type(fn).__name__}")
    n = checks.whole(n, "n")
    if n < 1:
        raise ValueError(f"spawn on {n} ranks; it takes at least 1")
    directory = lifeline.job_directory()
    ranks: list[_Rank] = []
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        with lifeline.interrupts_held_back():
            for rank in range(n):
                ranks.append(_Rank(rank, n, directory, fn, args))
        reports = _collect(ranks)
    except BaseException:
        _end(ranks, signal.SIGINT)
        raise
    finally:
        _end(ranks, signal.SIGTERM)
        shutil.rmtree(directory, ignore_errors=True)
    failures = sorted((r for r in reports if r.error is not None), key=lambda r: (r.secondary, r.time))
    if failures:
        _raise(failures[0], n)
    return [report.result for report in sorted(reports, key=lambda r: r.rank)]


class _Rank:
    """A forked process and the pipe that its report comes through."""

    def __init__(self, rank: int, size: int, directory: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.rank, self.size = rank, size
        self.data = bytearray()
        self.reaped = False
        parent = os.getpid()
        self.pipe, write = os.pipe()
        self.pid = lifeline.fork()
        if self.pid == 0:
            os.close(self.pipe)
            lifeline.die_with(parent)
            _run(Place(rank, size, rank, f"unix:{directory}", size), write, fn, args)
        os.close(write)
        os.set_blocking(self.pipe, False)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            raise

    def take_in(self) -> bool:
        """Read what the pipe holds; whether that was the end of it."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 1 << 20):
                self.data += chunk
            return True
        return False

    def ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def report(self) -> _Report:
        """What became of it, once it has ended or closed its pipe."""
        if self.data:
            try:
                return _Report(self.rank, *pickle.loads(self.data))
            except (EOFError, pickle.UnpicklingError):
                pass  # it ended while it wrote
            except Exception as error:
                text = f"rank {self.rank}: the result was pickled, but cannot be made again: {error}"
                return _Report(self.rank, error=TypeError(text))
        status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        assert status is not None
        who = f"rank {self.rank} of {self.size} (pid {self.pid})"
        if status.si_code == os.CLD_EXITED:
            how = f"exited with code {status.si_status} before its function returned"
        else:
            how = f"was killed by {signal.Signals(status.si_status).name}"
        return _Report(self.rank, error=RankFailedError(f"{who} {how}", (self.rank,)))

    def close(self) -> None:
        if not self.reaped:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            self.reaped = True
            os.close(self.pidfd)
            os.close(self.pipe)


def _collect(ranks: list[_Rank]) -> list[_Report]:
    """The reports of all ranks; after a failure, of those that came until its cause is known."""
    reports: list[_Report] = []
    waiting = list(ranks)
    deadline = float("inf")
    while waiting and time.monotonic() < deadline:
        poll = select.poll()
        for rank in waiting:
            poll.register(rank.pipe, select.POLLIN)
            poll.register(rank.pidfd, select.POLLIN)
        poll.poll(None if deadline == float("inf") else max(deadline - time.monotonic(), 0) * 1000)
        for rank in list(waiting):
            dead = rank.ended()  # asked first: what it wrote before it died is then in the pipe
            if rank.take_in() or dead:
                reports.append(rank.report())
                waiting.remove(rank)
        failures = [report for report in reports if report.error is not None]
        if any(not failure.secondary for failure in failures):
            break
        if failures and deadline == float("inf"):
            deadline = time.monotonic() + CULPRIT_GRACE
    return reports


def _end(ranks: list[_Rank], number: signal.Signals) -> None:
    """End what still runs: ask by signal `number`, insist by SIGKILL."""
    deadline = time.monotonic() + END_GRACE
    for rank in ranks:
        if not rank.reaped and not rank.ended():
            signal.pidfd_send_signal(rank.pidfd, number)
    for rank in ranks:
        if not rank.reaped:
            if not select.select([rank.pidfd], [], [], max(deadline - time.monotonic(), 0))[0]:
                signal.pidfd_send_signal(rank.pidfd, signal.SIGKILL)
            rank.close()


def _raise(failure: _Report, size: int) -> NoReturn:
    assert failure.error is not None
    if failure.trace:
        raise failure.error from _RankTraceback(f"rank {failure.rank} of {size} raised it:\n{failure.trace}")
    raise failure.error


def _run(place: Place, pipe: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    """The life of a rank. It never returns into its parent's code, nor runs its parent's exit handlers."""
    code, me = 1, os.getpid()
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, _interrupted)
        try:
            with world.join(place, world.TIMEOUT) as comm:  # an exception is told to the other ranks
                report = _packed_result(place, fn(comm, *args))
            leave_all()
            code = 0
        except BaseException as error:
            leave_all(error)
            if os.getpid() != me:
                code = _code_of(error)
            report = _packed_error(place, error)
        while report and os.getpid() == me:  # a child forked by `fn` speaks for no rank
            report = report[os.write(pipe, report) :]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Once is enough: after Ctrl-C on a terminal the parent passes it on as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _code_of(error: BaseException) -> int:
    """The exit code of a process that `error` ends; what is no plain exit is shown on stderr."""
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or 0
    traceback.print_exception(error)
    return 1


def _packed_result(place: Place, result: Any) -> bytes:
    try:
        return pickle.dumps((0.0, result, None, ""), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        kind = type(result).__name__
        raise TypeError(f"rank {place.rank}: the result, of type {kind}, cannot be pickled: {error}") from error


def _packed_error(place: Place, error: BaseException) -> bytes:
    trace = "".join(traceback.format_exception(error))
    who = f"rank {place.rank} of {place.size}"
    if isinstance(error, SystemExit):
        error = CollxError(f"{who} called sys.exit({error.code!r}) before its function returned")
    try:
        pickle.loads(pickle.dumps(error))  # many an exception can be pickled but not be made again
    except Exception:
        error = CollxError(f"{who} raised {type(error).__name__}: {error}")
    return pickle.dumps((time.monotonic(), None, error, trace), pickle.HIGHEST_PROTOCOL)
