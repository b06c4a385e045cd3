"""Calls captured in CUDA graphs and replayed, and those that cannot be."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.cuda.watch import TURN
from tests.collectives.numbers import matrix_product
from tests.cuda import arrays
from tests.cuda.arrays import FakeArray
from tests.cuda.cases import gpus
from tests.cuda.mortal import mortal
from tests.cuda.standin import StandIn
from tests.cuda.streams import Graph


def captured(cuda: StandIn, *calls: Any) -> Graph:
    stream = arrays.current(cuda)
    cuda.begin_capture(stream, strict=True)
    time.sleep(2 * TURN)  # so that what was queued just before is looked after meanwhile
    try:
        for call in calls:
            call()
    finally:
        graph = cuda.end_capture(stream)
    return graph


@pytest.mark.parametrize("mode", ["memop", "spin"])
@pytest.mark.parametrize("each", [False, True])
def test_replays(mode: str, each: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two graphs in turns, with data that changes, and calls that are not captured in between. As torch captures: once
    a call has been made before, nothing in it may wait or allocate."""
    if each:
        monkeypatch.setenv("COLLX_CUDA_WORKERS", "each")

    def body(comm: Communicator) -> None:
        cuda, size = gpus(comm, mode), comm.size
        x, y, gathered, plain = (arrays.empty(cuda, n) for n in (50, 50, 50 * size, 50))
        total = comm.plan("all_reduce", x, out=y, algorithm="two_shot")
        gather = comm.plan("all_gather", y, out=gathered)
        prefix = comm.plan("scan", x, out=y)
        x[...] = 1
        for handle in (total, gather, prefix):
            handle()
        first = captured(cuda, total, gather)
        second = captured(cuda, prefix)
        stream = arrays.current(cuda)
        for turn in range(5):
            x[...] = turn + comm.rank
            cuda.replay(first, stream)
            kept = gathered.copy()
            if turn % 2:
                comm.all_reduce(x, "max", out=plain)
                assert plain.numpy().tolist() == [turn + size - 1.0] * 50
            cuda.replay(second, stream)
            assert kept.numpy().tolist() == [float(sum(turn + rank for rank in range(size)))] * 50 * size
            assert y.numpy().tolist() == [float(sum(turn + rank for rank in range(comm.rank + 1)))] * 50

    collx.spawn(body, 3)


def test_what_cannot_be_captured() -> None:
    def body(comm: Communicator) -> None:
        cuda = gpus(comm, "host", mps=True)
        x, y = arrays.array(cuda, np.eye(2)), arrays.empty(cuda, (2, 2), np.float64)
        there = arrays.empty(cuda, (2, 2), np.float64, shareable=comm.rank > 0)
        refused: list[tuple[str, FakeArray, Any, str]] = [
            ("host", x, "sum", "wait for each other by host cannot .* set COLLX_CUDA_SYNC=memop"),
            ("event", x, "sum", "wait for each other by event cannot .* set COLLX_CUDA_SYNC=memop"),
            ("memop", x, matrix_product(), "a CUDA graph cannot hold: the op is a function"),
            ("memop", there, "sum", "cannot be captured in a CUDA graph: rank 0: "),
        ]
        for mode, given, op, told in refused:
            os.environ["COLLX_CUDA_SYNC"] = mode
            part = comm.split(0)
            assert part is not None
            part.all_reduce(given, op, out=y)
            handle = part.plan("all_reduce", given, op, out=y)
            with pytest.raises(collx.CollxError, match=told):
                captured(cuda, handle)
            if given is x:  # what all of the communicator's calls cannot harms nothing
                assert part.all_reduce(given, op, out=y) is y
            part.close()

    collx.spawn(body, 2)


def test_a_peer_dies_between_replays() -> None:
    """Rank 0 has a communicator with each of the others, one for each mode."""
    modes = ("memop", "spin")

    def body(comm: Communicator) -> bool:
        parts = [comm.split(0 if comm.rank in (0, peer) else None) for peer in (1, 2)]
        for mode, part in zip(modes, parts, strict=True):
            if part is not None:
                cuda = gpus(comm, mode, mps=True)
                x, y = arrays.array(cuda, np.ones(9, np.float32)), arrays.empty(cuda, 9)
                handle = part.plan("all_reduce", x, out=y)
                handle()
                graph = captured(cuda, handle)
                stream = arrays.current(cuda)
                cuda.replay(graph, stream)
                assert y.numpy().tolist() == [2] * 9
                if comm.rank:
                    part.recv(np.empty(1), 0)
                    os.kill(os.getpid(), signal.SIGKILL)
                part.send(np.ones(1), 1)  # no barrier, which one might leave, and die, before the other has
                y[...] = -1
                for _ in range(3):
                    cuda.replay(graph, stream)
                assert y.numpy().tolist() == [-1] * 9  # it comes to an end, and nothing is written
                with pytest.raises(collx.CollxError, match="died"):
                    handle()
                with part.shrink() as left:
                    assert left.all_reduce(x).numpy().tolist() == [1] * 9
        return True

    assert mortal(body, 3) == [True, None, None]


def test_asynchronous_calls_beside_captures() -> None:
    """One that has ended does not spoil what is captured next, and none can be captured."""

    def body(comm: Communicator) -> None:
        cuda, size = gpus(comm, "memop"), comm.size
        x, y = arrays.empty(cuda, 50), arrays.empty(cuda, 50)
        x[...] = 1
        total = comm.plan("all_reduce", x, out=y)
        total()
        total(async_op=True).wait()
        y.numpy()
        graph = captured(cuda, total)
        y[...] = 0
        cuda.replay(graph, arrays.current(cuda))
        assert y.numpy().tolist() == [size] * 50
        with pytest.raises(collx.TransportError, match="async_op=True cannot be captured"):
            captured(cuda, lambda: total(async_op=True))

    collx.spawn(body, 2)
