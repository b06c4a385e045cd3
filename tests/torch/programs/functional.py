"""Functional collectives, which return new tensors, and those of torch.distributed.nn, through which gradients flow."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.distributed.nn.functional as differentiable

from tests.torch.programs.training import same


def check(rank: int, size: int) -> None:
    without_gradients(rank, size)
    with_gradients(rank, size)


def without_gradients(rank: int, size: int) -> None:
    ranks = [*range(size)]
    mine = torch.arange(2.0 * size).reshape(size, 2) + 10 * rank
    every = [torch.arange(2.0 * size).reshape(size, 2) + 10 * peer for peer in ranks]
    total = torch.stack(every).sum(0)
    same(functional.all_reduce(mine, "sum", ranks) * 1, total, 0)
    if dist.get_backend() != "gloo":
        same(functional.all_reduce(mine, "avg", ranks) * 1, total / size)
    same(functional.all_gather_tensor(mine, 0, ranks) * 1, torch.cat(every), 0)
    same(functional.all_gather_tensor(mine, 1, ranks) * 1, torch.cat(every, 1), 0)
    same(functional.reduce_scatter_tensor(mine, "sum", 0, ranks) * 1, total[rank : rank + 1], 0)
    same(functional.broadcast(mine, size - 1, ranks) * 1, every[-1], 0)
    swapped = functional.all_to_all_single(mine, None, None, ranks)
    same(swapped * 1, torch.stack([peer[rank] for peer in every]), 0)
    uneven = functional.all_to_all_single(
        torch.full((sum(1 + peer for peer in ranks),), rank), [1 + rank] * size, [1 + peer for peer in ranks], ranks
    )
    same(uneven * 1, torch.arange(size).repeat_interleave(1 + rank), 0)
    ring = [(peer + 1) % size for peer in ranks]
    same(functional.permute_tensor(mine[0], ring, ranks) * 1, every[(rank - 1) % size][0], 0)
    for got, wanted in zip(functional.all_reduce_coalesced([mine, mine * 2], "sum", ranks), (1, 2), strict=True):
        same(got * 1, total * wanted, 0)
    for got in functional.all_gather_into_tensor_coalesced([mine, mine], ranks):
        same(got * 1, torch.cat(every), 0)
    for got in functional.reduce_scatter_tensor_coalesced([mine, mine], "sum", [0, 0], ranks):
        same(got * 1, total[rank : rank + 1], 0)
    flowing = mine.clone().requires_grad_()
    functional.all_gather_tensor_autograd(flowing, 0, ranks).sum().backward()
    same(flowing.grad, torch.full_like(mine, size), 0)


def with_gradients(rank: int, size: int) -> None:
    """Each is linear: what comes back is what its transpose makes of the gradient, here rank + 1."""

    def gradient(function: object, shape: tuple[int, ...] = (size,)) -> torch.Tensor:
        given = torch.full(shape, 2.0, requires_grad=True)
        (function(given) * (rank + 1)).sum().backward()  # type: ignore[operator]
        assert given.grad is not None
        return given.grad

    weights = torch.arange(1.0, size + 1)
    ones = torch.ones(size)
    same(gradient(differentiable.all_reduce), ones * weights.sum(), 0)
    same(gradient(lambda x: differentiable.broadcast(x, 0)), ones * (weights.sum() if rank == 0 else 0), 0)
    same(gradient(lambda x: torch.stack(differentiable.all_gather(x))), ones * weights.sum(), 0)
    same(gradient(lambda x: differentiable.reduce(x, 0)), ones, 0)
    exchanged = gradient(lambda x: differentiable.all_to_all_single(torch.empty_like(x), x))
    same(exchanged, weights, 0)
    same(gradient(lambda x: differentiable.scatter([*x.split(1)], 0)), weights if rank == 0 else 0 * ones, 0)
    if rank == 0:
        same(gradient(lambda x: torch.stack(differentiable.gather(x, 0))), ones, 0)
    else:
        gradient(lambda x: torch.stack(differentiable.gather(x, 0)))
