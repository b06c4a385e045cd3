"""A topology in words, to think about machines that are not there: "4 hosts x 2 packages x 8 ranks"."""

from __future__ import annotations

import itertools
import re
from math import prod

from collx.topology.links import DEFAULT_LINKS, LEVELS
from collx.topology.model import MOST_RANKS, Level, Topology
from collx.types import nearest

PART = re.compile(r"(\d{1,9})\s*([a-z]\w*)", re.IGNORECASE)


def describe(text: str) -> Topology:
    """The topology of `text`: parts like "4 hosts" from the outermost inwards, joined by "x", and a rank on each thing
    that the last part names. Parts of one leave no level; "ranks" stands for cores.

    Raises ValueError that says what is wrong, in one line.
    """
    counts: list[int] = []
    names: list[str] = []
    for part in re.split(r"\s+[x\u00d7]\s+|,", text.strip()):
        count, name = _part(part.strip(), text)
        if names and _depth(name) <= _depth(names[-1]):
            raise ValueError(f"topology {text!r}: {names[-1]} cannot have {name}; the order is {', '.join(LEVELS)}")
        counts.append(count)
        names.append(name)
    if prod(counts) > MOST_RANKS:
        raise ValueError(f"topology {text!r}: {prod(counts)} ranks are more than {MOST_RANKS}")
    some = [(count, name) for count, name in zip(counts, names, strict=True) if count > 1]
    levels = tuple(Level(name, DEFAULT_LINKS["cores" if name == "ranks" else name]) for _, name in some)
    return Topology(levels, tuple(itertools.product(*(range(count) for count, _ in some))))


def _part(part: str, text: str) -> tuple[int, str]:
    match = PART.fullmatch(part)
    if match is None:
        raise ValueError(f"topology {text!r}: {part!r} is no number and name; write '4 hosts x 2 packages x 8 ranks'")
    count, word = int(match[1]), match[2].lower()
    name = next((level for level in LEVELS if word in (level, level.removesuffix("s"))), None)
    if name is None:
        raise ValueError(f"topology {text!r}: no level {word!r}: {nearest(word, LEVELS)}")
    if count < 1:
        raise ValueError(f"topology {text!r}: {part!r} leaves no ranks")
    return count, name


def _depth(name: str) -> int:
    return LEVELS.index(name)
