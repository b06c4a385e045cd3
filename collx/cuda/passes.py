"""What makes a program of folds shorter, and finds what of it may be done at once.

A program is right when its folds are done one after the other. Each pass keeps it so, with the same results. Places are
blocks: two of them are the same one or have no byte in common. Which blocks hold the same value is found by numbering
the values (Alpern, Wegman, Zadeck: Detecting equality of variables in programs, POPL 1988), so nothing here knows of
algorithms.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby

from collx.cuda.plan import Fold, Place, Step, Wave
from collx.plan import GRAIN, Space

Program = Sequence[Fold]


class Values:
    """What lies where, as a program runs: a number for each value, the same for what is folded of the same ones."""

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


def scaled(program: Program, workers: Sequence[int]) -> list[Fold]:
    """The program with its results, which lie in outputs, divided by the number of ranks: by the folds that make them,
    or, where somebody folds those on, in the end."""
    values, folded, parts = Values(), set[int](), set[int]()
    made, results = list[int](), dict[Place, tuple[int, int]]()
    for fold in program:
        value = values.of(fold)
        if len(fold.sources) > 1:
            folded.add(value)
            parts.update(values.at(source) for source in fold.sources)
        values.write(fold.targets, value)
        made.append(value)
        results.update((place, (value, fold.nbytes)) for place in fold.targets if place.space is Space.OUTPUT)
    wanted = {value for value, _ in results.values()}
    if wanted <= folded - parts:
        return [
            fold._replace(scale=len(fold.sources) > 1 and value in wanted)
            for fold, value in zip(program, made, strict=True)
        ]
    return [
        *program,
        *(Fold((p,), (p,), nbytes, workers[p.rank], scale=True) for p, (_, nbytes) in results.items()),
    ]


def merged(program: Program) -> list[Fold]:
    """Have what makes the same value as an earlier fold become other targets of that: if the same rank does both, or if
    it copies what the earlier one has written, which then writes to both; where nobody needs the targets in between.

    So what every rank folds for itself is folded once for all that one rank works for, and what a rank folds and others
    fetch is written to all of them at once.
    """
    values, done = Values(), list[Fold]()
    maker = dict[tuple[int, int], int]()  # (value, by) -> the last fold that made it
    writer, touched = dict[Place, int](), dict[Place, int]()
    for fold in program:
        value = values.of(fold)
        targets = [place for place in fold.targets if values.at(place) != value]
        if not targets:
            continue
        copied = writer.get(fold.sources[0], -1) if len(fold.sources) == 1 and not fold.scale else -1
        free = max(touched.get(place, -1) for place in targets)
        able = [index for index in (maker.get((value, fold.by), -1), copied) if index >= max(free, 0)]
        if able:
            index = able[0]
            done[index] = done[index]._replace(targets=(*done[index].targets, *targets))
        else:
            index = len(done)
            done.append(fold._replace(targets=tuple(targets)))
            touched.update(dict.fromkeys(fold.sources, index))
            maker[value, fold.by] = index
        values.write(targets, value)
        writer.update(dict.fromkeys(targets, index))
        touched.update(dict.fromkeys(targets, index))
    return done


def forwarded(program: Program) -> list[Fold]:
    """Read what was set aside where it came from, if it is still there, and none but the reader's rank overwrites it
    later: the order of its stream is enough then."""
    values, origins, done = Values(), dict[Place, Place](), list[Fold]()
    writes = defaultdict[Place, list[int]](list)
    for index, fold in enumerate(program):
        for place in fold.targets:
            writes[place].append(index)

    def origin(place: Place, index: int, by: int) -> Place:
        found = origins.get(place)
        if found is None or values.at(found) != values.at(place):
            return place
        following = writes[found]
        after = bisect_left(following, index)
        return found if after == len(following) or program[following[after]].by == by else place

    for index, fold in enumerate(program):
        fold = fold._replace(sources=tuple([origin(place, index, fold.by) for place in fold.sources]))
        values.write(fold.targets, values.of(fold))
        for place in fold.targets:
            origins.pop(place, None)
            if place.space is Space.WORKSPACE and len(fold.sources) == 1 and place.rank == fold.sources[0].rank:
                origins[place] = fold.sources[0]
        done.append(fold)
    return done


def needed(program: Program) -> list[Fold]:
    """Without what nobody reads: in a workspace in the end, anywhere before it is overwritten."""
    read, done = dict[Place, bool](), list[Fold]()
    for fold in reversed(program):
        targets = tuple([place for place in fold.targets if read.get(place, place.space is not Space.WORKSPACE)])
        if targets:
            read.update(dict.fromkeys(targets, False))
            read.update(dict.fromkeys(fold.sources, True))
            done.append(fold._replace(targets=targets))
    return done[::-1]


def compacted(program: Program) -> tuple[list[Fold], int]:
    """With workspaces that have no place without use, and the bytes of the largest."""
    places, room = dict[Place, Place](), defaultdict[int, int](int)

    def moved(place: Place, nbytes: int) -> Place:
        if place.space is not Space.WORKSPACE:
            return place
        if place not in places:
            places[place] = place._replace(offset=room[place.rank])
            room[place.rank] += -(-nbytes // GRAIN) * GRAIN
        return places[place]

    done = [
        fold._replace(
            sources=tuple([moved(place, fold.nbytes) for place in fold.sources]),
            targets=tuple(sorted([moved(place, fold.nbytes) for place in fold.targets])),
        )
        for fold in program
    ]
    return done, max(room.values(), default=0)


def stepped(program: Program) -> tuple[Step, ...]:
    """The program in as few steps, and waves in each, as its dependencies allow, with folds joined to longer ones."""
    at = list[tuple[int, int]]()  # step and wave
    writer, readers = dict[Place, int](), defaultdict[Place, list[int]](list)
    for index, fold in enumerate(program):
        before = {writer[place] for place in (*fold.sources, *fold.targets) if place in writer}
        for place in fold.targets:
            before.update(readers.pop(place, ()))
            writer[place] = index
        for place in fold.sources:
            readers[place].append(index)
        step = max((at[other][0] + (program[other].by != fold.by) for other in before), default=0)
        at.append((step, max((at[other][1] + 1 for other in before if at[other][0] == step), default=0)))
    placed = sorted(zip(at, program, strict=True), key=lambda pair: pair[0])
    steps = groupby(placed, key=lambda pair: pair[0][0])
    return tuple(
        tuple(joined(fold for _, fold in wave) for _, wave in groupby(step, key=lambda pair: pair[0][1]))
        for _, step in steps
    )


def joined(folds: Iterable[Fold]) -> Wave:
    """Folds of one wave, those as one that one rank does and that lie one behind the other in all memories."""
    done = list[Fold]()
    for fold in sorted(folds, key=_alike):
        last = done[-1] if done else None
        if last and _alike(last)[:-1] == _alike(fold)[:-1] and all(gap == last.nbytes for gap in _gaps(last, fold)):
            done[-1] = last._replace(nbytes=last.nbytes + fold.nbytes)
        else:
            done.append(fold)
    return tuple(done)


def _alike(fold: Fold) -> tuple[int, bool, tuple[tuple[int, Space], ...], tuple[tuple[int, Space], ...], list[int]]:
    """What folds have in common that can be joined, and last what tells which way they follow each other."""
    spaces = [tuple([(place.rank, place.space) for place in side]) for side in (fold.sources, fold.targets)]
    return fold.by, fold.scale, spaces[0], spaces[1], [place.offset for place in (*fold.sources, *fold.targets)]


def _gaps(first: Fold, second: Fold) -> Iterable[int]:
    pairs = zip((*first.sources, *first.targets), (*second.sources, *second.targets), strict=True)
    return (behind.offset - before.offset for before, behind in pairs)
