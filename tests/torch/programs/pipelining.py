"""torch.distributed.pipelining: every schedule gives the loss and the gradients of one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS,
)

from tests.torch.programs.training import LOSS, same

WIDTH, MICROBATCHES = 6, 4
PLAIN = (ScheduleGPipe, Schedule1F1B)
INTERLEAVED = (ScheduleInterleaved1F1B, ScheduleLoopedBFS, ScheduleInterleavedZeroBubble)


def stages(count: int) -> list[nn.Module]:
    torch.manual_seed(9)
    return [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).double() for _ in range(count)]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs, targets = torch.randn(2, 2 * MICROBATCHES, WIDTH, generator=generator, dtype=torch.float64)
    return inputs, targets


def check(rank: int, size: int) -> None:
    for kind in PLAIN:
        run(kind, [rank], size, rank)
    for kind in INTERLEAVED:
        run(kind, [rank, rank + size], 2 * size, rank)


def run(kind: Any, mine: list[int], count: int, rank: int) -> None:
    parts = stages(count)
    placed = [PipelineStage(parts[number], number, count, torch.device("cpu")) for number in mine]
    schedule = kind(placed if len(mine) > 1 else placed[0], MICROBATCHES, loss_fn=LOSS)
    inputs, targets = data()
    losses: list[Tensor] = []
    last = count - 1 in mine
    output = schedule.step(*([inputs] if 0 in mine else []), **({"target": targets, "losses": losses} if last else {}))

    whole = stages(count)
    wanted = inputs
    for part in whole:
        wanted = part(wanted)
    total = sum(LOSS(*pair) for pair in zip(wanted.chunk(MICROBATCHES), targets.chunk(MICROBATCHES), strict=True))
    (total / MICROBATCHES).backward()
    if last:
        same(output, wanted)
        same(sum(losses), total)
    for number in mine:
        for got, parameter in zip(parts[number].parameters(), whole[number].parameters(), strict=True):
            same(got.grad, parameter.grad)
    dist.barrier()
