"""The regions that lanes lie in."""

from __future__ import annotations

import pytest

from collx import _core
from collx.transports.lanes import region_bytes


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 16, 33, 64, 100, 256, 1000, 4096])
def test_a_rank_needs_little_shared_memory_however_many_there_are(size: int) -> None:
    slots, nbytes = _core.geometry(size)
    assert slots * nbytes * size < region_bytes(size) <= 16 << 20


def test_too_many_ranks_for_one_host_are_refused() -> None:
    with pytest.raises(ValueError, match="too many ranks"):
        region_bytes(1 << 20)


@pytest.mark.parametrize("size", [2, 64, 200, 208, 256])
def test_the_largest_messages_of_many_ranks_fit(size: int) -> None:
    """Half of all blocks at once, as logarithmic algorithms send, at a cache line of each."""
    assert size // 2 * 64 <= _core.geometry(size)[1]
