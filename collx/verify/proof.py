"""Proves that schedules do what their collective promises, in the costs they are registered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from collx.collectives import COLLECTIVES, Collective
from collx.errors import ScheduleError
from collx.schedule import Algorithm, Builder, Schedule
from collx.verify.execution import State, with_one_credit, with_rendezvous
from collx.verify.expressions import Expressions, told_ranks
from collx.verify.wiring import SIGNAL, wired


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved: the collective's result on every rank, no deadlock, and these costs.

    `rounds` is the longest chain of communicating rounds, `volume` the most that any rank sends in units of the
    buffer, `messages` how many there are in all. `ordered`: every reduction takes the ranks in order. `uniform`: it is
    right only where all blocks are of one size.
    """

    collective: str
    size: int
    root: int
    blocks: int
    rounds: int
    volume: Fraction
    messages: int
    ordered: bool
    uniform: bool


def prove(algorithm: Algorithm, size: int, root: int = 0) -> Proof:
    """Prove a registered algorithm on `size` ranks, its flags and closed forms included. Raises ScheduleError."""
    grouped = f" in groups {algorithm.groups}" if algorithm.groups else ""
    name = f"{algorithm.collective}:{algorithm.name} on {size} ranks{grouped}"
    if not algorithm.sizes(size):
        raise ScheduleError(f"{name}: it does not take this size")
    try:
        schedules = [algorithm.build(rank, size, root) for rank in range(size)]
        proof = prove_schedules(algorithm.collective, schedules, root, uniform=algorithm.uniform)
        _compare("rounds", algorithm.rounds(size), proof.rounds, algorithm.exact)
        _compare("volume", algorithm.volume(size), proof.volume, algorithm.exact)
        if algorithm.ordered and not proof.ordered:
            raise ScheduleError("it is registered as ordered, but reduces out of rank order")
    except ScheduleError as error:
        raise ScheduleError(f"{name}, root {root}: {error}" if root else f"{name}: {error}") from None
    return proof


def prove_schedule(
    collective: str, builder: Builder, size: int, root: int = 0, *, ordered: bool = False, uniform: bool = False
) -> Proof:
    """Prove a builder `(rank, size[, root]) -> Schedule` that is not registered. `ordered` demands rank order,
    `uniform` permits messages between blocks of different sizes. Raises ScheduleError."""
    built = Algorithm(collective, "", builder, lambda size: 0, lambda size: Fraction(0), "", "", uniform=uniform)
    proof = prove_schedules(collective, [built.build(rank, size, root) for rank in range(size)], root, uniform=uniform)
    if ordered and not proof.ordered:
        raise ScheduleError(f"{collective} on {size} ranks: it reduces out of rank order")
    return proof


def prove_schedules(collective: str, schedules: Sequence[Schedule], root: int = 0, *, uniform: bool = False) -> Proof:
    """Prove all ranks' schedules for one size. Raises ScheduleError."""
    spec, size = COLLECTIVES[collective], len(schedules)
    if not 0 <= root < size:
        raise ScheduleError(f"there is no root {root} among {size} ranks")
    wiring = wired(spec, schedules, uniform)
    values = Expressions()
    states = [_before(spec, values, rank, size, root, wiring.blocks) for rank in range(size)]
    rounds = with_one_credit(wiring, states, int.__or__ if spec.result == "heard" else values.join)
    with_rendezvous(wiring)
    ordered = _check_results(spec, values, states, root, wiring.blocks)
    volume = Fraction(max(wiring.volumes), wiring.blocks)
    if volume < _least_volume(spec, size):
        raise ScheduleError(f"volume {volume} is under the bound {_least_volume(spec, size)}: the prover is wrong")
    messages = sum(len(sent) for sent in wiring.sent.values())
    return Proof(collective, size, root, wiring.blocks, rounds, volume, messages, ordered, wiring.uniform)


def _compare(what: str, registered: Fraction | int, found: Fraction | int, exact: bool) -> None:
    if found > registered or (exact and found != registered):
        raise ScheduleError(f"{what}: {registered} by the registered closed form, {found} found")


def _before(spec: Collective, values: Expressions, rank: int, size: int, root: int, blocks: int) -> State:
    if spec.result == "heard":
        return {SIGNAL[0]: 1 << rank}
    return {block: values.leaf(rank, block) for block in spec.before(rank, size, root, blocks)}


def _check_results(spec: Collective, values: Expressions, states: list[State], root: int, blocks: int) -> bool:
    """Whether the results, which must be right, also keep rank order."""
    size, ordered = len(states), True
    everyone = (1 << size) - 1
    shapes: dict[int, int] = {}
    for rank, state in enumerate(states):
        if spec.result == "heard":
            if state[SIGNAL[0]] != everyone:
                raise ScheduleError(f"rank {rank} never hears of {told_ranks(everyone & ~state[SIGNAL[0]])}")
            continue
        inclusive = rank + (spec.name == "scan")
        for block in spec.after(rank, size, root, blocks) if inclusive or spec.result != "prefix" else ():
            if block not in state:
                raise ScheduleError(f"rank {rank} ends with nothing in block {block}")
            value = state[block]
            if spec.reduces:
                expected = everyone if spec.result == "reduction" else (1 << inclusive) - 1
                right = values.block[value] == block and values.ranks[value] == expected
                ordered = ordered and values.span[value] is not None
            else:
                owner, meant = _owner(spec, rank, size, root, block)
                right, expected = value == values.leaf(owner, meant), 1 << owner
            if not right:
                found, wanted = values.told(value), told_ranks(expected)
                raise ScheduleError(f"rank {rank} ends with {found} in block {block}, expected that of {wanted}")
            if spec.result == "reduction" and shapes.setdefault(block, values.shape[value]) != values.shape[value]:
                raise ScheduleError(f"rank {rank} adds block {block} up in another order than ranks before it")
    return ordered


def _owner(spec: Collective, rank: int, size: int, root: int, block: int) -> tuple[int, int]:
    """The rank and block whose contribution must be in `block` in the end."""
    if spec.result == "exchange":
        return block, size + rank
    return (root if spec.name in ("broadcast", "scatter") else block), block


def _least_volume(spec: Collective, size: int) -> Fraction:
    """The least that the busiest rank must send, in units of the buffer."""
    one_less = Fraction(size - 1, size)
    match spec.name:
        case "all_reduce":
            return 2 * one_less
        case "reduce_scatter" | "all_gather" | "all_to_all" | "scatter":
            return one_less
        case "gather":
            return one_less / (size - 1) if size > 1 else one_less
        case "barrier":
            return Fraction(0)
        case _:
            return Fraction(min(size - 1, 1))
