"""Random mismatched pairs of calls on real ranks: `make mismatches CASES=100000`.

Every case has a communicator of its own, of 2 to 4 ranks. Up to three calls agree; in the next one a rank makes another
call than the others, and some rank may be late; in the last all would agree again. Every rank must raise MismatchError
in one of these two, with a message that names what differs; a call that returns must return what NumPy says.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import collx
from collx import Communicator
from collx.collectives import COLLECTIVES
from collx.errors import CollxError, MismatchError
from collx.types import Array, ReduceOp
from tests.calls import Call
from tests.oracle import expected, inputs

WORLD = 4
TIMEOUT = 20.0  # seconds, after which a case counts as hung
DTYPES = [np.dtype(name) for name in ("u1", "i4", "i8", "f4", "f8", "c16")]
OPS = ("sum", "prod", "lor", "lxor")  # every dtype has them
COUNTS = (0, 1, 2, 6, 7, 30, 1000, 1200, 9000, 70_000)
WAYS = ("plain", "plain", "async", "handle", "heap")
KINDS = ("collective", "dtype", "count", "counts", "op", "root", "order", "communicator")


@dataclass(slots=True)
class Case:
    """What every rank of a communicator calls, and in which way; `ahead`: the last two are started before a wait."""

    size: int
    kind: str
    agreed: list[Call]  # the last two are the mismatched one and the next
    culprit: int
    instead: list[Call]  # the culprit's last two
    ways: list[str]
    ahead: bool
    late: dict[int, float]
    elsewhere: bool = False  # the culprit makes them on another communicator

    def calls(self, rank: int) -> list[Call]:
        return self.agreed[:-2] + self.instead if rank == self.culprit else self.agreed


@dataclass(slots=True)
class Found:
    """What came of many cases."""

    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


# -- making cases -------------------------------------------------------------------------------------


def any_call(rng: random.Random, size: int) -> Call:
    collective = rng.choice(list(COLLECTIVES))
    spec = COLLECTIVES[collective]
    call = Call(collective, "", size, dtype=rng.choice(DTYPES), op=ReduceOp(rng.choice(OPS)))
    if spec.rooted:
        call = replace(call, root=rng.randrange(size))
    return counted(rng, call)


def counted(rng: random.Random, call: Call) -> Call:
    """The call with other counts: as many for everybody, or, where that can be, some for each."""
    size, most, uneven = call.size, rng.choice(COUNTS), rng.random() < 0.4
    some = [rng.randint(0, most) if uneven else most for _ in range(size)]
    if call.collective == "all_to_all":
        uneven &= rng.random() < 0.5
        rows = ([rng.randint(0, most) if uneven else most for _ in range(size)] for _ in range(size))
        return replace(call, counts=(), matrix=tuple(map(tuple, rows)))
    if call.collective == "barrier":
        return call
    return replace(call, counts=tuple(some) if COLLECTIVES[call.collective].per_rank else (most,))


def differing(a: Call, b: Call) -> set[str]:
    """The words of which a message must have one: what two calls differ in."""
    if a.collective != b.collective:
        return {"collective"}
    spec = COLLECTIVES[a.collective]
    found = {
        "dtype": spec.result != "heard" and a.dtype != b.dtype,
        "op": spec.reduces and a.op.name != b.op.name,
        "root": spec.rooted and a.root != b.root,
        "count": (a.counts, a.matrix) != (b.counts, b.matrix),
    }
    return {word for word, differs in found.items() if differs}


def other(rng: random.Random, kind: str, call: Call, culprit: int) -> Call:
    """Another call than this one, of the kind asked for if it can be."""
    size = call.size
    match kind:
        case "dtype":
            return replace(call, dtype=rng.choice(DTYPES))
        case "op":
            return replace(call, op=ReduceOp(rng.choice(OPS)))
        case "root" if COLLECTIVES[call.collective].rooted:
            return replace(call, root=rng.randrange(size))
        case "count":
            return counted(rng, call)
        case "counts" if call.matrix:  # the culprit sends what it would, and expects something else of another rank
            source = rng.choice([rank for rank in range(size) if rank != culprit])
            rows = [list(row) for row in call.matrix]
            rows[source][culprit] += 1
            return replace(call, matrix=tuple(map(tuple, rows)))
        case "counts" if COLLECTIVES[call.collective].per_rank:
            return replace(call, counts=tuple(rng.sample(call.counts, size)))
    return any_call(rng, size)


def make(rng: random.Random, size: int) -> Case:
    while True:
        kind, culprit = rng.choice(KINDS), rng.randrange(size)
        agreed = [any_call(rng, size) for _ in range(rng.randint(2, 5))]
        instead = agreed[-2:]
        if kind == "order":
            instead = instead[::-1]
        elif kind != "communicator":
            instead = [other(rng, kind, agreed[-2], culprit), agreed[-1]]
        elif rng.random() > 0.2:  # they need a second communicator, and to fall asleep
            continue
        given_up = even_matrix(agreed[-2]) != even_matrix(instead[0]) and not differing(agreed[-2], instead[0])
        if (kind == "communicator" or differing(agreed[-2], instead[0])) and not given_up:
            break
    late = {rng.randrange(size): rng.expovariate(1 / 0.0005)} if rng.random() < 0.6 else {}
    if rng.random() < 0.02:
        late = {culprit: 0.02}  # until the others sleep
    ways = [rng.choice(WAYS) for _ in agreed]
    return Case(size, kind, agreed, culprit, instead, ways, rng.random() < 0.2, late, kind == "communicator")


def even_matrix(call: Call) -> bool:
    """Whether an all_to_all needs no counts: where all agree that it needs none they also agree on the algorithm."""
    return len({n for row in call.matrix for n in row}) <= 1


# -- running one --------------------------------------------------------------------------------------


def bound(comm: Communicator, call: Call, given: Array, heap: bool) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call on this rank."""
    x = comm.empty(given.shape, given.dtype) if heap else given.copy()
    x[...] = given
    uneven = {"counts": list(call.counts)} if len(set(call.counts)) > 1 else {}
    match call.collective:
        case "all_reduce" | "scan" | "exscan":
            return [x, call.op.name], {}
        case "reduce":
            return [x, call.op.name, call.root], {}
        case "reduce_scatter":
            return [x, call.op.name], uneven
        case "all_gather":
            return [x], uneven
        case "gather":
            return [x, call.root], uneven
        case "scatter":
            out = np.zeros(call.counts[comm.rank], call.dtype)
            return [x if comm.rank == call.root else None, call.root], {"out": out, **uneven}
        case "broadcast":
            return [x if comm.rank == call.root else np.zeros(call.counts, call.dtype), call.root], {}
        case "all_to_all" if not even_matrix(call):
            received = [row[comm.rank] for row in call.matrix]
            return [x], {"send_counts": list(call.matrix[comm.rank]), "recv_counts": received}
        case "all_to_all":
            return [x], {}
    return [], {}


def start(comm: Communicator, call: Call, given: Array, way: str) -> Callable[[], Any]:
    """Begin a call; what waits for its result."""
    arguments, named = bound(comm, call, given, way == "heap")
    if way == "handle":
        result = comm.plan(call.collective, *arguments, **named)()
    elif way == "async" and call.collective != "barrier":
        return getattr(comm, call.collective)(*arguments, **named, async_op=True).wait  # type: ignore[no-any-return]
    else:
        result = getattr(comm, call.collective)(*arguments, **named)
    return lambda: result


def wrong(call: Call, rank: int, result: Any, given: list[Array]) -> bool:
    """Whether a call that returned gave something else than NumPy."""
    if call.collective == "barrier" or (call.collective == "exscan" and rank == 0):
        return False
    if call.collective in ("reduce", "gather") and rank != call.root:
        return result is not None
    return not np.array_equal(result, expected(call, given)[rank])


def play(comm: Communicator, second: Communicator | None, case: Case, seed: int) -> str:
    """One rank's part of a case; what is wrong about it, or nothing. A rank that is still in a call before the
    mismatched one may raise there already: the communicator has ended."""
    rank, calls = comm.rank, case.calls(comm.rank)
    last = len(calls) - 2
    # What a culprit sends in a call of the same matrix but for what it receives is what the others expect of it.
    sent = case.agreed if case.kind == "counts" and case.agreed[last].matrix else calls
    given = [inputs(call, seed + index) for index, call in enumerate(sent)]
    begun: list[Callable[[], Any]] = []

    def begin(index: int) -> None:
        if index == last and rank in case.late:
            time.sleep(case.late[rank])
        ahead = case.ahead and index >= last
        there = second if second is not None and rank == case.culprit and index >= last else comm
        begun.append(start(there, calls[index], given[index][rank], "async" if ahead else case.ways[index]))

    stopped: CollxError | None = None
    for index in range(len(calls)):
        try:
            while stopped is None and len(begun) <= (last + 1 if case.ahead and index == last else index):
                begin(len(begun))
        except CollxError as error:
            stopped = error
        if stopped is not None and len(begun) <= index:
            return judged(case, index, stopped)
        try:
            result = begun[index]()
        except CollxError as error:
            return judged(case, index, error)
        if wrong(calls[index], rank, result, given[index]):
            return f"wrong data in call {index + 1}"
    return f"returned from both calls ({case.kind})"


def judged(case: Case, index: int, error: CollxError) -> str:
    words = {"communicator"} if case.elsewhere else differing(case.agreed[-2], case.instead[0])
    if isinstance(error, MismatchError) and any(f"{word} differs" in str(error) for word in words):
        return ""
    return f"call {index + 1} raised {type(error).__name__}: {error}"


def body(world: Communicator, cases: int, seed: int, progress: bool) -> Found:
    """Runs cases until there were so many; two pairs of ranks at a time."""
    found, turn = Found(), 0
    while found.cases < cases:
        rng = random.Random(f"{seed}/{turn}")
        size = rng.choice((2, 2, 3, 4))
        groups = WORLD // size
        plans = [make(rng, size) for _ in range(groups)]
        color = world.rank // size if world.rank // size < groups else None
        comm = world.split(color)
        problem = ""
        second = world.split(color) if any(case.elsewhere for case in plans) else None
        if comm is not None and color is not None:
            comm.timeout = TIMEOUT
            if second is not None:
                second.timeout = TIMEOUT
            problem = play(comm, second if plans[color].elsewhere else None, plans[color], seed + turn)
            if problem:
                problem = f"seed {seed} turn {turn} rank {comm.rank} of {size}: {problem}\n    {plans[color]}"
            comm.close()
            if second is not None:
                second.close()
        if problem:
            found.failures.append(problem)
            print(problem, file=sys.stderr, flush=True)
        found.cases += groups
        found.kinds.update(case.kind for case in plans)
        turn += 1
        if progress and world.rank == 0 and turn % 5000 == 0:
            print(f"{found.cases} cases", flush=True)
    return found


def run(cases: int, seed: int, progress: bool = False) -> Found:
    """What came of about so many cases."""
    ranks: list[Found] = collx.spawn(body, WORLD, cases, seed, progress)
    ranks[0].failures = [failure for found in ranks for failure in found.failures]
    return ranks[0]


def main(argv: list[str]) -> int:
    cases = int(argv[0]) if argv else 1000
    seed = int(argv[1]) if len(argv) > 1 else int(time.time())
    begun = time.monotonic()
    found = run(cases, seed, progress=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
    took = time.monotonic() - begun
    print(f"seed {seed}: {found.cases} mismatches ({kinds}) in {took:.0f} s: {len(found.failures)} failures")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
