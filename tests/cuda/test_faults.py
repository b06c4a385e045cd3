"""Calls on GPUs where memory comes and goes and ranks die, through a communicator, in every sync mode."""

from __future__ import annotations

import random
import time
from pathlib import Path

import collx
from collx.cuda.barriers import MODES
from collx.perf.gpu import synchronised
from tests import jobs
from tests.cuda import library as library
from tests.cuda.arrays import FakeArray, empty, placed
from tests.cuda.standin import StandIn

COUNT = 100


def _raw(gpu: StandIn) -> FakeArray:
    """An array with an allocation to itself."""
    return placed(gpu, gpu.allocate(4 * COUNT), COUNT)


def _comes_and_goes(comm: collx.Communicator) -> int:
    gpu = StandIn(mps=True, jitter=2e-4, seed=comm.rank).install()
    kept = random.Random(comm.rank)  # each rank frees at other times, so that bases differ and come back
    for mode in MODES:
        same = synchronised(comm, mode, lambda: empty(gpu, 1))
        for turn in range(5):
            x, out = _raw(gpu), _raw(gpu)
            x[...] = turn + comm.rank
            same.all_reduce(x, out=out)
            assert (out.numpy() == comm.size * turn + sum(range(comm.size))).all(), (mode, turn)
            for each in (x, out):
                if kept.random() < 0.7:
                    gpu.free(each.address)
        same.close()
    return gpu.mapped


def test_memory_that_comes_and_goes() -> None:
    assert collx.spawn(_comes_and_goes, 3) == [0, 0, 0]


def _frees_early(comm: collx.Communicator) -> str:
    gpu = StandIn(jitter=2e-4, seed=comm.rank).install()
    x, out = _raw(gpu), _raw(gpu)
    comm.all_reduce(x, out=out)
    if comm.rank == 1:
        gpu.synchronize(x.stream)
        gpu.free(x.address)
        try:
            comm.all_reduce(x, out=out)
        except TypeError as error:  # before anybody is asked to read it
            said = str(error)
            x = _raw(gpu)
    comm.all_reduce(x, out=out)
    out.numpy()
    return said if comm.rank == 1 else ""


def test_memory_freed_early_is_not_for_others_to_read() -> None:
    assert "no GPU of this process has memory" in collx.spawn(_frees_early, 3)[1]


# Ranks 0 and 1 share a communicator with each of the others, one for each mode, and see it die.
DYING = """
comm = collx.init()
gpu = StandIn(mps=True, jitter=1e-3, seed=comm.rank).install()
mine = {}
for victim, mode in enumerate(MODES, 2):
    os.environ["COLLX_CUDA_SYNC"] = mode
    part = comm.split(0 if comm.rank in (0, 1, victim) else None)
    if part is not None:
        x, out = empty(gpu, 1000), empty(gpu, 1000)
        part.all_reduce(x, out=out)
        mine[mode] = part, x, out
with contextlib.suppress(collx.CollxError):  # of which one may die before others have left it
    comm.barrier()
for mode, (part, x, out) in mine.items():
    part.all_reduce(x, out=out)
    if comm.rank > 1:
        delay = random.Random(int(sys.argv[1]) + comm.rank).random() * 0.03
        Timer(delay, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    try:
        while True:
            part.all_reduce(x, out=out)
    except collx.CollxError as error:
        begun = time.monotonic()
        part.close()
        soon = time.monotonic() - begun < 10  # the stand-in gives up a stream that waits for ever after 20
        print(mode, "died" in str(error), soon, gpu.broken, flush=True)
os._exit(0)  # the world has lost ranks as well
"""
IMPORTS = """
import contextlib, os, random, signal, sys, time
from threading import Timer
import collx
from collx.cuda.barriers import MODES
from tests.cuda.arrays import empty
from tests.cuda.standin import StandIn
"""


def test_survivors_of_a_killed_rank_go_on(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, IMPORTS + DYING)
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 2 + len(MODES), "--keep-going", path, time.time_ns() % 1000)
    lines = [f"{mode} True True None" for mode in MODES]
    assert sorted(done.stdout.splitlines()) == sorted(f"[{rank}] {line}" for rank in (0, 1) for line in lines), done
