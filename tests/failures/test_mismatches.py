"""A sample of the random mismatches that `make mismatches` runs, and what it found."""

from __future__ import annotations

import random

import numpy as np
import pytest

from collx import calls
from collx.agreement import unheard
from collx.planner import make_plan
from tests.failures import mismatches


def test_a_random_sample() -> None:
    found = mismatches.run(150, seed=random.randrange(10**9))
    assert not found.failures, "\n".join(found.failures)


@pytest.mark.parametrize(("elements", "silent"), [(0, [0]), (1, [])])
def test_empty_blocks_tell_nothing_of_who_is_behind_them(elements: int, silent: list[int]) -> None:
    """Rank 1 may pass on nothing before nothing has come from rank 0."""
    call = calls.exscan(2, 3, np.zeros(elements), "sum", algorithm="doubling")
    plan, _ = make_plan(call.request, 2, 3, capacity=1 << 16, window=2)
    assert unheard(plan) == silent
