"""How calls end: works, futures, signal handlers, errors; see rank.py. In the last one the highest rank dies."""

from __future__ import annotations

import datetime
import os
import signal
from typing import Any

import torch
import torch.distributed as dist

import collx
from collx.compat.torch.work import CollxWork
from tests.torch.rank import RANK, SIZE, STORE, raises, run, same


def works_and_futures(group: Any) -> None:
    x = torch.ones(100)
    work = dist.all_reduce(x, async_op=True)
    [found] = work.get_future().then(lambda future: [each / SIZE for each in future.wait()]).wait()
    same(found, 1)
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    assert work.result()[0] is x
    z = torch.full((3,), float(RANK))
    dist._broadcast_coalesced(group, [z], 1 << 20, 1)  # by which C++ calls the group, as DistributedDataParallel does
    same(z, 1)


def futures_complete_as_calls_end(group: Any) -> None:
    """Also behind a message that has not come; and one may be waited for in a callback of another group's."""
    other, right, left = dist.new_group(), (RANK + 1) % SIZE, (RANK - 1) % SIZE
    message, second = (dist.irecv(torch.zeros(1), left, tag=tag).get_future() for tag in (0, 1))
    dist.send(torch.ones(1), right, tag=1)
    same(second.wait()[0], 1)
    x, y = torch.ones(3), torch.ones(3)
    first = dist.all_reduce(x, async_op=True).get_future()

    def again(future: Any) -> Any:
        inner = dist.all_reduce(y, group=other, async_op=True).get_future()
        return inner.then(lambda each: each.wait()[0]).wait()

    same(first.then(again).wait(), SIZE)
    assert not message.done()
    dist.barrier()
    dist.send(torch.ones(1), right)
    same(message.wait()[0], 1)


def ranks_that_wait_for_each_other_in_different_groups_are_told(group: Any) -> None:
    pair = dist.new_group([0, 1])
    if RANK < 2:
        with raises(collx.MismatchError, "communicator differs", "where it waits for rank"):
            dist.all_reduce(torch.ones(3), group=pair if RANK else group)
    else:
        with raises(dist.DistBackendError, "communicator differs"):
            dist.all_reduce(torch.ones(3))


def what_a_signal_handler_raises_is_not_the_calls(group: Any) -> None:
    class Ended:
        def done(self) -> bool:
            return True

        def wait(self, timeout: float | None = None) -> None:
            assert timeout is None or timeout > 0
            if timeout is not None:
                raise KeyError("a handler's")

    work = CollxWork((Ended(),))
    with raises(KeyError, "a handler's"):
        work.wait(datetime.timedelta(microseconds=1))
    assert work.wait()


def a_signal_handler_that_calls_is_told_so(group: Any) -> None:
    if RANK > 0:
        with raises(dist.DistBackendError, "rank 0 gave up"):
            dist.recv(torch.zeros(1), 0)
        return
    begun = False
    usual = signal.signal(signal.SIGALRM, lambda *_: begun and dist.all_reduce(torch.ones(1)))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        begun = True
        with raises(dist.DistBackendError, "signal handler"):
            dist.all_reduce(torch.ones(2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def errors_are_torchs_as_well(group: Any) -> None:
    with raises(dist.DistBackendError, "count differs", "all_reduce"):
        dist.all_reduce(torch.ones(2 if RANK else 3))
    with raises(collx.ClosedError, "count differs"):
        dist.all_reduce(torch.ones(2))


def deadlines(group: Any) -> None:
    if RANK == 0:
        group.set_timeout(datetime.timedelta(seconds=0.2))
        with raises(TimeoutError, "barrier", "waited 0.2 s", "the group's timeout"):
            dist.barrier()
    else:
        with raises(dist.DistBackendError, "rank 0", "TimeoutError"):
            dist.recv(torch.zeros(1), 0)


def a_dead_rank_is_named(group: Any) -> None:
    calling = dist.FileStore(f"{STORE}.calling", SIZE)
    if RANK == SIZE - 1:
        print("a_dead_rank_is_named", flush=True)
        calling.wait([str(rank) for rank in range(SIZE - 1)])  # the others might still be joining
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.ones(2)
    work = dist.all_reduce(x, async_op=True)
    calling.set(str(RANK), "")
    with raises(RuntimeError, f"rank {SIZE - 1} died"):
        work.get_future().wait()
    with raises(collx.RankFailedError, f"rank {SIZE - 1} died"):
        work.wait()
    assert isinstance(work.exception(), dist.DistBackendError)
    with raises(collx.ClosedError, f"rank {SIZE - 1} died"):
        dist.all_reduce(x)


if __name__ == "__main__":
    run(globals())
