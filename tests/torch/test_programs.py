"""Programs of PyTorch on the backend by its name alone, under each launcher: many in a job, as torch starts slowly.
`make torchprograms` runs all under all."""

from __future__ import annotations

import pytest

from tests.torch.matrix import MODULE, command, finished, passed

CHEAP = ("groups", "collectives", "point_to_point", "objects", "ddp", "zero", "fsdp2", "mesh")
JOBS = {
    "torchrun": (2, (*CHEAP, "ddp_uneven", "fsdp1", "checkpoint")),
    "collx run": (4, (*CHEAP, "dtensor", "tensor_parallel", "pipelining")),
    "mpirun": (2, ("groups", "objects")),
}


@pytest.mark.parametrize("launcher", JOBS)
def test_programs(launcher: str) -> None:
    size, programs = JOBS[launcher]
    job = finished(command(launcher, size, "-m", MODULE, *programs), limit=200)
    assert job.returncode == 0, job.stderr
    assert passed(job.stdout) == ["init_process_group", *programs]
