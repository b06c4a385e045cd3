"""A user's own schedules: built for all ranks, proved once, and from then on an algorithm like any other."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from hashlib import blake2b

from collx.errors import ScheduleError
from collx.schedule import Algorithm, Builder, Copy, Op, Recv, Schedule, Send
from collx.verify import kept
from collx.verify.proof import Proof, prove_schedules
from collx.version import __version__

MOST = 1 << 20  # blocks of all ranks together: who has more means elements, of which schedules know nothing
_ORDERS = (None, "left", "right")


@lru_cache(maxsize=1024)
def own(source: Algorithm | Builder, collective: str, size: int, root: int) -> Algorithm:
    """The algorithm that `source` is for this collective, size and root, once it is proved.

    What it can serve is found out by the proof, whatever is claimed of it. Its name ends in a hash of all ranks'
    schedules, so that ranks see whether they run the same. Raises ScheduleError, in one line that says where it is
    wrong. Every rank comes to the same end, because every rank looks at the schedules of all.
    """
    named = _as_algorithm(source, collective)
    schedules, digests = zip(*(_of_rank(named, rank, size, root) for rank in range(size)), strict=True)
    call = f"{__version__} {collective} {size} {root} "
    key = blake2b(call.encode() + b"".join(digests), digest_size=16).hexdigest()
    proof = kept.recalled(key)
    if proof is None:
        proof = _prove(named, schedules, root)
        kept.keep(key, proof)
    return replace(
        named,
        name=f"{named.name:.30}@{key[:8]}",
        builder=_Proved(named, root, digests),
        rounds=lambda size: proof.rounds,
        volume=lambda size: proof.volume,
        ordered=proof.ordered,
        uniform=proof.uniform,
    )


def prove_own(source: Algorithm | Builder, collective: str, size: int, root: int = 0) -> Proof:
    """Prove a function `(rank, size[, root]) -> Schedule` and find out what it can serve. Raises ScheduleError."""
    named = _as_algorithm(source, collective)
    return _prove(named, [_of_rank(named, rank, size, root)[0] for rank in range(size)], root)


def _as_algorithm(source: Algorithm | Builder, collective: str) -> Algorithm:
    if isinstance(source, Algorithm):
        return source
    inner = source.func if isinstance(source, partial) else source
    name = getattr(inner, "__name__", type(inner).__name__)
    return Algorithm(collective, name, source, lambda size: 0, lambda size: Fraction(0), "", "")


def _where(named: Algorithm, size: int, root: int) -> str:
    return f"{named.collective} by {named.name} on {size} ranks{f', root {root}' if root else ''}"


def _of_rank(named: Algorithm, rank: int, size: int, root: int) -> tuple[Schedule, bytes]:
    """The schedule of one rank and a hash of all it says; made of what schedules are made of, right or wrong."""
    try:
        try:
            schedule = named.build(rank, size, root)
        except Exception as error:
            text = " ".join(str(error).split())
            raise ScheduleError(f"the function raised {type(error).__name__}: {text}") from error
        if not isinstance(schedule, Schedule):
            raise ScheduleError(f"the function returned no Schedule, but {type(schedule).__name__}")
        words = _words(schedule)
        if schedule.blocks * size > MOST:
            raise ScheduleError(
                f"{schedule.blocks} blocks are too many: they are parts of the buffer, not its elements"
            )
    except ScheduleError as error:
        raise ScheduleError(f"{_where(named, size, root)}: rank {rank}: {error}") from error.__cause__
    return schedule, blake2b(words.tobytes(), digest_size=16).digest()


def _words(schedule: Schedule) -> array[int]:
    """All that a schedule says, in numbers."""
    part: object = schedule
    try:
        words = array("q", (schedule.blocks, len(schedule.rounds)))
        for ops in schedule.rounds:
            part = ops
            words.append(len(ops))
            for op in ops:
                part = op
                words.extend(_numbers(op))
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise ScheduleError(f"{part!r:.200} is not made of blocks and ranks that are whole numbers") from None
    return words


def _numbers(op: Op) -> tuple[int, ...]:
    match op:
        case Send():
            return (0, op.to, len(op.blocks), *op.blocks)
        case Recv():
            return (1 + _ORDERS.index(op.reduce), op.source, len(op.blocks), *op.blocks)
        case Copy():
            return (4 + _ORDERS.index(op.reduce), len(op.dst), *op.src, *op.dst)
    raise TypeError


def _prove(named: Algorithm, schedules: Sequence[Schedule], root: int) -> Proof:
    size = len(schedules)
    try:
        proof = prove_schedules(named.collective, schedules, root, uniform=True)
    except ScheduleError as error:
        raise ScheduleError(f"{_where(named, size, root)}: {error}") from None
    if named.collective == "all_to_all" and not all(_straight(schedule) for schedule in schedules):
        proof = replace(proof, uniform=True)
    return proof


def _straight(schedule: Schedule) -> bool:
    """Whether every block goes from the input to its place in one message of its own. Only so can all_to_all serve
    counts, of which no rank knows all."""
    size, written = schedule.blocks, set[int]()
    for op in (op for ops in schedule.rounds for op in ops):
        reads = () if isinstance(op, Recv) else op.blocks if isinstance(op, Send) else op.src
        writes = () if isinstance(op, Send) else op.blocks if isinstance(op, Recv) else op.dst
        given = all(size <= block < 2 * size for block in reads)
        once = all(block < size and block not in written for block in writes)
        if max(len(reads), len(writes)) != 1 or not given or not once:
            return False
        written.update(writes)
    return True


@dataclass(frozen=True, slots=True, eq=False)
class _Proved:
    """Builds again what was proved, and nothing else."""

    source: Algorithm
    root: int
    digests: tuple[bytes, ...]

    def __call__(self, rank: int, size: int, root: int) -> Schedule:
        schedule, digest = _of_rank(self.source, rank, size, self.root)
        if digest != self.digests[rank]:
            where = _where(self.source, size, self.root)
            raise ScheduleError(f"{where}: rank {rank} has another one each time; rank, size and root alone may count")
        return schedule
