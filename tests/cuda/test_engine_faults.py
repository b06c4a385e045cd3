"""Ranks that die, do not come, call something else or leave, in the middle of calls on GPUs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import collx
from collx import Communicator
from collx.cuda import engine
from collx.cuda.barriers import MODES
from collx.cuda.mapped import Mapped
from tests.cuda import arrays, host_kernels
from tests.cuda.arrays import FakeArray
from tests.cuda.cases import gpus
from tests.cuda.mortal import mortal

SOON = 20.0  # seconds, of the 60 that a call may wait


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_or_die(source: str, kernel: str, *given: Any) -> None:
    """Die where it is no kernel by which ranks wait for each other."""
    if not kernel.startswith(("signal", "wait")):
        die()
    ran(source, kernel, *given)


def announce_and_die(mapped: Mapped, *given: Any) -> None:
    announced(mapped, *given)
    die()


announced, ran = Mapped._announced, host_kernels.run
MOMENTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "before it announces": (Mapped, "_announced", die),
    "once it has announced": (Mapped, "_announced", announce_and_die),
    "while its kernels run": (host_kernels, "run", run_or_die),
}


def forever(comm: Communicator, x: FakeArray, out: FakeArray, **options: Any) -> None:
    while True:
        comm.all_reduce(x, out=out, **options)
        time.sleep(0.005)  # or else there is much to be done when it ends


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rank_dies(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every mode ranks 0 and 1 have a communicator with another one, see it die, and go on without it."""

    def body(comm: Communicator) -> bool:
        parts = [comm.split(0 if comm.rank in (0, 1, victim) else None) for victim in range(2, comm.size)]
        for mode, part in zip(MODES, parts, strict=True):
            if part is not None:
                cuda = gpus(comm, mode, mps=True)
                x, out = arrays.array(cuda, np.full(500, part.rank, np.float32)), arrays.empty(cuda, 500)
                part.all_reduce(x, out=out)
                assert out.numpy().tolist() == [3] * 500
                if part.rank == 2:  # no barrier, which one might leave, and die, before the others have
                    for peer in range(2):
                        part.recv(np.empty(1), peer)
                    monkeypatch.setattr(*MOMENTS[moment])
                else:
                    part.send(np.ones(1), 2)
                out[...] = -1
                out.numpy()
                begun = time.monotonic()
                with pytest.raises(collx.CollxError) as caught:
                    forever(part, x, out)
                with pytest.raises(collx.ClosedError, match=r"cannot be used"):
                    part.all_reduce(x)
                assert "\n" not in str(caught.value)
                assert "rank 2 died" in str(caught.value), mode
                left = part.shrink()
                cuda.synchronize(x.stream)  # nobody waits there any more
                assert time.monotonic() - begun < SOON
                if mode != "event":  # where a rank's folds may have been queued before another one died
                    assert np.isin(out.numpy(), (-1, 3)).all(), (mode, out.numpy())
                assert left.size == 2
                assert left.all_reduce(x, out=out).numpy().tolist() == [1] * 500
                left.close()
                assert cuda.mapped == 0
        return True

    assert mortal(body, 2 + len(MODES)) == [True, True, *[None] * len(MODES)]


def test_a_capture_on_one_rank() -> None:
    def body(comm: Communicator) -> None:
        cuda = gpus(comm, "memop")
        x = arrays.array(cuda, np.ones(4, np.float32))
        part, stream = comm.split(0), arrays.current(cuda)
        assert part is not None
        part.all_reduce(x, out=x)
        if comm.rank == 0:
            cuda.begin_capture(stream)
        with pytest.raises(collx.MismatchError, match=r"is captured in a CUDA graph .* rank"):
            part.all_reduce(x, out=x)
        if comm.rank == 0:
            cuda.end_capture(stream)

    collx.spawn(body, 2)


def ended(comm: Communicator) -> None:
    with pytest.raises(collx.ClosedError):
        comm.barrier()


@pytest.mark.parametrize("mode", ["host", "memop"])
def test_calls_that_differ(mode: str) -> None:
    def body(comm: Communicator) -> None:
        cuda = gpus(comm, mode)
        x = arrays.array(cuda, np.ones(4, np.float32))
        whole = arrays.array(cuda, np.ones(4, np.int32))
        custom = collx.ReduceOp.custom(np.add)
        pairs: list[tuple[Callable[[Communicator], Any], Callable[[Communicator], Any], str]] = [
            (lambda c: c.all_reduce(x), lambda c: c.all_reduce(x, "max"), "op"),
            (lambda c: c.all_reduce(x), lambda c: c.all_reduce(x[:3]), "count|elements"),
            (lambda c: c.all_reduce(x), lambda c: c.all_reduce(whole), "dtype|int32"),
            (lambda c: c.broadcast(x), lambda c: c.broadcast(x, 1), "root"),
            (lambda c: c.all_reduce(x), lambda c: c.scan(x), "scan"),
            (lambda c: c.all_reduce(x), lambda c: c.all_reduce(x, algorithm="ring"), "ring"),
            (lambda c: c.all_reduce(x), lambda c: c.all_reduce(x, custom), "on GPUs"),
            (lambda c: c.all_reduce(x, timeout=0.2), lambda c: c.all_reduce(np.ones(4, np.float32), timeout=0.2), ""),
            (lambda c: c.all_reduce(x, async_op=True).wait(), lambda c: c.scan(x, async_op=True).wait(), "scan"),
        ]
        parts = [comm.split(0) for _ in pairs]
        for part, (first, second, told) in zip(parts, pairs, strict=True):
            assert part is not None
            part.all_reduce(x)
            with pytest.raises(collx.CollxError, match=told) as caught:
                (second if comm.rank else first)(part)
            if told:
                assert type(caught.value) is collx.MismatchError, (told, caught.value)
            ended(part)
        assert comm.all_reduce(x).numpy().tolist() == [2] * 4

    collx.spawn(body, 2)


@pytest.mark.parametrize("mode", MODES)
def test_waits_end(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that does not come, a stream that does not get there, Ctrl-C, `revoke`; each in another communicator."""

    monkeypatch.setattr(engine, "LEAVE", 0.05)

    def body(comm: Communicator) -> None:
        cuda = gpus(comm, mode, mps=True)
        word = cuda.allocate(8)
        x, out = arrays.array(cuda, np.ones(4, np.float32)), arrays.empty(cuda, 4)
        parts = [part for _ in range(6) if (part := comm.split(0)) is not None]
        for part in parts:
            part.all_reduce(x, out=out)
        late, later, stuck, interrupted, waited, revoked = parts

        if comm.rank == 0:  # the other one does not come
            with pytest.raises(collx.TimeoutError, match=r"^rank 0 in all_reduce #2 on GPUs waited .* rank 1"):
                late.all_reduce(x, timeout=0.1)
            ended(late)
            work = later.all_reduce(x, async_op=True, timeout=0.1)
            for _ in range(2):
                with pytest.raises(collx.TimeoutError, match="rank 1"):
                    work.wait()
            ended(later)
        comm.barrier()
        if comm.rank == 1:
            with pytest.raises(collx.CollxError, match="rank 0"):
                late.all_reduce(x)
            with pytest.raises(collx.CollxError, match="rank 0"):
                later.all_reduce(x)

        if comm.rank == 1:  # its stream does not get there
            cuda.wait_value(x.stream, word, 1)
        with pytest.raises(collx.CollxError) as caught:
            forever(stuck, x, out, timeout=0.2)
        assert "timeout= too short" in str(caught.value), caught.value
        ended(stuck)
        if comm.rank == 1:
            ctypes.c_uint64.from_address(word).value = 1
        comm.barrier()

        if comm.rank == 0:
            with pytest.raises(KeyboardInterrupt), interrupting():
                interrupted.all_reduce(x)
            ended(interrupted)
            work = waited.all_reduce(x, async_op=True)
            with pytest.raises(KeyboardInterrupt), interrupting():
                work.wait()
        comm.barrier()
        if comm.rank == 1:
            with pytest.raises(collx.AbortedError, match="KeyboardInterrupt"):
                interrupted.all_reduce(x)
            assert waited.all_reduce(x).numpy().tolist() == [2] * 4
        else:
            assert work.wait().numpy().tolist() == [2] * 4

        if comm.rank == 1:
            revoked.revoke()
        with pytest.raises((collx.RevokedError, collx.ClosedError)):
            revoked.all_reduce(x)
        left = revoked.shrink()
        assert left.all_reduce(x).numpy().tolist() == [2] * 4

    collx.spawn(body, 2)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Ctrl-C a moment later."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # after the first one spawn takes no other
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    yield


@pytest.mark.parametrize("mode", MODES)
def test_leaving(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With calls under way, dropped, in a forked child, and by ending."""
    monkeypatch.setattr(engine, "LEAVE", 0.05)

    def body(comm: Communicator) -> bool:
        cuda = gpus(comm, mode, mps=True)
        word = cuda.allocate(8)
        x, late, dropped = (arrays.array(cuda, np.ones(4, np.float32)) for _ in range(3))
        parts = [part for _ in range(3) if (part := comm.split(0)) is not None]
        for part in parts:
            part.all_reduce(x)
        first, second, third = parts

        if comm.rank == 0:  # it comes to the call when the other one wants to leave
            cuda.wait_value(x.stream, word, 1)
            threading.Timer(0.2, come, (word,)).start()
        first.all_reduce(x, out=late)
        first.close()

        second.all_reduce(x, out=dropped, async_op=True)
        second.close()
        assert late.numpy().tolist() == dropped.numpy().tolist() == [2] * 4

        pid = os.fork()
        if pid == 0:
            try:
                third.all_reduce(x)
            except collx.ClosedError as error:
                os._exit("inherited through fork" in str(error))
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        third.all_reduce(x, async_op=True)
        return bool((third.all_reduce(x).numpy() == 2).all())

    assert collx.spawn(body, 2) == [True, True]


def come(word: int) -> None:
    ctypes.c_uint64.from_address(word).value = 1
