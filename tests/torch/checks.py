"""What a rank does with torch.distributed on collx: `checks.py RANK SIZE STORE`. Every rank runs every check, each in a
world of its own, and prints its name when it has passed. In the last one the highest rank dies."""

from __future__ import annotations

import datetime
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist

import collx
from collx.compat.torch.work import CollxWork

RANK, SIZE, STORE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
TIMEOUT = datetime.timedelta(seconds=60)
SUMMED = sum(range(1, SIZE + 1))
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


@contextmanager
def world(name: str) -> Iterator[Any]:  # with a file of its own, which the last to leave removes
    dist.init_process_group("collx", init_method=f"file://{STORE}.{name}", rank=RANK, world_size=SIZE, timeout=TIMEOUT)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def same(found: Any, expected: Any) -> None:
    assert torch.equal(found, torch.as_tensor(expected, dtype=found.dtype).expand(found.shape)), (found, expected)


def raises(kind: type[BaseException], *words: str) -> Any:
    return pytest.raises(kind, match="".join(f"(?=.*{re.escape(word)})" for word in words))


def it_is_there_by_its_name_alone(group: Any) -> None:
    assert dist.get_backend() == "collx"
    assert (dist.get_rank(), dist.get_world_size()) == (RANK, SIZE)
    assert "over shm" in repr(group)
    assert torch.device("cpu") in group._device_types
    assert group.group_name == "0"
    assert group.group_desc == "default_pg"


def reductions_of_every_kind(group: Any) -> None:
    for dtype in FLOATS + INTEGERS:
        x = torch.full((5,), RANK + 1, dtype=dtype)
        dist.all_reduce(x)
        same(x, SUMMED)
    product = torch.tensor(range(1, SIZE + 1)).prod()
    expected = {"MIN": 1, "MAX": SIZE, "PRODUCT": product, "AVG": SUMMED / SIZE}
    for name, value in expected.items():
        x = torch.full((3,), RANK + 1.0)
        dist.all_reduce(x, getattr(dist.ReduceOp, name))
        same(x, value)
    for name, value in {"BAND": 4, "BOR": 4 | SIZE - 1 | 1, "BXOR": None}.items():
        x = torch.tensor([4 | RANK])
        dist.all_reduce(x, getattr(dist.ReduceOp, name))
        assert value is None or int(x) & 4 == 4
    x = torch.ones(3)
    dist.all_reduce(x, torch._C._distributed_c10d._make_nccl_premul_sum(0.5))
    same(x, SIZE / 2)
    z = torch.full((2,), 1 + 2j)
    dist.all_reduce(z)
    same(z, SIZE * (1 + 2j))
    flags = torch.tensor([True, RANK == 0, False])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    same(flags, torch.tensor([True, True, False]))


def what_is_not_contiguous_is_as_good(group: Any) -> None:
    x = torch.arange(6.0).reshape(2, 3).t()
    dist.all_reduce(x)
    same(x, SIZE * torch.arange(6.0).reshape(2, 3).t())
    for asynchronous in (False, True):
        x = torch.full((4, 2), float(RANK))[:, 0]
        work = dist.broadcast(x, SIZE - 1, async_op=asynchronous)
        if asynchronous:
            while not work.is_completed():
                pass
        same(x, SIZE - 1)
    out = torch.zeros(3, SIZE).t()
    dist.all_gather_single(out, torch.full((6,), float(RANK))[::2])
    same(out, torch.arange(float(SIZE)).reshape(SIZE, 1))


def lists_and_single_tensors(group: Any) -> None:
    out = [torch.zeros(2, 3) for _ in range(SIZE)]
    dist.all_gather(out, torch.full((2, 3), float(RANK)))
    for rank, each in enumerate(out):
        same(each, rank)
    unequal = [torch.zeros(rank + 1) for rank in range(SIZE)]
    dist.all_gather(unequal, torch.full((RANK + 1,), float(RANK)))
    same(unequal[-1], SIZE - 1)
    mine = torch.zeros(RANK + 1)
    dist.reduce_scatter(mine, [torch.full((rank + 1,), float(rank)) for rank in range(SIZE)])
    same(mine, SIZE * RANK)
    one = torch.zeros(2)
    dist.reduce_scatter_single(one, torch.arange(2.0 * SIZE))
    same(one, SIZE * torch.tensor([2.0 * RANK, 2.0 * RANK + 1]))
    swapped = torch.zeros(SIZE)
    dist.all_to_all_single(swapped, torch.full((SIZE,), float(RANK)))
    same(swapped, torch.arange(float(SIZE)))
    rows = torch.zeros(SIZE * (RANK + 1), 2)
    dist.all_to_all_single(
        rows, torch.full((SUMMED, 2), float(RANK)), [RANK + 1] * SIZE, [rank + 1 for rank in range(SIZE)]
    )
    same(rows[-1], SIZE - 1)
    got = [torch.zeros(RANK + rank) for rank in range(SIZE)]
    dist.all_to_all(got, [torch.full((RANK + rank,), float(RANK)) for rank in range(SIZE)])
    same(got[-1], SIZE - 1)
    everything = [torch.zeros(2) for _ in range(SIZE)] if RANK == 1 else None
    dist.gather(torch.full((2,), float(RANK)), everything, dst=1)
    assert everything is None or [int(each[0]) for each in everything] == list(range(SIZE))
    part = torch.zeros(2)
    dist.scatter(part, [torch.full((2,), float(rank)) for rank in range(SIZE)] if RANK == 0 else None)
    same(part, RANK)
    total = torch.full((2,), RANK + 1.0)
    dist.reduce(total, 1)
    same(total, SUMMED if RANK == 1 else RANK + 1)
    found: list[Any] = [None] * SIZE
    dist.all_gather_object(found, {"rank": RANK})
    assert found == [{"rank": rank} for rank in range(SIZE)]


def lists_that_do_not_fit_are_refused(group: Any) -> None:
    def some(*lengths: int) -> list[Any]:
        return [torch.zeros(length) for length in lengths]

    short, unequal, fitting = some(*[2] * (SIZE - 1)), some(1, 3, *[2] * (SIZE - 2)), some(*[2] * SIZE)
    one, words = torch.ones(2), (f"{SIZE - 1} tensors", f"{SIZE} ranks")
    calls: list[Callable[[], object]] = [
        lambda: dist.all_gather(short, one),
        lambda: dist.reduce_scatter(one, short),
        lambda: dist.all_to_all(short, fitting),
        lambda: dist.all_to_all(fitting, short),
    ]
    if RANK == 0:
        calls += [lambda: dist.gather(one, short), lambda: dist.scatter(one, short)]
    for call in calls:
        with raises(ValueError, *words):
            call()
    if RANK == 0:
        with raises(ValueError, "gather_list", "[1, 3"):
            dist.gather(one, unequal)
        with raises(ValueError, "scatter_list", "[1, 3"):
            dist.scatter(one, unequal)
    dist.barrier()


def both_names_of_a_method(group: Any) -> None:
    for gather in (group.all_gather_single, group._allgather_base):
        out = torch.zeros(SIZE)
        assert gather(out, torch.tensor([float(RANK)])).wait()
        same(out, torch.arange(float(SIZE)))
    for scatter in (group.reduce_scatter_single, group._reduce_scatter_base):
        out = torch.zeros(1)
        scatter(out, torch.arange(float(SIZE))).wait()
        same(out, SIZE * RANK)
    for exchange in (group.all_to_all_single, group.alltoall_base):
        out = torch.zeros(SIZE)
        exchange(out, torch.full((SIZE,), float(RANK)), [], []).wait()
        same(out, torch.arange(float(SIZE)))
    group.barrier().wait()
    group.monitored_barrier()


def coalesced_calls(group: Any) -> None:
    a, b = torch.full((4,), float(RANK)), torch.full((3, 2), float(RANK)).t()
    with dist._coalescing_manager():
        dist.all_reduce(a)
        dist.all_reduce(b)
    same(a, SUMMED - SIZE)
    same(b, SUMMED - SIZE)
    outs = [torch.zeros(SIZE), torch.zeros(2 * SIZE)]
    with dist._coalescing_manager(async_ops=True) as both:
        for length, out in enumerate(outs, 1):
            dist.all_gather_single(out, torch.full((length,), float(RANK)))
    both.wait()
    same(outs[1], torch.arange(float(SIZE)).repeat_interleave(2))
    x, y = torch.full((2,), float(RANK)), torch.zeros(2)
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as both:
        dist.all_reduce(a)
        sent = dist.isend(x, (RANK + 1) % SIZE)
        dist.irecv(y, (RANK - 1) % SIZE)
        with raises(RuntimeError, "coalesced"):
            sent.wait()
    both.wait()
    same(y, (RANK - 1) % SIZE)
    assert sent.is_completed()


def what_coalescing_does_not_take(group: Any) -> None:
    """Calls of other threads; and what cannot be made fails where it was handed out."""
    x, y = torch.full((2,), float(RANK)), torch.zeros(2)
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as both:
        dist.broadcast(x, 1, async_op=True)
        outs = [torch.zeros(1) for _ in range(SIZE)]
        other = threading.Thread(target=dist.all_gather, args=(outs, torch.tensor([float(RANK)])))
        other.start()
        other.join()
        assert [int(out) for out in outs] == list(range(SIZE))
    both.wait()
    same(x, 1)
    works = []
    with raises(ValueError, "overlap"), dist._coalescing_manager(device=torch.device("cpu")):
        works = [dist.broadcast(y, root, async_op=True) for root in (0, 1)]
    for work in works:
        assert work.is_completed()
        with raises(ValueError, "overlap"):
            work.wait()
    dist.barrier()


def sparse_sums(group: Any) -> None:
    x = torch.sparse_coo_tensor([[RANK, RANK + 1]], torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (SIZE + 1, 2))
    dist.all_reduce(x)
    expected = torch.zeros(SIZE + 1, 2)
    for rank in range(SIZE):
        expected[rank] += torch.tensor([1.0, 2.0])
        expected[rank + 1] += torch.tensor([3.0, 4.0])
    same(x.to_dense(), expected)
    with raises(NotImplementedError, "MAX", "sparse"):
        dist.all_reduce(x, dist.ReduceOp.MAX)
    wide, deep = torch.zeros(3, 3 + RANK).to_sparse(), torch.ones(*[2] * (2 + RANK)).to_sparse()
    for tensor, words in ((wide, "[3, 4] on rank 1"), (deep, "[3, 3] on rank 1"), (deep.to_dense().to_sparse(1), "")):
        with raises(ValueError, "differ between ranks", words):
            dist.all_reduce(tensor)


def messages(group: Any) -> None:
    right, left = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    x, y = torch.full((3,), float(RANK)), torch.zeros(6)[::2]
    for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, x, right), dist.P2POp(dist.irecv, y, left)]):
        work.wait()
    same(y, left)
    if RANK == 0:
        senders = []
        for _ in range(1, SIZE):
            out = torch.zeros(2)
            senders.append(dist.recv(out))
            same(out, senders[-1])
        assert sorted(senders) == list(range(1, SIZE))
    else:
        dist.send(torch.full((2,), float(RANK)), 0)


def subgroups(group: Any) -> None:
    for _ in range(2):  # torch gives a group of the same ranks the same name again
        pair = dist.new_group([1, 0])
        if RANK < 2:
            x = torch.ones(3)
            dist.all_reduce(x, group=pair)
            same(x, 2)
            dist.destroy_process_group(pair)
    if RANK < 2:
        local = dist.new_group([0, 1], use_local_synchronization=True)
        assert dist.get_backend(local) == "collx"
        dist.barrier(local)
    dist.barrier()


def a_group_in_a_world_of_gloo(group: Any) -> None:
    dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{STORE}.gloo", rank=RANK, world_size=SIZE)
    ours = dist.new_group(backend="collx")
    x = torch.ones(2)
    dist.all_reduce(x, group=ours)
    same(x, SIZE)


def other_backends_beside_it_are_refused(group: Any) -> None:
    with raises(ValueError, "cuda:gloo", "new_group"):
        dist.new_group(backend="cpu:collx,cuda:gloo")
    assert dist.get_backend(dist.new_group(backend="cpu:collx")) == "cpu:collx"


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


CHECKS: list[Callable[[Any], None]] = [
    check
    for check in list(globals().values())
    if inspect.isfunction(check) and "group" in inspect.signature(check).parameters
]


if __name__ == "__main__":
    for check in CHECKS:
        with world(check.__name__) as group:
            check(group)
        if RANK < SIZE - 1 or check is not CHECKS[-1]:
            print(check.__name__, flush=True)
