"""Which ranks share a machine, as far as memory goes."""

from __future__ import annotations

import os
from collections.abc import Sequence


class Machines:
    """The ranks of a job, this one among them. `hosts` has their host names, and `machines` what is the same for two of
    them exactly where they can share memory."""

    def __init__(self, rank: int, hosts: Sequence[str], machines: Sequence[str]) -> None:
        self.rank, self.size = rank, len(hosts)
        self.hosts, self.machines = tuple(hosts), tuple(machines)

    def near(self, members: Sequence[int]) -> list[int]:
        """Those of `members` that can share memory with this rank, itself among them."""
        return [member for member in members if self.machines[member] == self.machines[self.rank]]

    def share(self, members: Sequence[int]) -> bool:
        """Whether any two of `members` can share memory."""
        return len({self.machines[member] for member in members}) < len(members)


def machine() -> str:
    """What tells processes that can share memory from others: host, boot, and what containers set apart."""
    with open("/proc/sys/kernel/random/boot_id") as lines:
        boot = lines.read().strip()
    spaces = (os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "mnt"))
    return " ".join((os.uname().nodename, boot, str(os.getuid()), *spaces))
