"""DistributedDataParallel in its ways: every one must train as one process does on all ranks' batches."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from tests.torch.programs.training import LOSS, batch, model, same, sgd, train, trained_alone

STEPS = range(4)
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"static_graph": True},
    {"gradient_as_bucket_view": True},
    {"bucket_cap_mb": 0.0005, "gradient_as_bucket_view": True},  # many buckets, reduced while backward goes on
    {"find_unused_parameters": True},
    {"init_sync": False},
)


class Forked(nn.Module):  # type: ignore[misc]
    """Which half a rank uses, its number says."""

    def __init__(self) -> None:
        super().__init__()
        self.halves = nn.ModuleList([model(), model()])

    def forward(self, inputs: Tensor, half: int) -> Tensor:
        result: Tensor = self.halves[half](inputs)
        return result


class Counting(nn.Module):  # type: ignore[misc]
    """A parameter, and a buffer that each rank begins with its own number."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), float(rank)))
        self.register_buffer("count", torch.full((1,), float(rank)))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight + self.count


def check(rank: int, size: int) -> None:
    wanted = trained_alone(size, STEPS)
    for way in WAYS:
        net = DDP(model(), **way)
        train(net, sgd(net.parameters()), rank, STEPS)
        same(net.module, wanted)
    unused(rank, size)
    accumulated(rank, size)
    buffers(rank, size)


def unused(rank: int, size: int) -> None:
    """A half that nobody used has no gradient; one that some did has their mean, the others counting as zero."""
    inputs, targets = batch(rank, 0)
    net, alone = DDP(Forked(), find_unused_parameters=True), Forked()
    LOSS(net(inputs, rank % 2), targets).backward()
    for peer in range(size):
        inputs, targets = batch(peer, 0)
        (LOSS(alone(inputs, peer % 2), targets) / size).backward()
    for got, wanted in zip(net.parameters(), alone.parameters(), strict=True):
        same(got.grad, wanted.grad)


def accumulated(rank: int, size: int) -> None:
    """Without synchronisation gradients stay a rank's own, until the first backward with it."""
    net, alone = DDP(model()), model()
    with net.no_sync():
        LOSS(net(batch(rank, 0)[0]), batch(rank, 0)[1]).backward()
    LOSS(net(batch(rank, 1)[0]), batch(rank, 1)[1]).backward()
    for peer in range(size):
        for step in range(2):
            inputs, targets = batch(peer, step)
            (LOSS(alone(inputs), targets) / size).backward()
    for got, wanted in zip(net.parameters(), alone.parameters(), strict=True):
        same(got.grad, wanted.grad)


def buffers(rank: int, size: int) -> None:
    """Parameters are rank 0's from the start, buffers at each forward."""
    net = DDP(Counting(rank))
    net.module.count.fill_(5.0 + rank)
    same(net(torch.ones(1)).detach(), torch.full((1,), 5.0), 0)
    everybodys = [torch.zeros(1) for _ in range(size)]
    dist.all_gather(everybodys, net.module.count)
    assert all(count.item() == 5 for count in everybodys)
