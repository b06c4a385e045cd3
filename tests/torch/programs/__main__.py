"""Programs of PyTorch, all or those named, one after the other in one process group.

torchrun --nproc-per-node 2 -m tests.torch.programs --backend collx
collx run -n 4 -m tests.torch.programs ddp fsdp2
mpirun -n 2 python -m tests.torch.programs --backend gloo

Rank 0 prints a line for each program that did on all ranks what it should; an error on any rank ends the job, or with
--keep-going that program.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

PROGRAMS = (
    "groups", "collectives", "functional", "point_to_point", "objects", "ddp", "ddp_hooks", "ddp_uneven", "zero",
    "fsdp1", "fsdp2", "checkpoint", "mesh", "dtensor", "tensor_parallel", "pipelining", "compiled",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=PROGRAMS, help="(all)")
    parser.add_argument("--backend", default="collx", help="the process group's (collx)")
    parser.add_argument("--keep-going", action="store_true", help="with the next program after one that failed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    dist.init_process_group(options.backend, timeout=timedelta(seconds=120))
    say("init_process_group", started)
    failed = 0
    for name in options.programs:
        started = time.perf_counter()
        try:
            importlib.import_module(f"tests.torch.programs.{name}").check(dist.get_rank(), dist.get_world_size())
            dist.barrier()
            say(name, started)
        except Exception as error:
            print(f"# FAILED {name} on rank {dist.get_rank()}: {error!r:.300}", flush=True)
            if not options.keep_going:
                raise
            traceback.print_exc()
            failed += 1
    dist.destroy_process_group()
    sys.exit(failed)


def say(name: str, started: float) -> None:
    if dist.get_rank() == 0:
        print(f"# passed {name} {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
