"""The times of few ranks' traffic, kept for sizes of blocks that double, and read off between those."""

from __future__ import annotations

import math
from functools import lru_cache

from collx.cost.few import FEW, Priced, representatives
from collx.cost.timing import Timing
from collx.schedule import Algorithm
from collx.topology import Topology


class Curve:
    """Prices like `of`, which it asks for powers of two only: between those, times are all but linear."""

    def __init__(self, of: Priced) -> None:
        self.of, self.blocks, self.largest, self.by_link = of, of.blocks, of.largest, of.by_link
        self.known: dict[tuple[int, float], Timing] = {}

    def timed(self, block: float, gamma: float) -> Timing:
        power = math.frexp(block)[1] - 1
        low, high = self._at(power, gamma), self._at(power + 1, gamma)
        way = block / 2**power - 1
        seconds, busiest = (a + (b - a) * way for a, b in ((low.seconds, high.seconds), (low.busiest, high.busiest)))
        return Timing(seconds, low.rounds, busiest)

    def _at(self, power: int, gamma: float) -> Timing:
        found = self.known.get((power, gamma))
        if found is None:
            found = self.known[power, gamma] = self.of.timed(2.0**power, gamma)
        return found


@lru_cache(maxsize=512)
def curve(algorithm: Algorithm, topology: Topology) -> Priced:
    """A few ranks' curve. For many ranks there is none, as a single price takes long enough."""
    few = representatives(algorithm, topology)
    return Curve(few) if topology.size <= FEW else few
