"""Calls on GPUs, on the stand-in: what they give, whatever the ranks' GPUs are and however they wait for each other."""

from __future__ import annotations

import random

import pytest

import collx
from collx import Communicator
from collx.cuda.barriers import MODES
from tests.cuda.cases import exercise, gpus


@pytest.mark.parametrize("mode", MODES)
def test_every_collective(mode: str) -> None:
    seed = random.randrange(1 << 30)
    print(seed)

    def body(comm: Communicator) -> None:
        cuda = gpus(comm, mode)
        for size in (3, 2, 1):
            part = comm.split(0 if comm.rank < size else None)
            if part is not None:
                with part:
                    exercise(part, cuda, seed + size, times=4 - size)

    collx.spawn(body, 3)
