"""What a figure depends on: the processor, the cores, the kernel and the versions in play."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np


def processor() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def cache(level: int) -> str:
    """The size of one of the first core's caches, as the kernel tells it; empty where it does not."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        has = {name: (index / name).read_text().strip() for name in ("level", "type", "size")}
        if has["level"] == str(level) and has["type"] != "Instruction":
            return has["size"]
    return ""


def available() -> int:
    """Bytes of memory that may still be had, as the kernel tells it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def describe() -> dict[str, Any]:
    """The machine and the interpreter, for the table's header, the JSON and the reports."""
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "l2": cache(2),
        "l3": cache(3),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
