"""Jobs on two hosts that something befalls: how each of their calls ended, and that nothing is left of them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import jobs
from tests.hosts import Hosts, finished, joined

SIZE = 4  # two ranks on each of two hosts
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

# Every rank notes its process when all are there, and then how its call ended. All read the same clock.
PROGRAM = """
import json
kind, folder, seed = sys.argv[1:]

def note(name, **what):
    with open(f"{folder}/new-{comm.rank}", "w") as file:
        json.dump(what, file)
    os.rename(f"{folder}/new-{comm.rank}", f"{folder}/{name}-{comm.rank}")

def repeat():
    chance = np.random.default_rng(int(seed))
    while True:
        size, root = int(10 ** chance.uniform(0, 6)), int(chance.integers(comm.size))
        x, left, right = np.ones(size), (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
        for _ in range(chance.integers(1, 20)):
            match chance.integers(5):
                case 0: comm.all_reduce(x)
                case 1: comm.barrier()
                case 2: comm.broadcast(x, root=root)
                case 3: comm.all_to_all(np.ones(comm.size * (size // 4 + 1)))
                case 4: comm.sendrecv(x, right, x.copy(), left)

def go():
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.001)

def lossy():
    go()
    for size in (1, 1000, 30_000):
        for _ in range(3):
            assert (comm.all_reduce(np.arange(size) + comm.rank) == np.arange(size) * 4 + 6).all()

def once(timeout):
    go()
    if comm.rank < 3:
        begun = time.monotonic()
        try:
            assert comm.all_reduce(np.ones(1000), timeout=timeout)[0] == 4
        finally:
            note("took", seconds=time.monotonic() - begun)
    else:
        comm.all_reduce(np.ones(1000))

comm = collx.init(timeout=60)
comm.barrier()
note("ready", pid=os.getpid())
try:
    {"repeat": repeat, "lossy": lossy, "late": lambda: once(2), "slow": lambda: once(60)}[kind]()
    note("ended", error="")
except collx.CollxError as error:
    at = time.monotonic()
    note("ended", at=at, error=type(error).__name__, ranks=getattr(error, "ranks", []), text=str(error))
    if kind == "repeat" and len(error.ranks) == 1:
        comm = comm.shrink(timeout=30)
        note("shrunk", sum=float(comm.all_reduce(np.ones(1))[0]), size=comm.size)
"""


class Job:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def noted(self, name: str, ranks: range = range(SIZE)) -> list[dict[str, Any]]:
        """What these ranks note under a name, as soon as all have."""
        paths = [self._folder / f"{name}-{rank}" for rank in ranks]
        deadline = time.monotonic() + jobs.DEADLINE
        while not all(path.exists() for path in paths):
            assert time.monotonic() < deadline, f"ranks hang: {sorted(path.name for path in self._folder.iterdir())}"
            time.sleep(0.001)
        return [json.loads(path.read_text()) for path in paths]

    def pids(self) -> list[int]:
        return [note["pid"] for note in self.noted("ready")]

    def go(self) -> None:
        (self._folder / "go").touch()


@contextmanager
def job(hosts: Hosts, folder: Path, kind: str, seed: int = 0) -> Iterator[Job]:
    """A job of `PROGRAM` whose ranks are all there. It ends with the block, with nothing left behind."""
    path = jobs.program(folder, PROGRAM)
    with jobs.nothing_left_behind(str(path)):
        running = hosts.start_run(2, "--keep-going", path, kind, folder, seed)
        try:
            there = Job(folder)
            there.noted("ready")
            yield there
        finally:
            finished(running)
    assert not ports(hosts)


def ports(hosts: Hosts) -> list[str]:
    """What any host's connections are that listen or are open, by TCP."""
    lines = [line for host in range(len(hosts.pids)) for line in hosts.run(host, "cat", *TABLES).splitlines()]
    return [line for line in lines if line.split()[3] in ("01", "0A")]


def killed(hosts: Hosts, folder: Path, victim: int, seed: int = 0) -> None:
    """A job of which a rank is killed at a moment: all others are told within a second, and go on together."""
    with job(hosts, folder, "repeat", seed) as there:
        pid = there.pids()[victim]
        time.sleep(random.Random(seed).uniform(0, 0.5))  # at any moment
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        for rank in set(range(SIZE)) - {victim}:
            (ended,) = there.noted("ended", range(rank, rank + 1))
            assert (ended["error"], ended["ranks"]) == ("RankFailedError", [victim]), ended
            assert ended["at"] - at < 1.0, ended
        assert there.noted("shrunk", range(SIZE - 1)) == [{"sum": 3.0, "size": 3}] * 3


def main() -> None:
    """`python -m tests.failures.across TRIALS [FIRST]`: so many jobs, each given by its number."""
    first = int(sys.argv[2]) if sys.argv[2:] else 0
    with tempfile.TemporaryDirectory() as place, joined(2, Path(place)) as hosts:
        for seed in range(first, first + int(sys.argv[1])):
            folder = Path(place) / str(seed)
            folder.mkdir()
            begun = time.monotonic()
            killed(hosts, folder, random.Random(-seed).randrange(SIZE), seed)
            print(f"trial {seed}: {time.monotonic() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
