"""DTensor: from each placement to each, equal and unequal shards, operators, gradients, meshes of one and two axes."""

from __future__ import annotations

import itertools

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from tests.torch.programs.training import same

PLACEMENTS = (Shard(0), Shard(1), Replicate())


def check(rank: int, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    redistributed(mesh, rank, size)
    operators(mesh)
    gradients(mesh)
    if size == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
        whole = torch.arange(56.0).reshape(8, 7)
        for before, after in itertools.pairwise(itertools.product(PLACEMENTS, repeat=2)):
            same(distribute_tensor(whole, square, before).redistribute(square, after).full_tensor(), whole, 0)


def redistributed(mesh: DeviceMesh, rank: int, size: int) -> None:
    for rows, columns in ((4 * size, size), (7, 5), (1, 3)):  # the last leaves some ranks with nothing
        whole = torch.arange(float(rows * columns)).reshape(rows, columns)
        for before, after in itertools.product(PLACEMENTS, repeat=2):
            placed = distribute_tensor(whole, mesh, [before])
            assert placed.redistribute(mesh, [after]).placements == (after,)
            same(placed.redistribute(mesh, [after]).full_tensor(), whole, 0)
        for after in PLACEMENTS:
            part = DTensor.from_local(whole * (rank + 1), mesh, [Partial()], run_check=False)
            same(part.redistribute(mesh, [after]).full_tensor(), whole * size * (size + 1) / 2, 0)
            part = DTensor.from_local(whole * (rank + 1), mesh, [Partial("max")], run_check=False)
            same(part.redistribute(mesh, [after]).full_tensor(), whole * size, 0)


def operators(mesh: DeviceMesh) -> None:
    torch.manual_seed(3)
    a, b = torch.randn(12, 8, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64)
    for left, right in ((Shard(0), Replicate()), (Shard(1), Shard(0)), (Replicate(), Shard(1))):
        x, y = distribute_tensor(a, mesh, [left]), distribute_tensor(b, mesh, [right])
        same((x @ y).full_tensor(), a @ b)
        same((x @ y).relu().sum(0).full_tensor(), (a @ b).relu().sum(0))
        same(x.softmax(-1).full_tensor(), a.softmax(-1))
        same(x.mean().full_tensor(), a.mean())
        same(x.norm().full_tensor(), a.norm())
        same(x.t().contiguous().view(-1).full_tensor(), a.t().reshape(-1))
    zeros = torch.distributed.tensor.zeros(5, 3, device_mesh=mesh, placements=[Shard(0)])
    same(zeros.full_tensor(), torch.zeros(5, 3), 0)


def gradients(mesh: DeviceMesh) -> None:
    torch.manual_seed(4)
    weight, inputs = torch.randn(6, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    alone = weight.clone().requires_grad_()
    (inputs @ alone.t()).tanh().sum().backward()
    for placement in PLACEMENTS:
        placed = distribute_tensor(weight, mesh, [placement]).requires_grad_()
        given = distribute_tensor(inputs, mesh, [Replicate()])
        (given @ placed.t()).tanh().sum().full_tensor().backward()
        assert isinstance(placed.grad, DTensor)
        same(placed.grad.full_tensor(), alone.grad)
