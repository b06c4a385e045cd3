"""A rank of the job that strangers attack: works until the file it is told of is there, and prints how it fared."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

import collx
from tests.security.red_team import peak

TURNS = 20  # calls between looks at the file


def main() -> None:
    comm = collx.init(timeout=60.0)
    everything = np.arange(1000, dtype=np.int64)
    slowest, joining, wrong, over = 0.0, 0.0, 0, False
    peak()
    before = peak()
    while not over:
        for _ in range(TURNS):
            begin = time.perf_counter()
            wrong += bool((comm.all_reduce(everything) != comm.size * everything).any())
            slowest = max(slowest, time.perf_counter() - begin)
        begin = time.perf_counter()
        part = comm.split(0)  # new connections, through the same doors
        assert part is not None
        with part:
            over = bool(part.broadcast(np.array(os.path.exists(sys.argv[1]))))
        joining = max(joining, time.perf_counter() - begin)
    print(
        json.dumps(
            {
                "wrong": wrong,
                "slowest_ms": round(1000 * slowest, 2),
                "joining_ms": round(1000 * joining, 2),
                "grown_kib": peak() - before,
                "secret_seen": secret_seen(),
            }
        )
    )


def secret_seen() -> bool:
    """Whether the job's secret is where others could see it."""
    secret = Path(os.environ["COLLX_SECRET_FILE"]).read_bytes()
    seen = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
    return secret in seen or secret.hex().encode() in seen.lower()


if __name__ == "__main__":
    main()
