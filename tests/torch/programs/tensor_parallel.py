"""Tensor parallelism: layers cut by columns and rows, sequences between them, cut logits, FSDP2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)

from tests.torch.programs.training import same

WORDS, WIDTH, LENGTH = 16, 8, 4


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.logits = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        result: Tensor = self.logits(x)
        return result


def block() -> Block:
    torch.manual_seed(5)
    net = Block()
    net.double()
    return net


def tokens(of: int = 0) -> Tensor:
    return torch.randint(WORDS, (2, LENGTH), generator=torch.Generator().manual_seed(of))


def loss(logits: Tensor, of: int = 0) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens(100 + of).flatten())


def parallel(mesh: DeviceMesh, cut_logits: bool) -> Block:
    last: dict[str, Any] = (
        {"output_layouts": Shard(-1), "use_local_output": False} if cut_logits else {"output_layouts": Replicate()}
    )
    plan = {
        "words": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1)),
        "logits": ColwiseParallel(input_layouts=Shard(1), **last),
    }
    net = block()
    parallelize_module(net, mesh, plan)
    return net


def check(rank: int, size: int) -> None:
    alone = block()
    wanted = loss(alone(tokens()))
    wanted.backward()
    mesh = init_device_mesh("cpu", (size,))

    net = parallel(mesh, cut_logits=False)
    got = loss(net(tokens()))
    got.backward()
    same(got, wanted)
    same_gradients(net, alone)

    net = parallel(mesh, cut_logits=True)
    with loss_parallel():
        got = loss(net(tokens()))
        got.backward()
    same(got.full_tensor(), wanted)
    same_gradients(net, alone)
    if size == 4:
        with_fsdp(rank)


def with_fsdp(rank: int) -> None:
    """Two ranks share a model's layers, two such pairs a batch."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    net, alone = parallel(mesh["model"], cut_logits=False), block()
    fully_shard(net, mesh=mesh["data"])
    loss(net(tokens(rank // 2)), rank // 2).backward()
    for pair in range(2):
        (loss(alone(tokens(pair)), pair) / 2).backward()
    same_gradients(net, alone)


def same_gradients(net: nn.Module, alone: nn.Module) -> None:
    for got, wanted in zip(net.parameters(), alone.parameters(), strict=True):
        assert isinstance(got.grad, DTensor)
        same(got.grad.full_tensor(), wanted.grad)
