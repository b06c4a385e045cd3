"""A sample of `make kills`: see kills.py."""

from __future__ import annotations

import random

from tests.failures.kills import nothing_left, run
from tests.failures.trial import Trial

JOBS = 12


def test_survivors_of_random_kills_agree_and_go_on() -> None:
    first = random.randrange(1 << 30)
    for seed in range(first, first + JOBS):
        trial = Trial.of(seed)
        print(trial)  # shown where it fails
        with nothing_left():
            run(trial)
