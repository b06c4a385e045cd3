"""The collectives of torch.distributed: dtypes, ops, lists and tensors, unequal splits, coalesced, asynchronous."""

from __future__ import annotations

import functools
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ReduceOp

from tests.torch.programs.training import same

DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def of(rank: int, count: int = 5, dtype: torch.dtype = torch.int64) -> Tensor:
    """What a rank gives: small whole numbers, exact in every dtype."""
    return ((torch.arange(count) * 7 + rank * 3) % 5 + 1).to(dtype)


def gloo() -> bool:
    """Whether this is Gloo, which lacks some of these."""
    return bool(dist.get_backend() == "gloo")


def check(rank: int, size: int) -> None:
    ranks = range(size)
    reductions(rank, ranks)
    rooted(rank, ranks)
    gathering(rank, ranks)
    exchanges(rank, ranks)
    asynchronous(rank, ranks)
    dist.barrier()
    if gloo():  # torch has it for no other
        dist.monitored_barrier(timeout=timedelta(seconds=60))


def reductions(rank: int, ranks: range) -> None:
    size = len(ranks)
    for dtype in DTYPES:
        for op, function in ((ReduceOp.SUM, torch.add), (ReduceOp.PRODUCT, torch.mul), (ReduceOp.MAX, torch.maximum)):
            tensor = of(rank, dtype=dtype)
            dist.all_reduce(tensor, op)
            same(tensor, functools.reduce(function, [of(peer, dtype=dtype) for peer in ranks]), 0)
    bits = of(rank)
    dist.all_reduce(bits, ReduceOp.BXOR)
    same(bits, functools.reduce(torch.bitwise_xor, map(of, ranks)), 0)
    if not gloo():
        mean = of(rank, dtype=torch.float64)
        dist.all_reduce(mean, ReduceOp.AVG)
        same(mean, sum(of(peer, dtype=torch.float64) for peer in ranks) / size)
    matrix = torch.arange(12.0).reshape(3, 4)
    strided = matrix.t()  # torch's own backends want contiguous tensors; its front makes none of them
    whole = strided.contiguous() + rank
    dist.all_reduce(whole, ReduceOp.MIN)
    same(whole, strided.contiguous(), 0)
    flag = torch.tensor(rank == 0)
    dist.broadcast(flag, 0)
    assert flag.item() is True
    empty = torch.empty(0)
    dist.all_reduce(empty)
    many = [of(rank, count, torch.float32) for count in (1, 100, 3)]
    with dist._coalescing_manager():
        for tensor in many:
            dist.all_reduce(tensor)
    for tensor in many:
        same(tensor, sum(of(peer, len(tensor), torch.float32) for peer in ranks), 0)


def rooted(rank: int, ranks: range) -> None:
    for root in ranks:
        tensor = of(rank)
        dist.broadcast(tensor, root)
        same(tensor, of(root), 0)
        tensor = of(rank)
        dist.reduce(tensor, root)
        if rank == root:
            same(tensor, sum(map(of, ranks)), 0)
        parts = [torch.zeros(5, dtype=torch.int64) for _ in ranks] if rank == root else None
        dist.gather(of(rank), parts, root)
        for peer, part in enumerate(parts or []):
            same(part, of(peer), 0)
        part = torch.zeros(5, dtype=torch.int64)
        dist.scatter(part, [of(10 * root + peer) for peer in ranks] if rank == root else None, root)
        same(part, of(10 * root + rank), 0)


def gathering(rank: int, ranks: range) -> None:
    size = len(ranks)
    parts = [torch.zeros(5, dtype=torch.int64) for _ in ranks]
    dist.all_gather(parts, of(rank))
    for peer, part in enumerate(parts):
        same(part, of(peer), 0)
    for shape in ((size * 5,), (size, 5))[: 1 if gloo() else 2]:  # concatenated and stacked
        whole = torch.zeros(shape, dtype=torch.int64)
        dist.all_gather_into_tensor(whole, of(rank))
        same(whole.flatten(), torch.cat([*map(of, ranks)]), 0)
    part = torch.zeros(5, dtype=torch.int64)
    dist.reduce_scatter_tensor(part, of(rank, 5 * size))
    same(part, sum(of(peer, 5 * size) for peer in ranks)[5 * rank : 5 * rank + 5], 0)
    dist.reduce_scatter(part, [of(rank + peer) for peer in ranks], ReduceOp.MAX)
    same(part, functools.reduce(torch.maximum, [of(peer + rank) for peer in ranks]), 0)


def exchanges(rank: int, ranks: range) -> None:
    size = len(ranks)
    out = torch.zeros(3 * size, dtype=torch.int64)
    dist.all_to_all_single(out, of(rank, 3 * size))
    same(out, torch.cat([of(peer, 3 * size)[3 * rank : 3 * rank + 3] for peer in ranks]), 0)
    # Rank r sends 1 + j rows of two to rank j.
    given = torch.full((sum(1 + peer for peer in ranks), 2), float(rank))
    out = torch.zeros(size * (1 + rank), 2)
    dist.all_to_all_single(out, given, [1 + rank] * size, [1 + peer for peer in ranks])
    same(out, torch.arange(float(size)).repeat_interleave(1 + rank)[:, None].expand(-1, 2), 0)
    if not gloo():
        parts = [torch.zeros(1 + rank) for _ in ranks]
        dist.all_to_all(parts, [torch.full((1 + peer,), float(rank)) for peer in ranks])
        for peer, part in enumerate(parts):
            same(part, torch.full((1 + rank,), float(peer)), 0)


def asynchronous(rank: int, ranks: range) -> None:
    tensors = [of(rank, count) for count in range(1, 40)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for tensor, work in zip(tensors, works, strict=True):
        assert work is not None
        work.wait()
        same(tensor, sum(of(peer, len(tensor)) for peer in ranks), 0)
        assert work.is_completed()
    tensor = of(rank, dtype=torch.float64)
    work = dist.all_reduce(tensor, async_op=True)
    assert work is not None
    halved = work.get_future().then(lambda future: future.value()[0] / 2).wait()
    same(halved, sum(of(peer, dtype=torch.float64) for peer in ranks) / 2)
