"""What a program of folds does, when they are done one after the other: what lies where, and which must wait for which.

Places are blocks: two of them are the same one or have no byte in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from collx.cuda.plan import Fold, Place

Program = Sequence[Fold]


class Values:
    """What lies where: a number for each value, the same for what is folded of the same ones (Alpern, Wegman, Zadeck:
    Detecting equality of variables in programs, POPL 1988)."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._at: dict[Place, int] = {}

    def at(self, place: Place) -> int:
        found = self._at.get(place)
        if found is None:
            found = self._at[place] = self._number(place)
        return found

    def of(self, fold: Fold) -> int:
        """What the fold makes."""
        values = tuple([self.at(source) for source in fold.sources])
        return values[0] if len(values) == 1 and not fold.scale else self._number((values, fold.scale))

    def write(self, places: Iterable[Place], value: int) -> None:
        for place in places:
            self._at[place] = value

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


class Order:
    """Which folds of a program wait for which, by the places that they read and write."""

    def __init__(self) -> None:
        self.at: list[tuple[int, int]] = []  # of each fold: its step, and its wave in that
        self.by: list[int] = []
        self.writer: dict[Place, int] = {}
        self._readers: defaultdict[Place, list[int]] = defaultdict(list)  # since it was written

    def append(self, by: int, sources: Iterable[Place], targets: Iterable[Place]) -> int:
        """The next fold of the program; its number."""
        index = len(self.by)
        before = {self.writer[place] for place in sources if place in self.writer}.union(*map(self._users, targets))
        step = max((self.at[other][0] + (self.by[other] != by) for other in before), default=0)
        self.at.append((step, max((self.at[other][1] + 1 for other in before if self.at[other][0] == step), default=0)))
        self.by.append(by)
        for place in sources:
            self._readers[place].append(index)
        self.write(index, targets)
        return index

    def may_write(self, index: int, places: Iterable[Place]) -> bool:
        """Whether a fold may write to these places too: none after it uses them, and it comes no later for it."""
        step, by = self.at[index][0], self.by[index]
        users = set[int]().union(*map(self._users, places))
        return all(other <= index and self.at[other][0] + (self.by[other] != by) <= step for other in users - {index})

    def write(self, index: int, places: Iterable[Place]) -> None:
        for place in places:
            self.writer[place] = index
            self._readers[place] = []

    def _users(self, place: Place) -> list[int]:
        """The folds that have written what lies there, or read it."""
        return [*self._readers[place], *([self.writer[place]] if place in self.writer else [])]
