"""Two executions, which decide all others: blocking lanes that keep order make a Kahn network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from collx.errors import ScheduleError
from collx.verify.wiring import Fold, Publish, Round, Wiring

Join = Callable[[int, int], int]
State = dict[int, int]  # block -> value


@dataclass(slots=True)
class _Message:
    """What one publication put on lanes. It lies in one slot, that of lane `home`, until all `readers` have read it."""

    steps: int
    values: list[int]
    home: int
    readers: int


@dataclass(slots=True)
class _Rank:
    """How far a rank has come."""

    number: int
    state: State
    next: int = 0  # the first move not done
    steps: int = 0  # rounds in the longest chain that leads here
    copies: list[list[int]] = field(default_factory=list)  # what the round's copies read


def with_one_credit(wiring: Wiring, states: list[State], join: Join) -> int:
    """Run the schedules on `states` with lanes that hold one message, every rank doing one move after the other.

    A publication waits until all its lanes are empty and the slot of its first one is read by all, a fold until
    all its lanes are full. Engines that have more credit, or do more at a time, can only wait less. Returns the
    rounds of the longest chain; a round counts if it communicates. Raises ScheduleError at a deadlock, a read of
    an undefined block or a join that is refused.
    """
    run = _Run(wiring, join)
    ranks = [_Rank(number, state) for number, state in enumerate(states)]
    while run.ready:
        run.advance(ranks[run.ready.pop()])
    if run.blocked:
        raise ScheduleError(_deadlock(wiring, ranks, run))
    return max(rank.steps for rank in ranks)


class _Run:
    """The lanes, and who waits for them. A rank that waits for a lane's slot to be read waits for ~lane."""

    __slots__ = ("blocked", "join", "lanes", "ready", "slots", "wiring")

    def __init__(self, wiring: Wiring, join: Join) -> None:
        self.wiring = wiring
        self.join = join
        self.lanes: dict[int, _Message] = {}
        self.slots: dict[int, _Message] = {}
        self.blocked: dict[int, int] = {}
        self.ready = list(range(wiring.size))

    def advance(self, who: _Rank) -> None:
        """Do the moves of one rank until its end, or until it must wait."""
        state, moves = who.state, self.wiring.moves[who.number]
        while who.next < len(moves):
            move = moves[who.next]
            try:
                if type(move) is Publish:
                    lacking = self._publish(who, move)
                elif type(move) is Fold:
                    lacking = self._fold(who, move)
                elif type(move) is Round:
                    lacking = None
                    who.steps += move.communicates
                    who.copies = [[state[block] for block in blocks] for blocks in move.copied]
            except KeyError as block:
                wrong = f"block {block} is read before anything is in it"
                raise ScheduleError(f"rank {who.number}, round {move.number}: {wrong}") from None
            except ValueError as wrong:
                raise ScheduleError(f"rank {who.number}, round {move.number}: {wrong}") from None
            if lacking is not None:
                self.blocked[lacking] = who.number
                return
            who.next += 1

    def _wake(self, key: int) -> None:
        if key in self.blocked:
            self.ready.append(self.blocked.pop(key))

    def _publish(self, who: _Rank, move: Publish) -> int | None:
        """Do it, or return what it waits for."""
        lanes = self.lanes
        for lane in move.lanes:
            if lane in lanes:
                return lane
        home = move.lanes[0]
        if home in self.slots:
            return ~home
        message = _Message(who.steps, [who.state[block] for block in move.blocks], home, len(move.lanes))
        self.slots[home] = message
        for lane in move.lanes:
            lanes[lane] = message
            self._wake(lane)
        return None

    def _fold(self, who: _Rank, move: Fold) -> int | None:
        """Do it, or return what it waits for."""
        for lane in (*move.lefts, *move.rights):
            if lane >= 0 and lane not in self.lanes:
                return lane
        state, join = who.state, self.join
        result = None if not move.own or move.lefts else [state[block] for block in move.blocks]
        for position, source in enumerate((*move.lefts, *move.rights), 1):
            values = self._taken(who, source) if source >= 0 else who.copies[~source]
            result = values if result is None else list(map(join, result, values))
            if move.own and position == len(move.lefts):
                result = list(map(join, result, [state[block] for block in move.blocks]))
        state.update(zip(move.blocks, result or (), strict=True))
        return None

    def _taken(self, who: _Rank, lane: int) -> list[int]:
        message = self.lanes.pop(lane)
        self._wake(lane)
        message.readers -= 1
        if message.readers == 0:
            del self.slots[message.home]
            self._wake(~message.home)
        who.steps = max(who.steps, message.steps)
        return message.values


def _deadlock(wiring: Wiring, ranks: list[_Rank], run: _Run) -> str:
    """The ring of waiting ranks, as one line."""
    waits: dict[int, tuple[int, str]] = {}  # rank -> for whom, and what that one should do
    for key, rank in run.blocked.items():
        if key < 0:
            lane = next(lane for lane, message in run.lanes.items() if message is run.slots[~key])
            waits[rank] = lane % wiring.size, "to read a message sent to several"
        elif key // wiring.size == rank:
            waits[rank] = key % wiring.size, "to take an earlier message"
        else:
            waits[rank] = key // wiring.size, "to send"
    rank, chain = min(waits), list[int]()
    while rank not in chain:
        chain.append(rank)
        rank = waits[rank][0]
    told = []
    for one in chain[chain.index(rank) :][:4]:
        number = wiring.moves[one][ranks[one].next].number
        told.append(f"rank {one} in round {number} waits for rank {waits[one][0]} {waits[one][1]}")
    return f"deadlock with one credit per lane: {', '.join(told)}"


def with_rendezvous(wiring: Wiring) -> None:
    """Run with lanes that hold nothing: a round's ops are posted together, and a rank leaves the round when each
    has met its other end. Raises ScheduleError at a deadlock."""
    rounds: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(wiring.size)]  # rank -> round -> messages
    for lane, sent in wiring.sent.items():
        sender, receiver = divmod(lane, wiring.size)
        for index, ((number, _), (later, _)) in enumerate(zip(sent, wiring.received[lane], strict=True)):
            rounds[sender].setdefault(number, []).append((lane, index))
            rounds[receiver].setdefault(later, []).append((lane, index))
    todo = [sorted(numbers.items(), reverse=True) for numbers in rounds]
    pending = [0] * wiring.size
    posted: set[tuple[int, int]] = set()
    ready = list(range(wiring.size))
    while ready:
        rank = ready.pop()
        if not todo[rank]:
            continue
        messages = todo[rank][-1][1]
        pending[rank] = len(messages)
        for message in messages:
            if message not in posted:
                posted.add(message)
                continue
            posted.remove(message)
            for end in divmod(message[0], wiring.size):
                pending[end] -= 1
                if pending[end] == 0:
                    todo[end].pop()
                    ready.append(end)
    for rank, left in enumerate(todo):
        if left:
            number, messages = left[-1]
            lane = min(message[0] for message in messages if message in posted)
            sender, receiver = divmod(lane, wiring.size)
            other, doing = (receiver, "receive from") if sender == rank else (sender, "send to")
            stuck = f"is in round {todo[other][-1][0]}" if todo[other] else "has ended"
            wait = f"rank {rank} in round {number} waits for rank {other}, which {stuck}, to {doing} it"
            raise ScheduleError(f"deadlock with rendezvous: {wait}")
