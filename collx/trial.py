"""COLLX_TUNE=auto: the algorithms that may be the fastest take turns at a program's own calls, until all ranks agree on
which is."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from collx import tuning
from collx.guide import Guide
from collx.request import Request
from collx.schedule import Groups
from collx.selector import KIB, by_another_name, choose, objection, placed
from collx.tuning import Point, Step, Table
from collx.wishes import MPI, may_choose

MOST = 4  # contenders of one class
LOOKS, ROUNDS = 3, 9  # turns of each before the slow ones drop out, and of those that are left
SLOW = 2  # times the best: whoever takes longer, in the best of its first turns, is out
GAIN = 0.1  # what must be gained over what would be chosen without: calls of a program are noisier than those of a race
_SMALL = 64 * KIB  # bytes below which one call takes too short to be judged by
_CALLS, _TURN = 16, 1_000_000  # that a turn should have at most; nanoseconds that it should take
_MESSAGE = 16 * KIB  # bytes that could be sent in about the time that a message takes whatever it holds
_CLASSES = 1024  # requests of which the class is remembered


class Trial:
    """One class of calls: which contender takes the next one, and when all ranks must agree on the times.

    Both follow from the number of calls so far alone, and what is chosen from what was agreed on, so that ranks whose
    calls are matched never differ. The first contender is the one that would be chosen without, and never drops out.
    """

    def __init__(self, contenders: Sequence[str], nbytes: int) -> None:
        """`nbytes` is the least that a call of the class has."""
        self.calls = 0
        self.nanoseconds: dict[str, int] = {}  # of a call on the slowest rank, by contender: what all agreed on last
        self.chosen: str | None = None  # in the end
        self.taken: list[int] = []  # by turn, since the last agreement: this rank's nanoseconds a call, 0 if not known
        self._first, self._turns, self._looks = contenders[0], _in_turns(contenders, LOOKS), True
        self._turn: list[int] = []  # nanoseconds of its calls so far
        self._most = _CALLS // 2 if nbytes < _SMALL else 1

    @property
    def turn(self) -> str:
        """The contender that takes the next call."""
        return self._turns[len(self.taken)]

    def took(self, nanoseconds: int) -> bool:
        """Note that the call was made, and in which time, 0 if not known; whether all ranks agree on the times next."""
        self.calls += 1
        self._turn.append(nanoseconds)
        if len(self._turn) < self._most:
            return False
        counted = self._turn[1:] or self._turn  # the first one finds in the caches what another has left there
        self.taken.append(sum(counted) // len(counted) if all(counted) else 0)
        self._turn = []
        return len(self.taken) == len(self._turns)

    def agreed(self, slowest: Sequence[int]) -> None:
        """Go on by the largest `taken` of all ranks, turn by turn: to the turns of those that are not slow, or to the
        end."""
        times: dict[str, list[int]] = {name: [] for name in self._turns}
        for name, nanoseconds in zip(self._turns, slowest, strict=True):
            times[name] += [nanoseconds] if nanoseconds else []
        self.taken, judge = [], min if self._looks else median_low
        self.nanoseconds = {name: judge(known) for name, known in times.items() if known}
        best = min(self.nanoseconds.values(), default=0)
        fast = [name for name in times if name == self._first or self.nanoseconds.get(name, 0) <= SLOW * best]
        left = fast if self._looks else list(times)
        if self._looks and len(left) > 1:
            self._turns, self._looks = _in_turns(left, ROUNDS), False
            self._most = min(max(_TURN // max(best, 1), 1), _CALLS)
        else:
            self.chosen = self._fastest(left)

    def _fastest(self, left: Sequence[str]) -> str:
        times = {name: self.nanoseconds[name] for name in left if name in self.nanoseconds}
        best = min(times, key=lambda name: times[name], default=self._first)
        known = self._first in times and best != self._first
        return best if known and times[self._first] > times[best] * (1 + GAIN) else self._first


def _in_turns(names: Sequence[str], rounds: int) -> list[str]:
    """Every name once a round, each round from the next one on: what a program does in turns favours none."""
    return [names[(start + at) % len(names)] for start in range(rounds) for at in range(len(names))]


class Trials:
    """The trials of one communicator, by class: calls of one collective, dtype and op, from one power of two bytes to
    the next, which the same algorithms can serve. Alike on all its ranks, as all of that is what they agree on.

    Not tried is what a call, COLLX_ALGO or a tuning table has chosen, nor MPI's own collectives; nor calls without
    bytes, with a user's op, or of which ranks know only their own part.
    """

    def __init__(self, size: int, room: float, far: bool, mpi: bool, guide: Guide, hosts: Groups) -> None:
        self._selector = (size, room, far, mpi, guide, hosts)
        self._guide = guide
        self._trials: dict[tuple[object, ...], Trial] = {}
        self._found: dict[Request, Trial | None] = {}
        self.clock = time.perf_counter_ns

    def find(self, request: Request) -> Trial | None:
        """The trial of the request's class, which may have ended; None where nothing is tried. Raises as `choose`."""
        if request.algorithm is not None or request.called or request.custom or not (request.agreed and request.nbytes):
            return None
        if request not in self._found:
            if len(self._found) >= _CLASSES:
                self._found.clear()
            self._found[request] = self._of_class(request)
        return self._found[request]

    def _of_class(self, request: Request) -> Trial | None:
        names = contenders(request, *self._selector)
        if len(names) < 2:
            return None
        op = request.op.name if request.op else ""
        key = (request.collective, request.nbytes.bit_length(), request.dtype, op, names)
        return self._trials.setdefault(key, Trial(names, _least(request)))

    def resolved(self, request: Request) -> Request:
        """The request, with the algorithm that its class was settled on, if it was."""
        trial = self.find(request)
        return request if trial is None or trial.chosen is None else request._replace(algorithm=trial.chosen)

    def guide(self, request: Request) -> Guide:
        """What the request's algorithm is chosen by: what was measured here comes to what was known before."""
        trial = self.find(request)
        if trial is None or trial.chosen is None or not trial.nanoseconds or self._guide.tries is None:
            return self._guide
        steps, points = (Step(None, trial.chosen),), (Point(request.nbytes, trial.nanoseconds),)
        table = self._guide.table or Table(self._guide.tries)
        table = replace(table, steps={request.collective: steps}, points={request.collective: points})
        return replace(self._guide, table=table)

    def keep(self, request: Request, trial: Trial) -> None:
        """Write what a trial has found into the user's tuning table, for later jobs; only rank 0 does. What cannot be
        written is named on standard error, and harms nothing."""
        if self._guide.tries is None or not self._guide.tries.machine or trial.chosen is None or not trial.nanoseconds:
            return
        key, low = self._guide.tries, _least(request)
        point = Point(request.nbytes, trial.nanoseconds)
        try:
            tuning.write(tuning.kept(key).filled(request.collective, low, 2 * low - 1, trial.chosen, point))
        except OSError as error:
            why = f"{error.strerror or error}: {tuning.folder() / key.file}"
            with contextlib.suppress(OSError, ValueError):  # where there is no standard error any more
                print(f"collx: what COLLX_TUNE=auto found is not kept for later jobs: {why}", file=sys.stderr)


def contenders(
    request: Request, size: int, room: float, far: bool, mpi: bool, guide: Guide, hosts: Groups
) -> tuple[str, ...]:
    """The algorithms worth a trial, that which would be chosen without first, the others by their messages and bytes;
    none where something better than a rule has chosen. Raises as `choose` does."""
    collective = request.collective
    choice = choose(request, size, room, far, mpi, guide, hosts)
    measured = guide.table is not None and guide.table.chosen(collective, request.nbytes) is not None
    if choice.by != "rule" or choice.name == MPI or measured:
        return ()
    wish = guide.wish(collective)
    others = []
    for name in may_choose(collective):
        new = name != choice.name and not by_another_name(collective, name, size, hosts)
        wanted = new and (wish is None or wish.allows(name))
        if wanted and objection(name, request, size, room, mpi, hosts) is None:
            algorithm = placed(name, request, hosts)
            others.append((algorithm.rounds(size) * _MESSAGE + algorithm.volume(size) * _least(request), name))
    return (choice.name, *(name for _, name in sorted(others)[: MOST - 1]))


def _least(request: Request) -> int:
    """The bytes from which on calls are of its class: what one rank has asked about first makes no difference."""
    return 1 << (request.nbytes.bit_length() - 1)


def outcome(request: Request, trial: Trial) -> str:
    """What COLLX_DEBUG=INFO says of a trial that has ended."""
    from collx.explain import class_text, seconds_text  # which most programs never ask for

    times = sorted(trial.nanoseconds.items(), key=lambda item: item[1])
    told = ", ".join(f"{name} {seconds_text(nanoseconds / 1e9)}" for name, nanoseconds in times)
    return f"{class_text(request)}: {trial.chosen}, tried in {trial.calls} calls ({told or 'none of them was timed'})"
