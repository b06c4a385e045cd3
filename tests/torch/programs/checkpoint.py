"""torch.distributed.checkpoint: saved at once or in the background, and read again by other ranks in other shards."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from tests.torch.programs.fsdp2 import same_whole, sharded
from tests.torch.programs.training import adam, same, train, trained_alone


def check(rank: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told = [folder]
        dist.broadcast_object_list(told, 0)
        trained_on(rank, size, f"{told[0]}/model", later=False)
        trained_on(rank, size, f"{told[0]}/later", later=True)
        resharded(rank, size, f"{told[0]}/shards")
        dist.barrier()


def trained_on(rank: int, size: int, path: str, later: bool) -> None:
    """Another model and optimiser go on from what was saved."""
    mesh = init_device_mesh("cpu", (size,))
    net = sharded(mesh)
    optimizer = adam(net.parameters())
    train(net, optimizer, rank, range(3))
    state = dict(zip(("model", "optimizer"), get_state_dict(net, optimizer), strict=True))
    # What saves in the background makes calls of its own: in the same group they would come between those of training.
    group = dist.new_group() if later else None
    saved: Any = (dcp.async_save if later else dcp.save)(state, checkpoint_id=path, process_group=group)
    train(net, optimizer, rank, range(3, 5))  # what is being saved does not see it
    if later:
        saved.result()
    again = sharded(mesh)
    other = adam(again.parameters())
    state = dict(zip(("model", "optimizer"), get_state_dict(again, other), strict=True))
    dcp.load(state, checkpoint_id=path)
    set_state_dict(again, other, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(again, other, rank, range(3, 5))
    same_whole(again, trained_alone(size, range(5), adam))
    same_whole(net, trained_alone(size, range(5), adam))


def resharded(rank: int, size: int, path: str) -> None:
    """From all ranks to half of them, cut the other way, and back to all."""
    whole = torch.arange(70.0).reshape(10, 7)
    every, half = (
        init_device_mesh("cpu", (size,)),
        init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("a", "b"))["b"],
    )
    dcp.save({"w": distribute_tensor(whole, every, [Shard(0)]), "step": 3}, checkpoint_id=f"{path}/all")
    if rank < size // 2:
        got = {"w": distribute_tensor(torch.zeros(10, 7), half, [Shard(1)]), "step": 0}
        dcp.load(got, checkpoint_id=f"{path}/all", process_group=half.get_group())
        assert got["step"] == 3
        same(got["w"].full_tensor(), whole, 0)
        dcp.save({"w": got["w"] * 2}, checkpoint_id=f"{path}/half", process_group=half.get_group())
    dist.barrier()
    for placement in (Shard(0), Shard(1), Replicate()):
        got = {"w": distribute_tensor(torch.zeros(10, 7), every, [placement])}
        dcp.load(got, checkpoint_id=f"{path}/half")
        same(got["w"].full_tensor(), 2 * whole, 0)
