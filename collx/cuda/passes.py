"""What makes a program of folds shorter, and finds what of it may be done at once.

A program is right when its folds are done one after the other. Each pass keeps it so, with the same results. Nothing
here knows of algorithms: which blocks hold the same is found by numbering values (`program.Values`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

from collx.cuda.plan import Fold, Place, Step, Wave
from collx.cuda.program import Order, Program, Values
from collx.plan import GRAIN, Space


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
    it copies what the earlier one has written, which then writes to both; where nobody needs the targets in between,
    and the earlier fold need not wait for more ranks.

    So what every rank folds for itself is folded once for all that one rank works for, and what a rank folds and others
    fetch is written to all of them at once.
    """
    values, order, done = Values(), Order(), list[Fold]()
    maker = dict[tuple[int, int], int]()  # (value, by) -> the last fold that made it
    for fold in program:
        value = values.of(fold)
        targets = tuple([place for place in fold.targets if values.at(place) != value])
        if not targets:
            continue
        values.write(targets, value)
        fetched = order.writer.get(fold.sources[0], -1) if len(fold.sources) == 1 and not fold.scale else -1
        for index in (maker.get((value, fold.by), -1), fetched):
            if index >= 0 and order.may_write(index, targets):
                order.write(index, targets)
                done[index] = done[index]._replace(targets=(*done[index].targets, *targets))
                break
        else:
            maker[value, fold.by] = order.append(fold.by, fold.sources, targets)
            done.append(fold._replace(targets=targets))
    return done


def forwarded(program: Program) -> list[Fold]:
    """Read what was copied where it came from, if that is still there and none but the reader's rank overwrites it:
    the order of its stream is enough then. If it came from another rank, only where the one that brought it alone reads
    it, once, and nobody else ever does: so nothing comes over a link more often than before."""
    values, origins, done = Values(), dict[Place, tuple[Place, int]](), list[Fold]()
    writes, readers = _accesses(program)

    def lasts(place: Place, copied: int) -> bool:
        return place.space is Space.OUTPUT and writes[place][-1] == copied

    def origin(place: Place, by: int) -> Place:
        found, copied = origins.get(place, (place, -1))
        if copied < 0 or values.at(found) != values.at(place):
            return place
        if found.rank != place.rank and (
            program[copied].by != by or readers[copied, place] != 1 or lasts(place, copied)
        ):
            return place
        after = bisect_left(writes[found], len(done))
        overwritten = after < len(writes[found]) and program[writes[found][after]].by != by
        return place if overwritten else found

    for index, fold in enumerate(program):
        fold = fold._replace(sources=tuple([origin(place, fold.by) for place in fold.sources]))
        values.write(fold.targets, values.of(fold))
        for place in fold.targets:
            origins.pop(place, None)
            if len(fold.sources) == 1 and not fold.scale:
                origins[place] = fold.sources[0], index
        done.append(fold)
    return done


def _accesses(program: Program) -> tuple[dict[Place, list[int]], dict[tuple[int, Place], int]]:
    """By place, the folds that write it; and how often what a fold has written to a place is read there."""
    writes, readers = defaultdict[Place, list[int]](list), defaultdict[tuple[int, Place], int](int)
    for index, fold in enumerate(program):
        for place in fold.sources:
            if place in writes:
                readers[writes[place][-1], place] += 1
        for place in fold.targets:
            writes[place].append(index)
    return writes, readers


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
    order = Order()
    for fold in program:
        order.append(fold.by, fold.sources, fold.targets)
    placed = sorted(zip(order.at, program, strict=True), key=lambda pair: pair[0])
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
