"""Ranks with different numbers of batches: Join has those that are done play along."""

from __future__ import annotations

import torch
from torch.distributed.algorithms.join import Join
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel as DDP

from tests.torch.programs.training import LOSS, agree, batch, model, same, sgd


def check(rank: int, size: int) -> None:
    plain = DDP(model())
    optimizer = sgd(plain.parameters())
    with Join([plain]):
        train(plain, optimizer, rank)
    same(plain.module, trained_alone(size))

    sharded = DDP(model(), gradient_as_bucket_view=True)
    zero = ZeroRedundancyOptimizer(sharded.parameters(), torch.optim.Adam, lr=0.01)
    with Join([sharded, zero]):
        train(sharded, zero, rank)
    agree(sharded)  # and no more: a rank that is done goes on to step with the last gradients that it had


def batches(rank: int) -> range:
    return range(2 + 2 * rank)


def train(net: DDP, optimizer: torch.optim.Optimizer, rank: int) -> None:
    for step in batches(rank):
        inputs, targets = batch(rank, step)
        optimizer.zero_grad()
        LOSS(net(inputs), targets).backward()
        optimizer.step()


def trained_alone(size: int) -> torch.nn.Module:
    """As with all ranks, of which those without a batch count as zero."""
    net = model()
    optimizer = sgd(net.parameters())
    for step in batches(size - 1):
        optimizer.zero_grad()
        for rank in range(size):
            if step in batches(rank):
                inputs, targets = batch(rank, step)
                (LOSS(net(inputs), targets) / size).backward()
        optimizer.step()
    return net
