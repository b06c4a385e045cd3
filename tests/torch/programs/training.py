"""A small model, its data, and what training it in one process gives: what the programs compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

LOSS = nn.MSELoss()
FEATURES = 8


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The same on every rank."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 13), nn.Tanh(), nn.Linear(13, 4)).to(dtype)


def batch(rank: int, step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """What rank `rank` learns from in step `step`."""
    data = torch.Generator().manual_seed(1000 * rank + step)
    inputs = torch.randn(6, FEATURES, generator=data, dtype=torch.float64)
    targets = torch.randn(6, 4, generator=data, dtype=torch.float64)
    return inputs.to(dtype), targets.to(dtype)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def train(
    net: nn.Module, optimizer: torch.optim.Optimizer, rank: int, steps: range, dtype: torch.dtype = torch.float64
) -> list[float]:
    """This rank's losses."""
    losses = []
    for step in steps:
        inputs, targets = batch(rank, step, dtype)
        optimizer.zero_grad()
        loss = LOSS(net(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained_alone(
    size: int, steps: range, make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = sgd
) -> nn.Sequential:
    """The model after these steps on the batches of all ranks, in this process alone."""
    net = model()
    optimizer = make(net.parameters())
    for step in steps:
        optimizer.zero_grad()
        for rank in range(size):
            inputs, targets = batch(rank, step)
            (LOSS(net(inputs), targets) / size).backward()
        optimizer.step()
    return net


def same(got: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    """Fail where two tensors, or two modules' parameters, differ."""
    if isinstance(wanted, nn.Module):
        for (name, one), other in zip(got.named_parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(
                one, other, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
            )
    else:
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def agree(net: nn.Module) -> None:
    """All ranks have the same parameters, bit for bit."""
    for parameter in net.parameters():
        largest, smallest = parameter.detach().clone(), parameter.detach().clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        same(largest, smallest, 0)
