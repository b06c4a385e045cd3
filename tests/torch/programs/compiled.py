"""torch.compile: functional collectives and DistributedDataParallel inside compiled code."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel as DDP

from tests.torch.programs.training import model, same, sgd, train, trained_alone

# What comes of the graphs: for C++ TORCH_COMPILER=inductor, which takes half a minute to compile.
COMPILER = os.environ.get("TORCH_COMPILER", "aot_eager")


def check(rank: int, size: int) -> None:
    torch._dynamo.reset()
    group = dist.group.WORLD

    @torch.compile(backend=COMPILER, fullgraph=True)  # type: ignore[untyped-decorator]
    def work(x: Tensor) -> Tensor:
        total = functional.all_reduce(x.sin(), "sum", group)
        rows = functional.all_gather_tensor(total * 2, 0, group)
        return functional.reduce_scatter_tensor(rows.cos(), "sum", 0, group)

    given = torch.arange(6.0, dtype=torch.float64).reshape(3, 2)
    total = sum(torch.sin(given + peer) for peer in range(size))
    same(work(given + rank), (2 * total).cos() * size)

    net = DDP(torch.compile(model(), backend=COMPILER))
    train(net, sgd(net.parameters()), rank, range(3))
    same(net.module, trained_alone(size, range(3)))
