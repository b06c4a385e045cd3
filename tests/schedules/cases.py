"""What the tests of schedules share."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import collx.algorithms  # noqa: F401  (fills the register)
from collx.schedule import REGISTER, Algorithm, Op, Schedule

# Another one in every run, so that every size is proved in the long run. Set it to repeat a run.
SEED = int(os.environ.get("COLLX_TEST_SEED") or random.SystemRandom().randrange(1 << 32))

KEYS = sorted(REGISTER)
NAMES = [":".join(key) for key in KEYS]


def schedules(algorithm: Algorithm, size: int, root: int = 0) -> list[Schedule]:
    """All ranks' schedules, of their own, to be spoilt at will."""
    built = [algorithm.build(rank, size, root) for rank in range(size)]
    return [Schedule(schedule.blocks, list(schedule.rounds)) for schedule in built]


def built(blocks: int, *ranks: Sequence[Sequence[Op]]) -> list[Schedule]:
    """Schedules written down rank by rank, round by round."""
    return [Schedule(blocks, [tuple(ops) for ops in rounds]) for rounds in ranks]
