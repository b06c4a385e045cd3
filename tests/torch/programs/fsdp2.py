"""fully_shard (FSDP2): with and without resharding, mixed precision, accumulation, and hybrid on a 2-D mesh."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tests.torch.programs.training import LOSS, adam, batch, model, same, train, trained_alone

STEPS = range(3)


def sharded(mesh: DeviceMesh, **way: Any) -> nn.Module:
    net = model()
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh, **way)
    fully_shard(net, mesh=mesh, **way)
    return net


def check(rank: int, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    wanted = trained_alone(size, STEPS, adam)
    for way in ({}, {"reshard_after_forward": False}):
        net = sharded(mesh, **way)
        train(net, adam(net.parameters()), rank, STEPS)
        same_whole(net, wanted)
    if size == 4:
        net = sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
        train(net, adam(net.parameters()), rank, STEPS)
        same_whole(net, wanted)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    net = sharded(mesh, mp_policy=policy)
    train(net, adam(net.parameters()), rank, STEPS, dtype=torch.bfloat16)
    same_whole(net, wanted, 3e-2)
    accumulated(mesh, rank, size)
    whole_state(mesh)


def same_whole(net: nn.Module, wanted: nn.Module, tolerance: float = 1e-9) -> None:
    for got, parameter in zip(net.parameters(), wanted.parameters(), strict=True):
        assert isinstance(got, DTensor)
        same(got.full_tensor(), parameter, tolerance)


def accumulated(mesh: DeviceMesh, rank: int, size: int) -> None:
    net, alone = sharded(mesh), model()
    for step in range(2):
        net.set_requires_gradient_sync(step == 1)
        inputs, targets = batch(rank, step)
        LOSS(net(inputs), targets).backward()
        for peer in range(size):
            inputs, targets = batch(peer, step)
            (LOSS(alone(inputs), targets) / size).backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
    same(norm.full_tensor(), torch.nn.utils.clip_grad_norm_(alone.parameters(), 1e9))
    for got, parameter in zip(net.parameters(), alone.parameters(), strict=True):
        same(got.grad.full_tensor(), parameter.grad)


def whole_state(mesh: DeviceMesh) -> None:
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    net = sharded(mesh)
    state = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    set_model_state_dict(net, state if mesh.get_rank() == 0 else {}, options=options)
    same_whole(net, model())
