"""The bytes that a collective must move at least: what it reads and writes, each once."""

import pytest

from collx.perf.collectives import MEASURED
from collx.perf.roof import least_bytes

# For 4 ranks and parts of 16 bytes, 64 bytes in all: blocks of 16 read and written, out of place and in place.
PARTS = {
    "all_reduce": (32, 32),
    "reduce_scatter": (16 + 4, 16 + 4),
    "all_gather": (4 + 16, 4 + 12),
    "all_to_all": (32, 24),
    "broadcast": (4 + 16, 4 + 12),
    "reduce": (16 + 4, 16 + 4),
    "gather": (4 + 4, 3 + 3),
    "scatter": (4 + 4, 3 + 3),
    "scan": (32, 32 - 4),  # rank 0's result lies there already, and the others read it
    "exscan": (12 + 12, 12 + 12),  # nobody reads the last rank's, and rank 0 has no result
    "sendrecv": (32, 32),
    "barrier": (0, 0),
}


@pytest.mark.parametrize("collective", MEASURED)
def test_every_input_is_read_and_every_result_written_once(collective: str) -> None:
    found = tuple(least_bytes(collective, 4, 1, 64, in_place) // 16 for in_place in (False, True))
    assert found == PARTS[collective]
