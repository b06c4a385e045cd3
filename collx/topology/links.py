"""What links are like before anybody has measured them."""

from __future__ import annotations

from collx.topology.model import Link

US = 1e-6
GB = 1e9  # per second, in a link's beta: 1 / (10 * GB)

# By the level that they join. A network is TCP over 10 Gbit/s; within a host, shared memory between cores that share a
# cache, or ever less (docs/tuning.md has figures of one machine); among GPUs, what a copy of one GPU's memory by
# another takes to start, and NVLink's rate. Only `collx tune` knows better.
DEFAULT_LINKS = {
    "racks": Link("spine", 40 * US, 1 / (1.1 * GB), 3 * US, shared=True),
    "hosts": Link("network", 30 * US, 1 / (1.1 * GB), 3 * US, shared=True),
    "packages": Link("packages", 0.8 * US, 1 / (6 * GB), 0.2 * US),
    "numa": Link("numa", 0.6 * US, 1 / (8 * GB), 0.2 * US),
    "l3": Link("l3", 0.4 * US, 1 / (10 * GB), 0.2 * US),
    "cores": Link("cores", 0.2 * US, 1 / (12 * GB), 0.2 * US),
    "gpus": Link("nvlink", 8 * US, 1 / (200 * GB), 2 * US),
    "ranks": Link("core", 3 * US, 1 / (12 * GB), 0.2 * US),  # they share a core: each waits for the other to leave it
}
PCIE = Link("pcie", 10 * US, 1 / (20 * GB), 2 * US)  # where no NVLink joins GPUs
LEVELS = tuple(DEFAULT_LINKS)  # from the outermost inwards
