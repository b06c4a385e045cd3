"""Whether GPU tests can run here, and if not, why: `python -m tests.gpu.here` prints it."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np

from collx.perf import gpu

_LOOK = "from collx.transports.cuda.driver import driver; driver()"


@functools.cache
def missing() -> str:
    """One line, empty where nothing is missing. Another process looks: this one is to fork ranks, which could not use
    a driver that it has begun with."""
    if lacking := gpu.missing(np.dtype(np.float32)):
        return lacking
    looked = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=120)
    return "" if looked.returncode == 0 else looked.stderr.strip().rpartition("\n")[2].partition(": ")[2]


if __name__ == "__main__":
    print(missing())
    sys.exit(bool(missing()))
