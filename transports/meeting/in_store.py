"""How the ranks of a job tell each other where they are: through a store, or by what started them."""

from __future__ import annotations

import time
from collections.abc import Callable

from collx.errors import BootstrapError, RankFailedError, TimeoutError
from collx.transports.store.client import Store

ALL, SEPARATOR, REFUSAL, NOTHING = "cards", b"\0", b"!", b"?"
GRACE = 2.0  # seconds past a deadline in which whoever saw it first says who is missing
TWICE = "have two processes the same launcher's variables (COLLX_RANK and the like)?"


def met_in(store: Store, rank: int, size: int, text: str, deadline: float, shown: Callable[[str], str]) -> list[str]:
    """Every rank's text, by way of the store, to which all `size` ranks come once. The earliest of their deadlines
    holds, and all raise the same BootstrapError. `shown` is what people know of a text."""
    try:
        answer = _Meeting(store, rank, size, shown).answer(text, deadline)
    except RankFailedError as error:
        raise BootstrapError(
            f"rank {rank}: rank 0 of {size} ended before all ranks had come; see its output"
        ) from error
    if answer.startswith(REFUSAL):
        raise BootstrapError(answer[1:].decode())
    return [card.decode() for card in answer.split(SEPARATOR)]


class _Meeting:
    def __init__(self, store: Store, rank: int, size: int, shown: Callable[[str], str]) -> None:
        self._store, self._rank, self._size, self._shown = store, rank, size, shown

    def answer(self, text: str, deadline: float) -> bytes:
        """What ended the meeting: everybody's text, or why it came to nothing."""
        there = self._store.compare_set(_key(self._rank), b"", text)
        if there != text.encode():
            both = f"at {self._shown(there.decode())} and at {self._shown(text)}"
            raise BootstrapError(f"rank {self._rank} of {self._size} came twice, {both}; {TWICE}")
        if self._store.add("came", 1) == self._size:
            cards = [self._store.get(_key(rank)) for rank in range(self._size)]
            return self._store.compare_set(ALL, b"", SEPARATOR.join(cards))
        try:
            return self._store.get(ALL, max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            return self._store.compare_set(ALL, b"", REFUSAL + self._missing().encode(), GRACE)

    def _missing(self) -> str:
        here, absent = [], []
        for rank in range(self._size):
            card = self._store.compare_set(_key(rank), NOTHING, NOTHING, GRACE)
            if card == NOTHING:
                absent.append(str(rank))
            else:
                here.append(f"rank {rank} at {self._shown(card.decode())}")
        names = f"rank{'s' * (len(absent) > 1)} {_few(absent)} of {self._size}"
        return f"{names} did not come within the timeout of init; these did: {_few(here, '; ')}"


def _key(rank: int) -> str:
    return f"card/{rank}"


def _few(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - 16} more" if len(names) > 16 else ""
    return separator.join(names[:16]) + more
