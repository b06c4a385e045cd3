"""Runs the tests that a sync mode decides about under MPS, in mode spin: `python -m tests.gpu.under_mps`."""

from __future__ import annotations

import os
import subprocess
import sys

from collx.perf.on_gpu import NO_MPS, mps

TESTS = ("every_collective", "memory", "calls", "graphs")

if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-v", *sys.argv[1:], "tests/gpu/test_collectives.py"]
    with mps(True) as asking:
        if not asking:
            sys.exit(NO_MPS)
        here = os.environ | asking | {"COLLX_GPU_MODES": "spin"}
        sys.exit(subprocess.call([*command, "-k", " or ".join(TESTS)], env=here))
