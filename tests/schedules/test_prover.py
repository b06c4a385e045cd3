"""The prover rejects what is wrong, and says where."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import collx.algorithms  # noqa: F401  (fills the register)
from collx.errors import ScheduleError
from collx.schedule import REGISTER, Algorithm, Copy, Op, Recv, Schedule, Send
from collx.verify import prove, prove_schedule
from collx.verify.proof import prove_schedules
from tests.schedules.cases import built

EXCHANGE: list[list[list[Op]]] = [
    [[Send(0, to=1), Recv(0, source=1, reduce=True)]],
    [[Send(0, to=0), Recv(0, source=0, reduce="left")]],
]


def test_a_right_one_passes() -> None:
    proof = prove_schedules("all_reduce", built(1, *EXCHANGE))
    assert (proof.rounds, proof.volume, proof.messages, proof.ordered) == (1, Fraction(1), 2, True)


WRONG: dict[str, tuple[str, list[Schedule], str]] = {
    "no such rank": (
        "broadcast",
        built(1, [[Send(0, to=2)]], [[]]),
        "rank 0, round 0: Send((0,), to=2): there is no rank 2 among 2",
    ),
    "to oneself": ("broadcast", built(1, [[Send(0, to=0)]]), "rank 0, round 0: Send((0,), to=0): a rank does not talk"),
    "two to one peer": (
        "broadcast",
        built(2, [[Send(0, to=1), Send(1, to=1)]], [[Recv((0, 1), source=0)]]),
        "rank 0, round 0: Send((1,), to=1): a second one for this peer",
    ),
    "no such block": ("broadcast", built(1, [[Send(-1, to=1)]], [[Recv(0, source=0)]]), "there is no block -1"),
    "not an op": ("broadcast", built(1, [["send"]], [[]]), "rank 0, round 0: 'send' is no Send, Recv or Copy"),  # type: ignore[list-item]
    "different cuts": ("broadcast", [Schedule(1), Schedule(2)], "rank 1 cuts the buffer into 2 blocks, rank 0 into 1"),
    "cut not by rank": ("all_gather", built(3, [], []), "all_gather on 2 ranks cannot be cut into 3 blocks"),
    "two writers": (
        "broadcast",
        built(
            1,
            [[Send(0, to=1), Send(0, to=2)]],
            [[Send(0, to=2), Recv(0, source=0)]],
            [[Recv(0, source=0), Recv(0, source=1)]],
        ),
        "rank 2, round 0: Recv((0,), source=1) writes a block that the round writes already",
    ),
    "overlapping writers": (
        "broadcast",
        built(2, [[Send((0, 1), to=1)]], [[Recv((0, 1), source=0), Copy(3, 1)]]),
        "rank 1, round 0: Copy((3,), (1,)) writes a block that the round writes already",
    ),
    "overlapping folds": (
        "all_reduce",
        built(
            2,
            [[Recv((0, 1), source=1, reduce=True), Recv(1, source=2, reduce=True)]],
            [[Send((0, 1), to=0)]],
            [[Send(1, to=0)]],
        ),
        "rank 0, round 0: Recv((1,), source=2, reduce='right') writes a block that the round writes already",
    ),
    "sent, not received": (
        "broadcast",
        built(1, [[Send(0, to=1)], [Send(0, to=1)]], [[Recv(0, source=0)]]),
        "rank 0, round 1: rank 1 has no Recv for (0,) sent to it",
    ),
    "received, not sent": (
        "broadcast",
        built(1, [[Send(0, to=1)]], [[Recv(0, source=0)], [], [Recv(0, source=0)]]),
        "rank 1, round 2: rank 0 has no Send for (0,) due from it",
    ),
    "fewer than expected": (
        "broadcast",
        built(2, [[Send(0, to=1)]], [[Recv((0, 1), source=0)]]),
        "rank 0, round 0 sends (0,); rank 1, round 0 receives (0, 1): 1 blocks into 2",
    ),
    "of other size": (
        "broadcast",
        built(2, [[Send((0, 1), to=1)]], [[Recv((1, 0), source=0)]]),
        "blocks of different sizes",
    ),
    "copied to other size": (
        "broadcast",
        built(2, [[Copy(0, 1)]]),
        "rank 0, round 0: Copy((0,), (1,)): blocks of diff",
    ),
    "undefined": (
        "broadcast",
        built(1, [[Recv(0, source=1)]], [[Send(0, to=0)]]),
        "rank 1, round 0: block 0 is read before anything is in it",
    ),
    "undefined copy": (
        "broadcast",
        built(1, [[Copy(5, 0)]]),
        "rank 0, round 0: block 5 is read before anything is in it",
    ),
    "undefined fold": (
        "broadcast",
        built(1, [[Send(0, to=1)]], [[Recv(0, source=0, reduce=True)]]),
        "rank 1, round 0: block 0 is read before anything is in it",
    ),
    "nothing there": ("broadcast", built(1, [], []), "rank 1 ends with nothing in block 0"),
    "not reduced": (
        "all_reduce",
        built(1, [[Send(0, to=1), Recv(0, source=1)]], [[Send(0, to=0), Recv(0, source=0, reduce=True)]]),
        "rank 0 ends with block 0 of rank 1 in block 0, expected that of ranks 0, 1",
    ),
    "twice": (
        "all_reduce",
        built(1, *(2 * rounds for rounds in EXCHANGE)),
        "round 1: block 0 would take in the contribution of ranks 0, 1 twice",
    ),
    "a deaf rank": (
        "barrier",
        built(1, [[Send((), to=1)]], [[Recv((), source=0)]]),
        "rank 0 never hears of rank 1",
    ),
    "a barrier with data": ("barrier", built(1, [[Send(0, to=1)]], [[Recv(0, source=0)]]), "a barrier has no data"),
    "exchanged wrongly": (
        "all_to_all",
        built(
            2, [[Send(2, to=1), Recv(1, source=1)], [Copy(2, 0)]], [[Send(2, to=0), Recv(0, source=0)], [Copy(3, 1)]]
        ),
        "rank 0, round 0 sends (2,); rank 1, round 0 receives (0,): blocks of different sizes",
    ),
    "receive before send": (
        "all_reduce",
        built(
            1,
            [[Recv(0, source=1, reduce=True)], [Send(0, to=1)]],
            [[Recv(0, source=0, reduce="left")], [Send(0, to=0)]],
        ),
        "deadlock with one credit per lane: rank 0 in round 0 waits for rank 1 to send, rank 1 in round 0 waits",
    ),
    "two sent ahead": (
        "all_gather",
        built(
            2,
            [[Send(0, to=1)], [Send(0, to=1)], [Recv(1, source=1)]],
            [[Send(1, to=0)], [Send(1, to=0)], [Recv(0, source=0)]],
        ),
        "rank 0, round 1: rank 1 has no Recv",
    ),
    "needs two credits": (
        "all_gather",
        built(
            2,
            [[Send(0, to=1)], [Send(0, to=1)], [Recv(1, source=1)], [Recv(1, source=1)]],
            [[Send(1, to=0)], [Send(1, to=0)], [Recv(0, source=0)], [Recv(0, source=0)]],
        ),
        "deadlock with one credit per lane: rank 0 in round 1 waits for rank 1 to take an earlier message",
    ),
    "needs a buffer": (
        "all_gather",
        built(2, [[Send(0, to=1)], [Recv(1, source=1)]], [[Send(1, to=0)], [Recv(0, source=0)]]),
        "deadlock with rendezvous: rank 0 in round 0 waits for rank 1, which is in round 0, to receive from it",
    ),
    "different trees": (
        "all_reduce",
        built(
            1,
            [[Send(0, to=1), Send(0, to=2), Recv(0, source=1, reduce=True), Recv(0, source=2, reduce=True)]],
            [[Send(0, to=0), Send(0, to=2), Recv(0, source=2, reduce=True), Recv(0, source=0, reduce=True)]],
            [[Send(0, to=0), Send(0, to=1), Recv(0, source=0, reduce=True), Recv(0, source=1, reduce=True)]],
        ),
        "rank 1 adds block 0 up in another order than ranks before it",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_rejected(name: str) -> None:
    collective, schedules, message = WRONG[name]
    with pytest.raises(ScheduleError) as error:
        prove_schedules(collective, schedules)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_blocks_are_not_mixed() -> None:
    with pytest.raises(
        ScheduleError, match="rank 0, round 0: block 0 of rank 0 would be reduced with block 1 of rank 0"
    ):
        prove_schedules("all_reduce", built(2, [[Copy(1, 0, reduce=True)]]), uniform=True)


def test_a_slot_is_shared_by_the_readers_of_one_publication() -> None:
    """Rank 0 publishes to 1 and 2; the message after it to 1 needs the slot that 2 has not read yet."""
    schedules = built(
        1,
        [[Send(0, to=1), Send(0, to=2)], [Send(0, to=1)]],
        [[Recv(0, source=0)], [Recv(1, source=0)], [Send(0, to=2)]],
        [[Recv(1, source=1)], [Recv(0, source=0)]],
    )
    with pytest.raises(ScheduleError, match="waits for rank 2 to read a message sent to several"):
        prove_schedules("broadcast", schedules)


def test_partners_may_swap_operands() -> None:
    """a+b and b+a are equal bit by bit, so both may add what they received to the right."""
    exchange: list[list[list[Op]]] = [
        [[Send(0, to=1 - rank), Recv(0, source=1 - rank, reduce=True)]] for rank in (0, 1)
    ]
    assert not prove_schedules("all_reduce", built(1, *exchange)).ordered


def test_a_round_reads_what_the_round_before_left() -> None:
    """Rank 1 sends on in one round what it received in the round before, while the next arrives."""
    schedules = built(
        2,
        [[Send(0, to=1)], [Send(1, to=1)]],
        [[Recv(2, source=0)], [Copy(2, 0), Recv(1, source=0)]],
    )
    prove_schedules("broadcast", schedules)
    schedules[1].rounds[1:] = [(Copy(2, 0), Copy(0, 2), Recv(1, source=0))]
    with pytest.raises(ScheduleError, match="rank 1, round 1: block 0 is read before anything is in it"):
        prove_schedules("broadcast", schedules)


def test_rounds_need_not_be_aligned() -> None:
    schedules = built(1, [[Send(0, to=1)]], [[], [], [Recv(0, source=0)], [Send(0, to=2)]], [[Recv(0, source=1)]])
    assert prove_schedules("broadcast", schedules).rounds == 2


def chain(rank: int, size: int) -> Schedule:
    schedule = Schedule(1)
    if rank > 0:
        schedule.round(Recv(0, source=rank - 1, reduce="left"))
    if rank < size - 1:
        schedule.round(Send(0, to=rank + 1))
    return schedule


def test_a_builder_of_ones_own() -> None:
    assert prove_schedule("scan", chain, 5, ordered=True).rounds == 4
    with pytest.raises(ScheduleError, match="rank 0 ends with block 0 of rank 0"):
        prove_schedule("all_reduce", chain, 5)


def test_a_builder_out_of_order() -> None:
    def backwards(rank: int, size: int) -> Schedule:
        schedule = chain(rank, size)
        schedule.rounds = [
            tuple(Recv(0, op.source, "right") if isinstance(op, Recv) else op for op in ops) for ops in schedule.rounds
        ]
        return schedule

    assert not prove_schedule("scan", backwards, 3).ordered
    with pytest.raises(ScheduleError, match="out of rank order"):
        prove_schedule("scan", backwards, 3, ordered=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": lambda size: size}, "all_reduce:ring on 4 ranks: rounds: 4 by the registered closed form, 6 found"),
        ({"volume": lambda size: Fraction(1)}, "volume: 1 by the registered closed form, 3/2 found"),
        ({"ordered": True}, "registered as ordered"),
        ({"sizes": lambda size: size < 4}, "all_reduce:ring on 4 ranks: it does not take this size"),
    ],
)
def test_wrong_claims_of_a_registered_algorithm(wrong: dict[str, Any], message: str) -> None:
    ring = REGISTER["all_reduce", "ring"]
    claims = {name: getattr(ring, name) for name in ("rounds", "volume", "ordered", "sizes")} | wrong
    claimed = Algorithm(ring.collective, ring.name, ring.builder, wins="", source="", **claims)
    with pytest.raises(ScheduleError) as error:
        prove(claimed, 4)
    assert message in str(error.value)
