"""What a rank does with torch.distributed on collx; see rank.py."""

from __future__ import annotations

import datetime
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.engines.asleep import eventually
from tests.torch.rank import RANK, SIZE, STORE, raises, run, same

SUMMED = sum(range(1, SIZE + 1))
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


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


def some_ranks_give_or_get_nothing(group: Any) -> None:
    """Whatever the shape of an empty tensor; and rows may be of another shape where they arrive."""
    last = RANK == SIZE - 1
    rows = [0] * SIZE if last else [1] * SIZE
    given = torch.tensor([]) if last else torch.full((SIZE, 3), float(RANK))
    out = torch.zeros(SIZE - 1, 1, 3)
    dist.all_to_all_single(out, given, [1] * (SIZE - 1) + [0], rows)
    same(out, torch.arange(SIZE - 1.0).reshape(-1, 1, 1))
    got = torch.zeros(SIZE, 3) if RANK == 0 else torch.zeros(0)
    dist.all_to_all_single(got, torch.ones(1, 3), [1] * SIZE if RANK == 0 else [0] * SIZE, [1] + [0] * (SIZE - 1))
    same(got, 1)
    flat = torch.zeros(2 * SIZE)
    dist.all_to_all_single(flat, torch.full((SIZE, 2), float(RANK)), [2] * SIZE, [1] * SIZE)
    same(flat, torch.arange(float(SIZE)).repeat_interleave(2))


def whatever_the_default_device(group: Any) -> None:
    with torch.device("meta"):
        out = [[torch.zeros(2, device="cpu") for _ in range(SIZE)]]
        group.allgather(out, [torch.full((2,), float(RANK), device="cpu")]).wait()
    same(out[0][-1], SIZE - 1)
    net = torch.nn.Linear(2, 2)
    with torch.device("meta"):
        DistributedDataParallel(net)
        dist.all_reduce(torch.ones(2, 2, device="cpu").to_sparse())


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
    three, longer = torch.zeros(3), f"[{RANK}] has 2 elements, but this rank's own tensor 3"
    for call in (lambda: dist.all_gather(fitting, three), lambda: dist.reduce_scatter(three, fitting)):
        with raises(ValueError, longer):
            call()
    with raises(ValueError, "input_split_sizes is [3", "3 rows", f"{SIZE} ranks"):
        dist.all_to_all_single(torch.zeros(SIZE), three, [1] * SIZE, [3] * SIZE)
    with raises(NotImplementedError, "dense tensors", "sparse_coo"):
        dist.broadcast(torch.eye(2).to_sparse(), 0)
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


def looks_around(process: int) -> bool:
    """Whether its main thread naps time and again, as in a call that waits: after each nap it looks at the peers."""

    def naps() -> int:
        told = Path(f"/proc/{process}/status").read_text()
        return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", told, re.MULTILINE)[0])

    enough = naps() + 20
    return eventually(lambda: naps() >= enough)


def groups_that_overlap_are_not_taken_for_one(group: Any) -> None:
    """Rank 2 waits for 1 in a group, and 0 for 2 in another, of which both are the first: nobody waits in vain."""
    if SIZE < 3:
        return
    one, other = dist.new_group([1, 2]), dist.new_group([0, 2])
    calling = dist.FileStore(f"{STORE}.overlap", SIZE)
    if RANK == 1:
        assert all(looks_around(int(calling.get(waiting))) for waiting in ("0", "2"))
    elif RANK in (0, 2):
        calling.set(str(RANK), str(os.getpid()))
    for pair in (one, other):
        if pair is not dist.GroupMember.NON_GROUP_MEMBER:
            x = torch.ones(1)
            dist.all_reduce(x, group=pair)
            same(x, 2)
    dist.barrier()


def a_group_in_a_world_of_gloo(group: Any) -> None:
    dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{STORE}.gloo", rank=RANK, world_size=SIZE)
    ours = dist.new_group(backend="collx")
    x = torch.ones(2)
    dist.all_reduce(x, group=ours)
    same(x, SIZE)


def groups_are_split(group: Any) -> None:
    for ranks in ([1, 0], [0, 1]):
        pair = group.split_group(ranks, group_desc="two")
        assert (pair is None) == (RANK > 1)
        if pair is not None:
            assert (pair.rank(), pair.size(), pair.group_desc) == (RANK, 2, "two")
            x = torch.ones(2)
            pair.allreduce([x]).wait()
            same(x, 2)
            pair.get_group_store().set("key", "value")
            pair.shutdown()
    with raises(NotImplementedError, "merge_remote_group", "new_group"):
        group.merge_remote_group(group.get_group_store(), SIZE)


def groups_that_wait_for_weeks(group: Any) -> None:
    patient = dist.new_group(timeout=datetime.timedelta(days=300))
    x = torch.ones(2)
    dist.all_reduce(x, group=patient)
    same(x, SIZE)


def options_of_other_backends_are_told(group: Any) -> None:
    with pytest.warns(UserWarning, match="no options"):
        other = dist.new_group(pg_options=object())
    dist.barrier(other)


def other_backends_beside_it_are_refused(group: Any) -> None:
    with raises(ValueError, "cuda:gloo", "new_group"):
        dist.new_group(backend="cpu:collx,cuda:gloo")
    assert dist.get_backend(dist.new_group(backend="cpu:collx")) == "cpu:collx"


if __name__ == "__main__":
    run(globals())
