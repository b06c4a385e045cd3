"""DeviceMesh in one and two dimensions, its slices, its dimensions as one, and of some ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tests.torch.programs.groups import total


def check(rank: int, size: int) -> None:
    line = init_device_mesh("cpu", (size,))
    assert line.get_local_rank() == rank
    assert total(rank, line.get_group()) == size * (size + 1) / 2

    for rows in {1, 2, size}:
        columns = size // rows
        mesh = init_device_mesh("cpu", (rows, columns), mesh_dim_names=("data", "model"))
        row, column = divmod(rank, columns)
        assert mesh.get_coordinate() in ([row, column], (row, column))
        assert (mesh.get_local_rank("data"), mesh["model"].get_local_rank()) == (row, column)
        assert dist.get_process_group_ranks(mesh.get_group("model")) == [
            row * columns + peer for peer in range(columns)
        ]
        assert total(rank, mesh.get_group("model")) == sum(row * columns + peer + 1 for peer in range(columns))
        assert total(rank, mesh["data"].get_group()) == sum(peer * columns + column + 1 for peer in range(rows))
        flat = mesh["data", "model"]._flatten(f"flat{rows}")
        assert total(rank, flat.get_group()) == size * (size + 1) / 2

    some = DeviceMesh("cpu", torch.arange(size // 2 + 1))
    if rank <= size // 2:
        assert total(rank, some.get_group()) == sum(range(size // 2 + 2))
    else:
        assert some.get_coordinate() is None
    wrapped = DeviceMesh.from_group(dist.group.WORLD, "cpu")
    assert total(rank, wrapped.get_group()) == size * (size + 1) / 2
