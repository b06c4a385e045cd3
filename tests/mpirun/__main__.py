"""All the programs of this folder, or those named, one after the other in one job.

mpirun -n 4 python tests/mpirun --max-bytes 1M
mpirun -n 4 python tests/mpirun all_reduce groups
"""

from __future__ import annotations

import importlib

from arguments import parse
from harness import run_all

PROGRAMS = (
    "all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "gather", "scatter", "scan",
    "exscan", "barrier", "groups", "async_overlap", "point_to_point", "v_variants", "custom_ops", "dtypes_in_place",
)  # fmt: skip

if __name__ == "__main__":
    options, named = parse(__doc__, PROGRAMS)
    run_all([importlib.import_module(name).check for name in named], options)
