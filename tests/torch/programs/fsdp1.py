"""FullyShardedDataParallel (FSDP1): how much is sharded, mixed precision, whole and sharded state."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    MixedPrecision,
    ShardingStrategy,
    StateDictType,
)
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from tests.torch.programs.training import adam, model, same, train, trained_alone

STEPS = range(3)
POLICY = ModuleWrapPolicy({nn.Linear})


def wrapped(**way: Any) -> FSDP:
    return FSDP(model(), auto_wrap_policy=POLICY, device_id=torch.device("cpu"), use_orig_params=True, **way)


def check(rank: int, size: int) -> None:
    wanted = trained_alone(size, STEPS, adam)
    for strategy in (ShardingStrategy.FULL_SHARD, ShardingStrategy.SHARD_GRAD_OP, ShardingStrategy.NO_SHARD):
        net = wrapped(sharding_strategy=strategy)
        train(net, adam(net.parameters()), rank, STEPS)
        same_whole(net, wanted)
    if size == 4:
        pairs = dist.new_subgroups_by_enumeration([[0, 1], [2, 3]])[0]
        across = dist.new_subgroups_by_enumeration([[0, 2], [1, 3]])[0]
        net = wrapped(sharding_strategy=ShardingStrategy.HYBRID_SHARD, process_group=(pairs, across))
        train(net, adam(net.parameters()), rank, STEPS)
        same_whole(net, wanted)
    precision = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    net = wrapped(mixed_precision=precision)
    train(net, adam(net.parameters()), rank, STEPS, dtype=torch.bfloat16)
    same_whole(net, wanted, 3e-2)
    states(rank, size)


def same_whole(net: FSDP, wanted: nn.Module, tolerance: float = 1e-9) -> None:
    with FSDP.summon_full_params(net):
        for got, parameter in zip(net.parameters(), wanted.parameters(), strict=True):
            same(got, parameter, tolerance)


def states(rank: int, size: int) -> None:
    """Another model takes on what was saved, sharded or whole."""
    wanted = trained_alone(size, STEPS, adam)
    whole = FullStateDictConfig(rank0_only=False), FullOptimStateDictConfig(rank0_only=False)
    for kind, settings in ((StateDictType.FULL_STATE_DICT, whole), (StateDictType.SHARDED_STATE_DICT, ())):
        net, again = wrapped(), wrapped()
        train(net, adam(net.parameters()), rank, STEPS)
        with FSDP.state_dict_type(net, kind, *settings):
            kept = net.state_dict()
        with FSDP.state_dict_type(again, kind, *settings):
            again.load_state_dict(kept)
        same_whole(again, wanted)
