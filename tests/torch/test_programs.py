"""Programs of PyTorch on the backend by its name alone, under each launcher: many in a job, as torch starts slowly."""

from __future__ import annotations

import subprocess
import sys

from tests import jobs, launchers

PROGRAMS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MODULE = ["-m", "tests.torch.programs"]
CHEAP = ["groups", "collectives", "point_to_point", "objects", "ddp", "zero", "fsdp2", "mesh"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    environ = jobs.CLEAN | ONE_THREAD
    return subprocess.run(command, capture_output=True, text=True, timeout=launchers.DEADLINE, env=environ)


def passed(output: str) -> list[str]:
    return [line.split("passed ")[1].split()[0] for line in output.splitlines() if "# passed" in line]


def test_torchrun() -> None:
    job = finished([*PROGRAMS, *MODULE, *CHEAP, "ddp_uneven", "fsdp1", "checkpoint"])
    assert job.returncode == 0, job.stderr
    assert passed(job.stdout) == ["init_process_group", *CHEAP, "ddp_uneven", "fsdp1", "checkpoint"]


def test_collx_run() -> None:
    job = finished([*jobs.RUN, "-n", "4", *MODULE, *CHEAP, "dtensor", "tensor_parallel", "pipelining"])
    assert job.returncode == 0, job.stderr
    assert passed(job.stdout) == ["init_process_group", *CHEAP, "dtensor", "tensor_parallel", "pipelining"]


def test_mpirun() -> None:
    job = launchers.MPIS[0].run(2, *MODULE, "groups", "objects", **ONE_THREAD)
    assert job.returncode == 0, job.stderr
    assert passed(job.stdout) == ["init_process_group", "groups", "objects"]
