"""Calls on memory that all ranks have mapped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from collx.cuda import nccl
from collx.cuda.announcement import Announcement, input_bytes, output_bytes, traits_of
from collx.cuda.barriers import Barrier
from collx.cuda.choosing import Chosen, NoRoom, Ranks, choose, named
from collx.cuda.control import PLANS, Control, Deadline
from collx.cuda.joining import Joined, Shares
from collx.cuda.kernels import Move, Queue
from collx.cuda.nccl import Nccl
from collx.cuda.on_host import OnHost
from collx.cuda.part import Address, Part
from collx.cuda.replays import Replays
from collx.cuda.segments import cut
from collx.cuda.staging import Stage, Staging
from collx.cuda.watch import Queued, Watch
from collx.errors import CollxError, MismatchError, TransportError
from collx.plan import Space
from collx.request import Request
from collx.transports.waiting import Pause

CALLED = "a call on GPUs"  # what ranks on the host are in when they announce one, or wait for each other


class Call(NamedTuple):
    """One call: what it asks for, on which stream, by which barrier, until when, for people, and what it keeps."""

    request: Request
    stream: int
    barrier: Barrier
    deadline: Deadline
    here: str
    keep: object


class Mapped:
    """One rank's part in calls on mapped memory. `on_host` makes those that cannot be made so; `fail(reason)` is called
    where one fails that was queued already."""

    def __init__(
        self, joined: Joined, shares: Shares, control: Control, on_host: OnHost, fail: Callable[[str], None]
    ) -> None:
        self._shares, self._control, self._on_host, self._vigil = shares, control, on_host, joined.vigil
        self._driver, self._ordinal = joined.driver, joined.ordinal
        self._rank, self._everyone = control.rank, range(control.size)
        self._ranks = Ranks(shares.workers, shares.slab.room, control.groups, shares.no_nccl)
        self._chosen: dict[tuple[Request, tuple[bool, ...]], Part | None] = {}
        self._nccl: Nccl | None = None
        self.staged = ""  # why the newest call was that could not be made on the memory given
        self._number = 1  # of the newest barrier, the same on all ranks; the first was a probe
        self._staging: Staging | None = None
        self._queued: deque[Queued] = deque()  # the oldest first
        self._fail = fail
        self._watch = Watch(self._driver, self._trouble, self._give_up, shares.barrier.releases)
        self._replays: Replays | None = None
        if not shares.barrier.meets:
            self._replays = Replays(joined.driver, joined.ordinal, shares.kernels, self._trouble, self._give_up)

    def run(
        self,
        request: Request,
        source: int,
        target: int,
        stream: int,
        deadline: Deadline,
        here: str,
        keep: object = None,
    ) -> None:
        """Run a call, or have it captured where the stream is; `keep` is kept until its work has ended."""
        captures = self._driver.capturing(stream)
        barrier = self._shares.barrier.captured(here) if captures else self._shares.barrier
        call = Call(request, stream, barrier, deadline, here, keep)
        if self._queued and not captures:  # calls share workspaces, and words that only grow
            self._queued[-1].precede(stream)
        if barrier.meets:  # what all meet at on the host is the announcement
            self._arrive(call, self._everyone)
        told = self._announced(call, source, target)
        while self._queued and not captures and self._queued[0].done():  # so that mappings of freed memory can go
            self._queued.popleft()
        unshared = next(
            (f"rank {rank}: {why}" for rank, one in enumerate(told) for why in (one.source.why, one.target.why) if why),
            "",
        )
        part: Part | None = None
        try:
            part = self._planned(call, tuple(one.inplace for one in told))
            by_nccl = part is None
        except NoRoom as error:
            by_nccl, unshared = False, unshared or str(error)
        if by_nccl:  # which takes any memory
            unshared = "NCCL makes it" * captures
        self.staged = unshared or self.staged
        if captures and unshared:
            raise TransportError(f"{here} cannot be captured in a CUDA graph: {unshared}")
        if unshared and not request.agreed:  # nobody knows how much goes through the slabs of all
            self._on_host.run(request, source, target, stream, deadline, here)
        elif unshared:
            self._by_slab(call, source, target)
        elif part is None:
            self._by_nccl(call, source, target)
        else:
            with self._shares.ipc.using() as mappings:
                address = self._mapped(told, source, target)
                if captures:
                    self._capture(call, part, address)
                    self._shares.ipc.keep(mappings)
                else:
                    try:
                        self._queue(call, part, address)
                    finally:  # what fails halfway has queued something, too
                        self._after(call, mappings)

    def may_capture(self, here: str) -> None:
        """Raise TransportError where no call of these ranks can become part of a CUDA graph."""
        self._shares.barrier.captured(here)

    @property
    def ranks(self) -> Ranks:
        """Among whom algorithms are chosen."""
        return self._ranks

    def release(self) -> None:
        """Give up what was queued: a peer will not come. From any thread."""
        with self._driver.on(self._ordinal):
            self._shares.barrier.release()
        if self._nccl is not None:
            self._nccl.abort()

    def _trouble(self) -> CollxError | None:
        """What has happened to a peer, or to what joins it."""
        failed = None if self._nccl is None else self._nccl.failed()
        return TransportError(f"NCCL failed: {failed}") if failed else self._vigil.trouble()

    def _give_up(self, what: str, error: BaseException) -> None:
        self._fail(str(error) if what in str(error) else f"{what}: {error}")
        self.release()  # once more: a graph that is replayed waits anew

    def close(self, leave: float, over: Callable[[], bool]) -> bool:
        """Return when what was queued has ended: peers whose GPUs come to it late need this rank until then. Where the
        communicator is `over`, or a call's time is up, return `leave` seconds later. Whether all has ended. Idempotent.
        """
        pause, until = Pause(), None
        while self._queued and not (until and until.over):
            oldest = self._queued[0]
            if oldest.done():
                self._queued.popleft()
                continue
            if until is None and (over() or oldest.deadline.over):
                until = Deadline(leave)
            pause()
        self._watch.close()
        if self._replays is not None:
            self._replays.close(not self._queued)
        if self._nccl is not None and not self._queued:
            self._nccl.close()
            self._nccl = None
        if self._staging is not None and not self._queued:
            self._staging.close()
            self._staging = None
        return not self._queued

    # -- what is agreed on before

    def _announced(self, call: Call, source: int, target: int) -> list[Announcement]:
        """Tell all ranks of the call, and hear of theirs."""
        ipc, request, size = self._shares.ipc, call.request, self._control.size
        traits = traits_of(request, named(request, self._ranks), size)
        read, written = input_bytes(request, self._rank, size), output_bytes(request, self._rank, size)
        captured = call.barrier is not self._shares.barrier
        mine = Announcement(
            traits, request.inplace, captured, ipc.describe(source, read), ipc.describe(target, written)
        )
        records = self._control.gather(mine.pack(), call.deadline, CALLED)
        told = [Announcement.unpack(record) for record in records]
        for peer, one in enumerate(told):
            if one.traits.fingerprint != traits.fingerprint:
                raise MismatchError(f"{call.here}: {traits.difference(one.traits, peer)}")
            if one.captured != captured:
                where = "here, but not on" if captured else "not here, but on"
                raise MismatchError(
                    f"{call.here} is captured in a CUDA graph {where} rank {peer}; all ranks must capture it, or none"
                )
        return told

    def _planned(self, call: Call, inplace: tuple[bool, ...]) -> Part | None:
        """This rank's part in what all choose; None for NCCL's own. Raises NoRoom, on all ranks."""
        request, guide = call.request, self._control.guide
        if not request.agreed:
            return self._part(choose(request, self._ranks, guide, inplace, self._exchanged(call)))
        key = request, inplace
        if key not in self._chosen:
            _make_room(self._chosen)
            self._chosen[key] = self._part(choose(request, self._ranks, guide, inplace))
        return self._chosen[key]

    def _part(self, chosen: Chosen) -> Part | None:
        return None if chosen.plan is None else Part.of(chosen.plan, self._rank)

    def _exchanged(self, call: Call) -> list[list[int]]:
        """By rank, what it sends to each, as it alone knows. Nothing is written where another receives less or more."""
        request = call.request
        mine = np.array((request.given, request.elements), np.int64)
        rows = self._control.gather(mine.tobytes(), call.deadline, CALLED)
        sent, taken = np.array([np.frombuffer(row, np.int64).reshape(mine.shape) for row in rows]).swapaxes(0, 1)
        for sender, receiver in np.argwhere(sent != taken.T):
            raise MismatchError(
                f"{call.here}: rank {sender} sends {sent[sender, receiver]} elements to rank {receiver}, which receives"
                f" {taken[receiver, sender]}; what one sends must be what the other receives"
            )
        return [row.tolist() for row in sent]

    # -- where memory is

    def _mapped(self, told: Sequence[Announcement], source: int, target: int) -> Address:
        ipc, slab = self._shares.ipc, self._shares.slab

        def address(rank: int, space: Space) -> int:
            if space is Space.WORKSPACE:
                return slab.workspace(rank)
            if rank == self._rank:
                return source if space is Space.INPUT else target
            return ipc.address(rank, told[rank].source if space is Space.INPUT else told[rank].target)

        return address

    def _by_slab(self, call: Call, source: int, target: int) -> None:
        """By way of the slabs, segment by segment, where some rank's memory cannot be shared."""
        slab, size = self._shares.slab, self._control.size
        if self._staging is None:
            first, second = (Stage(*slab.stage(self._rank, side)) for side in (0, 1))
            self._staging = Staging(self._driver, (first, second))
        staging = self._staging

        def execute(part: Request, at: int, to: int) -> None:
            side = int(at == staging.stages[1].input)

            def address(rank: int, space: Space) -> int:
                return slab.workspace(rank) if space is Space.WORKSPACE else slab.stage(rank, side)[space]

            own = self._planned(call._replace(request=part), (False,) * size)
            assert own is not None, "NCCL takes any memory"
            if call.barrier.meets:
                self._arrive(call, self._everyone)
                self._control.meet(call.deadline, CALLED)
            self._queue(call._replace(request=part), own, address)

        segments = cut(call.request, self._rank, size, slab.stage_bytes)
        try:
            staging.run(segments, source, target, call.stream, execute)
        finally:
            self._after(call, None)

    def _by_nccl(self, call: Call, source: int, target: int) -> None:
        """By NCCL's own collective. It is told of no deadline, but is aborted where one passes."""
        if self._nccl is None:
            control, deadline = self._control, call.deadline
            joined = nccl.join(control.rank, control.size, lambda mine: control.gather(mine, deadline, CALLED))
            if isinstance(joined, str):
                raise TransportError(f"{call.here} was to be made by NCCL, but {joined}")
            self._nccl = joined
        self._nccl.run(call.request, source, target, call.stream)
        self._after(call, None, watched=True)

    # -- what is queued

    def _queue(self, call: Call, part: Part, address: Address) -> None:
        """Queue this rank's part, from the first barrier, at which it has arrived where ranks meet for it."""
        if not part.workers:
            return
        guard = 0 if call.barrier.meets else self._shares.words.status(self._rank)
        steps = self._prepared(call.request, part, address, guard)
        arriving: Sequence[int] = self._everyone
        for number, (workers, queues) in enumerate(zip(part.workers, steps, strict=True)):
            self._cross(call, arriving, workers, met=number == 0)
            for queue in queues:
                queue(call.stream)
            arriving = workers
        self._cross(call, arriving, self._everyone)

    def _capture(self, call: Call, part: Part, address: Address) -> None:
        assert self._replays is not None, "it was made with the barrier, which can be captured"
        self._replays.begin(call.here, call.stream, call.deadline.seconds)
        self._queue(call, part, address)
        self._replays.end(call.stream)

    def _prepared(self, request: Request, part: Part, address: Address, guard: int) -> list[list[Queue]]:
        """By step, what does this rank's part: made before anything waits for a peer, since to load a kernel, or to map
        memory, the driver may wait for all streams."""
        op = request.op.name if request.op is not None else "sum"

        def made(moves: list[Move]) -> list[Queue]:
            return self._shares.kernels.prepared(moves, request.dtype, op, self._control.size, guard)

        return part.queues(address, made, guard)

    def _cross(self, call: Call, arriving: Sequence[int], waiting: Sequence[int], met: bool = False) -> None:
        """A barrier: what the waiting ranks queue from now on comes after what the arriving ones have queued. Where
        they have `met` for it already, this is what is left of it."""
        barrier = call.barrier
        if not (met and barrier.meets):
            if self._rank in arriving:
                self._arrive(call, waiting)
            else:
                self._number += 1
            if barrier.meets:
                self._control.meet(call.deadline, CALLED)
        if self._rank in waiting:
            barrier.wait(self._number, call.stream, arriving, call.deadline)

    def _arrive(self, call: Call, waiting: Sequence[int]) -> None:
        self._number += 1
        call.barrier.arrive(self._number, call.stream, waiting, call.deadline)

    def _after(self, call: Call, mappings: object, watched: bool = False) -> None:
        """Keep mappings while what was queued may use them, and look after waits that nobody else looks after."""
        queued = Queued(self._driver, self._ordinal, call.stream, call.here, call.deadline, (mappings, call.keep))
        self._queued.append(queued)
        if watched or call.barrier.waits:
            self._watch.add(queued)


def _make_room(known: dict[Any, Any]) -> None:
    """Where every call has another shape, old ones go."""
    if len(known) >= PLANS:
        del known[next(iter(known))]
