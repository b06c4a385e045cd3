"""What a collective will take: from all ranks' schedules, or from those of a few that stand for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from collx.cost.curve import curve
from collx.cost.few import Priced, Whole, representatives
from collx.cost.network import Network, Ports
from collx.cost.traffic import traffic
from collx.schedule import Algorithm, Builder, Schedule
from collx.topology import Topology

GAMMA = 1e-10  # seconds to reduce a byte, where nobody has measured: 10 GB/s
SEGMENT = 64 << 10  # bytes of a message segment, and how many of them the engine has under way
WINDOW = 2


@dataclass(frozen=True, slots=True)
class Prediction:
    """`seconds` until the last rank is done; `rounds`, the longest chain of them; and the bytes that all ranks together
    send over each class of link, by its name."""

    seconds: float
    rounds: int
    by_link: dict[str, int]


def predict(
    schedules: Sequence[Schedule] | Builder,
    size: int,
    topology: Topology | Network,
    nbytes: float,
    segments: int = 1,
    *,
    window: float = math.inf,
    gamma: float = GAMMA,
) -> Prediction:
    """Time `size` ranks' schedules (or a builder of them) for a buffer of `nbytes`, cut into equal blocks and these
    into `segments`, of which at most `window` are under way at once; docs/cost.md has the model.

    Raises ValueError where size, schedules and topology do not fit together, ScheduleError where the schedules do not.
    """
    network = Ports(topology) if isinstance(topology, Topology) else topology
    if network.size != size:
        raise ValueError(f"a topology of {network.size} ranks cannot price a collective of {size}")
    if callable(schedules):
        schedules = [schedules(rank, size) for rank in range(size)]
    if len(schedules) != size:
        raise ValueError(f"{len(schedules)} schedules for {size} ranks")
    return _priced(Whole(traffic(dict(enumerate(schedules)), network)), nbytes, segments, window, gamma)


def estimate(
    algorithm: Algorithm,
    size: int,
    topology: Topology,
    nbytes: float,
    segments: int | None = None,
    *,
    window: float = WINDOW,
    gamma: float = GAMMA,
) -> Prediction:
    """As `predict`, from few ranks' schedules, so that it serves thousands: all of up to 16; else, if all groups of the
    outermost level do alike, those of one group, which gives the same; else roughly, from those of some groups. Left
    out, `segments` are as many as the engine will make.

    Raises ValueError where the algorithm or the topology is not for `size` ranks.
    """
    if topology.size != size or not algorithm.sizes(size):
        raise ValueError(f"{algorithm.name} on {size} ranks cannot be priced on a topology of {topology.size}")
    few = representatives(algorithm, topology)
    return _priced(few, nbytes, _segments(few, nbytes) if segments is None else segments, window, gamma)


def _segments(what: Priced, nbytes: float) -> int:
    return max(math.ceil(what.largest * nbytes / what.blocks / SEGMENT), 1)


def _priced(what: Priced, nbytes: float, segments: int, window: float, gamma: float) -> Prediction:
    block = nbytes / what.blocks
    one = what.timed(block / segments, gamma)
    # The segments follow each other as fast as the busiest port or processor is done with one, `window` at once.
    seconds = one.seconds + (segments - 1) * max(one.busiest, one.seconds / window)
    return Prediction(seconds, one.rounds, {name: round(blocks * block) for name, blocks in what.by_link.items()})


def contenders(
    collective: str,
    nbytes: float,
    topology: Topology,
    algorithms: Sequence[Algorithm],
    *,
    gamma: float = GAMMA,
) -> list[tuple[Algorithm, Prediction]]:
    """Those of `algorithms` that do the collective on so many ranks, with what they will take, the fastest first;
    where that is the same to three digits, those of fewer rounds, and then in the order given.

    Of few ranks that is read off curves, quick for sizes not asked for before, and within 5% of `estimate`.
    """
    return list(_contest(collective, nbytes, topology, tuple(algorithms), gamma))


@lru_cache(maxsize=1024)
def _contest(
    collective: str, nbytes: float, topology: Topology, algorithms: tuple[Algorithm, ...], gamma: float
) -> tuple[tuple[Algorithm, Prediction], ...]:
    size = topology.size
    able = [each for each in algorithms if each.collective == collective and each.sizes(size)]
    curves = [(each, curve(each, topology)) for each in able]
    priced = [(each, _priced(what, nbytes, _segments(what, nbytes), WINDOW, gamma)) for each, what in curves]
    return tuple(sorted(priced, key=lambda pair: (float(f"{pair[1].seconds:.3g}"), pair[1].rounds)))
