"""A rank's membership in a communicator: its engine, the order of its calls, and whether it is still alive."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

import numpy as np

from collx import calls, flight, leaving
from collx.calls import Call
from collx.checks import seconds
from collx.engine import Engine, Pending
from collx.errors import CancelledError, ClosedError, CollxError, MismatchError, TimeoutError, TruncatedError
from collx.guide import UNGUIDED, Guide
from collx.known import Recall, constant, unknown
from collx.memory import SharedArray
from collx.planner import make_plan, room_of
from collx.request import Request
from collx.schedule import Groups
from collx.work import Work

if TYPE_CHECKING:
    from collx.fusion import Fusion, Noting
    from collx.trial import Trial, Trials

PLANS = 1024  # plans kept; where every call has another shape, old ones go
HARMLESS = (CancelledError, TruncatedError)  # what a call may end with that is nobody else's matter


class Member:
    """Runs calls on `engine` in order, and knows why it cannot any more.

    After an error between ranks they no longer agree on what comes next, so the communicator is broken: the
    other ranks are told, and every later call raises ClosedError with the first error. `groups` are the ranks that sit
    near each other, `guide` is what its selector goes by.
    """

    def __init__(
        self, engine: Engine, rank: int, size: int, timeout: float, groups: Groups = (), guide: Guide = UNGUIDED
    ) -> None:
        self.rank = rank
        self.size = size
        self._engine = engine
        self._groups, self._guide = groups, guide
        self._trials = self._tries()
        self._told: set[str] = set()  # choices that rank 0 has printed
        self._plans: dict[Request, tuple[Any, Any]] = {}  # -> what the engine prepared, and the op it may call
        self._known = engine.known(
            seconds(timeout), SharedArray, _to(self, type(self)._break), _to(self, Member._begin)
        )
        self._recall = self._known.recall
        self._group: Noting | None = None  # whose block is being run
        self._last: Work | None = None  # the newest asynchronous collective
        self._under_way: set[Work] = set()  # also those that the user dropped: their memory must outlive them
        self._crowd = 4  # how many of them make it worth looking which are done
        self._over: str | None = None  # why it takes no more calls
        self._left = False
        leaving.enter(self)

    @property
    def timeout(self) -> float:
        """Seconds that a call waits for other ranks, where it gives no timeout itself."""
        return self._known.timeout

    @timeout.setter
    def timeout(self, timeout: float) -> None:
        self._known.timeout = seconds(timeout)

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls: closed, inherited through fork, or broken by an error."""
        return self._over is not None

    def close(self) -> None:
        """Leave the communicator when what was started asynchronously has ended. Idempotent; not collective.

        Other ranks that still need this one for a call raise RankFailedError.
        """
        if self._over is None:
            if self._under_way:
                self._engine.leaving()
            for work in list(self._under_way):
                with contextlib.suppress(Exception):
                    work.wait()
        if not self._left:
            self._left = True
            self._end("it was closed")
            self._engine.close()
            self._plans.clear()
            self._under_way.clear()

    def __del__(self) -> None:
        if not getattr(self, "_left", True):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        leaves = isinstance(error, SystemExit) and not error.code  # as ending the program well does
        if error is not None and not leaves:
            self._break("the with block", error)
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a communicator is one process's place among the ranks: it cannot be pickled or copied")

    # -- groups --------------------------------------------------------------------------------------

    @cached_property
    def _fusion(self) -> Fusion:
        from collx.fusion import Fusion  # most programs make no groups

        return Fusion(self.rank, self.size, self._engine.far, self._engine.allocate)

    def _enter(self, group: Noting) -> None:
        """From now on calls are noted by the group."""
        self._alive()
        self._alone("a group")
        self._group = group
        self._recall = self._fusion.known.recall
        self._known.pause(True)

    def _leave(self) -> None:
        self._group = None
        self._recall = self._known.recall
        self._known.pause(False)

    def _alone(self, what: str) -> None:
        if self._group is not None:
            raise ValueError(f"{what} cannot be begun in a group: leave its block first")

    # -- running calls -------------------------------------------------------------------------------

    def _tries(self) -> Trials | None:
        if self._guide.tries is None or self.size < 2:
            return None
        from collx.trial import Trials  # most programs try nothing

        engine = self._engine
        return Trials(self.size, room_of(engine.capacity), engine.far, engine.mpi, self._guide, self._groups)

    def _do(self, call: Call, async_op: bool, timeout: float | None, *given: Any) -> Any:
        """Run a call; its result, or with `async_op` its Work. `given` is what `recall` was given for it."""
        limit = self.timeout if timeout is None else seconds(timeout)
        self._alive()
        trial = self._under_trial(call.request)
        if trial is not None and not async_op:
            return self._try(trial, call, limit)
        prepared = self._prepared(call.request)
        if given and trial is None:
            self._remember(call, prepared, given)
        return self._perform(call, prepared, async_op, limit)

    def _perform(self, call: Call, prepared: Any, async_op: bool, limit: float) -> Any:
        call.prepare(None)
        if not async_op and not self._queued():
            self._run(call, prepared, limit)
            return call.result
        keep = (call, prepared)
        work = self._begin(call.request.collective, prepared, call.source, call.target, limit, call.result, keep)
        return work if async_op else self._finished(call.request.collective, work)

    def _under_trial(self, request: Request) -> Trial | None:
        """The trial that finds out by which algorithm such calls are to be made, until it has."""
        trial = None if self._trials is None else self._trials.find(request)
        return trial if trial is not None and trial.chosen is None else None

    def _try(self, trial: Trial, call: Call, limit: float) -> Any:
        """Run a call by the algorithm whose turn it is, and after the last one agree with all ranks on the times."""
        assert self._trials is not None
        clock = self._trials.clock
        prepared = self._planned(call.request._replace(algorithm=trial.turn), tells=False)
        queued, before = self._queued(), self._engine.sequence
        begun = clock()
        try:
            result = self._perform(call, prepared, False, limit)
            if trial.took(0 if queued else max(clock() - begun, 1)):  # the time of what it waits behind says nothing
                self._agree(trial, limit)
        except BaseException as error:  # as KeyboardInterrupt: others have counted a call that this rank has not
            if self._engine.sequence != before:
                self._break(call.request.collective, error)
            raise
        if self.rank == 0 and trial.chosen is not None:
            self._settled(trial, call.request)
        return result

    def _agree(self, trial: Trial, limit: float) -> None:
        taken = np.array(trial.taken, np.int64)
        agreement = calls.all_reduce(self.rank, self.size, taken, "max", out=taken)
        agreement.request = agreement.request._replace(called="tune")
        prepared = self._planned(agreement.request, tells=False)
        self._perform(agreement, prepared, False, limit)  # a deadline of its own: that of the call is met
        trial.agreed(taken.tolist())

    def _settled(self, trial: Trial, request: Request) -> None:
        from collx.trial import outcome

        assert self._trials is not None
        self._trials.keep(request, trial)
        if self._guide.tells:
            self._say(outcome(request, trial))

    def _remember(self, call: Call, prepared: Any, given: tuple[Any, ...]) -> None:
        """Know the call again, unless what it was given can change unseen."""
        if constant(given[2:]):
            value = None if call.fill is None else call.fill[1]
            copied = call.before is not None
            self._known.remember(prepared, call.result, (call.request.collective, *given), copied, value)

    def bound(self, call: Call) -> Recall:
        """The short way of a handle; `unknown` where there is none, or none yet."""
        prepared = self._prepared(call.request)
        if call.before is not None or self._under_trial(call.request) is not None:
            return unknown
        fill = call.fill and (call.fill[0].array, call.fill[1])
        return self._known.bind(prepared, call.source, call.target, fill, call.result, call.keep)

    def _queued(self) -> bool:
        """Whether asynchronous collectives are under way, behind which a synchronous one must queue, unless its engine
        waits for them itself."""
        return not self._engine.mpi and self._last is not None and not self._last.done()

    def _run(self, call: Call, prepared: Any, limit: float) -> None:
        self._engine.sequence = sequence = self._engine.sequence + 1
        try:
            self._engine.run(prepared, call.source, call.target, sequence, limit)
        except BaseException as error:
            self._engine.hold(call)
            self._break(f"{call.request.collective} #{sequence}", error)
            raise

    def _begin(
        self, collective: str, prepared: Any, source: int, target: int, limit: float, result: Any, keep: Any
    ) -> Work:
        self._engine.sequence = sequence = self._engine.sequence + 1
        what = f"{collective} #{sequence}"
        try:
            pending = self._engine.start(prepared, source, target, sequence, limit)
        except BaseException as error:
            self._break(what, error)
            raise
        self._last = self._watched(what, pending, result, keep)
        return self._last

    def _finished(self, what: str, work: Work) -> Any:
        try:
            return work.wait()
        except BaseException as error:
            self._break(what, error)
            raise

    def _watched(self, what: str, pending: Pending, result: Any, keep: Any) -> Work:
        """A Work that is kept until it is done."""
        here = weakref.ref(self)

        def ended(work: Work, error: Exception | None) -> None:
            member = here()
            if member is not None:
                member._under_way.discard(work)
                if error is not None and not isinstance(error, HARMLESS):
                    member._engine.hold(keep)
                    member._break(what, error)

        if len(self._under_way) >= self._crowd:
            for old in tuple(self._under_way):  # other threads wait for works too, and take them out
                if old.done():
                    old.settle()
            self._crowd = max(4, 2 * len(self._under_way))
        work = Work(pending, result, keep, ended)
        self._under_way.add(work)
        return work

    def _prepared(self, request: Request) -> Any:
        asked = request if self._trials is None else self._trials.resolved(request)
        return self._planned(asked, tells=asked is request)

    def _planned(self, request: Request, tells: bool) -> Any:
        try:
            cached = self._plans.get(request)
        except TypeError:  # it names an algorithm by what is no name, which making a plan says better
            cached = None
        if cached is not None:
            return cached[0]
        engine = self._engine
        limits = (engine.capacity, engine.window, engine.mpi, engine.far)
        plan, op = make_plan(request, self.rank, self.size, *limits, self._groups, self._guide)
        if tells and self._guide.tells and self.rank == 0:
            self._tell(request)
        prepared = engine.prepare(plan, op)
        if len(self._plans) >= PLANS:
            del self._plans[next(iter(self._plans))]
            self._known.forget()
        self._plans[request] = (prepared, op)
        return prepared

    def _tell(self, request: Request) -> None:
        """Print what was chosen for the request, once for its size class."""
        from collx.explain import first_choice  # which most programs never ask for

        engine = self._engine
        line = first_choice(
            request, self.size, room_of(engine.capacity), engine.far, engine.mpi, self._guide, self._groups
        )
        if line not in self._told:
            self._told.add(line)
            self._say(line)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # what cannot be told, as on a full disk, keeps nobody waiting
            print(f"collx INFO {self!r}: {line}", file=sys.stderr, flush=True)

    def dump(self, file: TextIO | None = None) -> None:
        """Print the last 32 collectives of every rank, with their states and times, to `file` (standard error).

        Local, at any time, also after an error. Over shared memory it shows all ranks, elsewhere this one.
        """
        print(self._flown(), file=file or sys.stderr, end="", flush=True)

    def _flown(self) -> str:
        return flight.table(f"{self!r}: the last collectives", self._engine.flown())

    # -- life and death ------------------------------------------------------------------------------

    def _alive(self) -> None:
        if self._over is not None:
            raise ClosedError(f"rank {self.rank} of {self.size}: this communicator cannot be used: {self._over}")
        self._engine.may_call()

    def _end(self, why: str) -> None:
        """Take no more calls, by either way."""
        self._over = self._over or why
        self._known.close()

    def _break(self, what: str, error: BaseException) -> None:
        """Note the first error, and tell the other ranks."""
        if self._over is not None:
            return
        if isinstance(error, TimeoutError):
            with contextlib.suppress(OSError, ValueError):  # where there is no standard error any more
                self.dump()
        text = " ".join(str(error).split())
        self._end(f"{what} failed with {type(error).__name__}: {text}")
        with contextlib.suppress(CollxError):
            mismatch = isinstance(error, MismatchError)
            told = text if mismatch else f"rank {self.rank} in {what}: {type(error).__name__}: {text}"
            self._engine.fail(told, mismatch=mismatch)

    def _inherited(self) -> None:
        self._over = None
        self._end("it was inherited through fork; only the process that made it can use it")
        self._left = True
        leaving.keep_in_child((self._engine, [work.abandon(ClosedError(self._over)) for work in self._under_way]))


def _to(member: Member, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a member as what its engine calls, which does not keep it alive."""
    here = weakref.ref(member)

    def called(*given: Any) -> Any:
        there = here()
        return None if there is None else method(there, *given)

    return called
