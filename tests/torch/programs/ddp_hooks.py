"""What DistributedDataParallel sends in place of gradients: compressed, in low rank, or at times the model itself."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, post_localSGD_hook, powerSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.nn.parallel import DistributedDataParallel as DDP

from tests.torch.programs.training import agree, model, same, sgd, train, trained_alone

STEPS = range(4)


def trained(rank: int, hook: Any, state: Any = None) -> DDP:
    net = DDP(model())
    net.register_comm_hook(state, hook)
    train(net, sgd(net.parameters()), rank, STEPS)
    return net


def check(rank: int, size: int) -> None:
    wanted = trained_alone(size, STEPS)
    same(trained(rank, default_hooks.allreduce_hook).module, wanted)
    same(trained(rank, default_hooks.fp16_compress_hook).module, wanted, 2e-3)
    same(trained(rank, bf16).module, wanted, 2e-2)

    # Of a rank that no gradient has more of, which is as good as none.
    state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=16, start_powerSGD_iter=2)
    net = trained(rank, powerSGD_hook.powerSGD_hook, state)
    agree(net)
    same(net.module, wanted, 2e-2)
    averaged(rank)


def bf16(state, bucket):  # type: ignore[no-untyped-def] # DDP reads annotations, and not as texts
    """torch's hook, which DDP takes by its own name only beside NCCL."""
    return default_hooks.bf16_compress_hook(state, bucket)


def averaged(rank: int) -> None:
    """Local steps with models averaged after each are, for plain SGD, steps on the mean gradient."""
    net = DDP(model())
    own, _ = dist.new_subgroups(1)
    state = post_localSGD_hook.PostLocalSGDState(dist.group.WORLD, own, start_localSGD_iter=0)
    net.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)
    optimizer = PostLocalSGDOptimizer(sgd(net.parameters()), PeriodicModelAverager(period=1, warmup_steps=0))
    train(net, optimizer, rank, STEPS)
    agree(net)
