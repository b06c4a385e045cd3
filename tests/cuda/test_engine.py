"""Calls on GPUs, on the stand-in: what they give, whatever the ranks' GPUs are and however they wait for each other."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import threading
from typing import NamedTuple

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.cuda.barriers import MODES
from collx.transports.cuda import cards
from tests.collectives.numbers import contribution, fold, matrix_product
from tests.cuda import arrays
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


class Place(NamedTuple):
    """Where three ranks are: each one's GPU, and on which ranks memory cannot be shared; and what `story` tells."""

    mode: str
    gpus: str
    told: str
    unshareable: str = ""
    hosts: str = "aaa"
    each: bool = False
    mps: bool = False


PLACES = {
    "a GPU each": Place("spin", "abc", "each rank's GPU does its part"),
    "two on one": Place("memop", "aab", "ranks 0, 2 work for all"),
    "each works": Place("memop", "aaa", "each rank's GPU does its part", each=True),
    "MPS": Place("event", "aaa", "under MPS); each rank's GPU does its part", mps=True),
    "one of them cannot share": Place("memop", "abc", "each rank's GPU", unshareable="1"),
    "none can, and they meet": Place("event", "aab", "ranks 0, 2 work for all", unshareable="012"),
    "two hosts": Place("host", "aaa", "on host", hosts="aab"),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, seed = PLACES[name], random.randrange(1 << 30)
    print(seed)
    card = cards.card
    if place.each:
        monkeypatch.setenv("COLLX_CUDA_WORKERS", "each")

    def body(comm: Communicator) -> str:
        host, uuid = place.hosts[comm.rank], place.gpus[comm.rank]
        monkeypatch.setattr(cards, "card", lambda *given: dataclasses.replace(card(*given), boot=host))
        cuda = gpus(comm, place.mode, uuid, mps=place.mps)
        exercise(comm, cuda, seed, shareable=str(comm.rank) not in place.unshareable)
        assert comm._gpus is not None
        return str(comm._gpus.story())

    for story in collx.spawn(body, 3):
        assert place.told in story


@pytest.mark.parametrize("mode", MODES)
def test_order(mode: str) -> None:
    """Of calls, streams, handles and communicators."""

    def body(comm: Communicator) -> None:
        cuda = gpus(comm, mode)
        kept = [comm.split(0), comm.split(0)]
        parts = [part for part in kept if part is not None]
        x, y = arrays.empty(cuda, 700), arrays.empty(cuda, 700)
        other = cuda.stream()
        handles = [parts[0].plan("all_reduce", x, out=y), parts[1].plan("all_reduce", y, out=x)]
        x[...] = comm.rank
        values = [np.array([rank], np.float32) for rank in range(comm.size)]
        for _ in range(3):
            for handle in handles:  # what one gives is what the next one takes, on another communicator
                handle()
            values = [fold([fold(values, "sum")] * comm.size, "sum")] * comm.size
            parts[0].all_reduce(x, "max", out=x)
            values = [fold(values, "max")] * comm.size
            late = x.copy()
            work = parts[1].all_reduce(x, out=y, async_op=True)
            arrays.use_stream(cuda, other)
            first = arrays.array(cuda, np.full(3, comm.rank))
            largest = parts[1].all_reduce(first, "max")  # behind the one that was started, which is on another stream
            assert largest.numpy().tolist() == [comm.size - 1] * 3
            arrays.use_stream(cuda, x.stream)  # the one that is to wait
            assert work.wait() is y
            total = y.copy()
            assert total.numpy().tolist() == fold(values, "sum").tolist() * 700
            assert late.numpy().tolist() == values[0].tolist() * 700
        for part in parts:
            part.close()

    collx.spawn(body, 3)


@pytest.mark.parametrize("mode", ["host", "memop"])
def test_user_ops(mode: str) -> None:
    def body(comm: Communicator) -> None:
        cuda, dtype = gpus(comm, mode), np.dtype(np.int64)
        matrices = [contribution(rank, (2, 2), dtype, seed=1) for rank in range(comm.size)]
        x = arrays.array(cuda, matrices[comm.rank])
        wanted = np.linalg.multi_dot(matrices)
        works = [comm.all_reduce(x, matrix_product(), async_op=True) for _ in range(3)]
        assert comm.all_reduce(x).numpy().tolist() == np.sum(matrices, axis=0).tolist()
        for work in works:
            assert work.wait().numpy().tolist() == wanted.tolist()

    collx.spawn(body, 3)


def test_nothing_is_left() -> None:
    def body(comm: Communicator) -> None:
        cuda = gpus(comm, "host", mps=True)
        x, unshared = arrays.array(cuda, np.eye(3)), arrays.empty(cuda, 3, shareable=False)

        def calls(mode: str) -> None:
            os.environ["COLLX_CUDA_SYNC"] = mode
            part = comm.split(0)
            assert part is not None
            with part:
                part.all_reduce(x).numpy()
                part.all_reduce(unshared)
                part.all_reduce(x, matrix_product())
                part.all_reduce(x, async_op=True).wait()

        def there() -> tuple[int, ...]:
            gc.collect()
            return cuda.mapped, cuda.allocated, len(cuda._streams), len(cuda._events), threading.active_count()

        calls("host")
        before = there()
        assert before[0] == 0
        for mode in MODES:
            calls(mode)
            assert there() == before, mode

    collx.spawn(body, 2)
