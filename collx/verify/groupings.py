"""Groupings of ranks to prove algorithms over: of any number of groups, of any sizes, in any order."""

from __future__ import annotations

import random
from itertools import pairwise

from collx.schedule import Groups

MOST = 256  # ranks


def a_grouping(draw: random.Random, most: int = MOST) -> Groups:
    """A random one of up to `most` ranks. Half have groups of one size, and half keep neighbours together: real ones
    do."""
    size = draw.randint(1, most)
    count = draw.randint(1, draw.choice((size, min(size, 16))))  # few large groups as often as many small ones
    if draw.random() < 0.5:
        members = max(size // count, 1)
        cuts = list(range(0, members * count + 1, members))
    else:
        cuts = [0, *sorted(draw.sample(range(1, size), count - 1)), size]
    ranks = list(range(cuts[-1]))
    if draw.random() < 0.5:
        draw.shuffle(ranks)
    groups = [tuple(ranks[low:high]) for low, high in pairwise(cuts)]
    draw.shuffle(groups)
    return tuple(groups)
