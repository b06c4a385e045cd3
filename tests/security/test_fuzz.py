"""A little of what `python -m tests.security.fuzz` does at length."""

from __future__ import annotations

import random

from tests.security import fuzz


def test_random_changes_of_what_peers_say() -> None:
    fuzz.run(1000, random.SystemRandom().randrange(1 << 32))
