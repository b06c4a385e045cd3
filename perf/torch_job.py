"""This rank's end of a job of torch.distributed in which collx and Gloo take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import torch  # type: ignore[import-not-found, unused-ignore]
import torch.distributed as dist  # type: ignore[import-not-found, unused-ignore]

from collx.perf.contest import Bracket, Round, tag_between
from collx.perf.versus import bracketing

BACKENDS = ("collx", "gloo")
_TURN = 0.01  # seconds that a turn should take
_MOST_CALLS = 5_000
_FEWEST, _MOST = 3, 40  # rounds
Turn = Callable[[int], object]  # makes so many calls


class Job:
    """This rank's end of both process groups; Gloo's is the default one."""

    def __init__(self, meeting: Path) -> None:
        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self.rank, self.size = int(os.environ["COLLX_RANK"]), int(os.environ["COLLX_SIZE"])
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=self.rank, world_size=self.size)
        self.groups = {backend: dist.new_group(backend=backend) for backend in BACKENDS}
        self._look: Bracket = bracketing(self.say) if self.rank == 0 else lambda: ""

    def close(self) -> None:
        dist.destroy_process_group()

    def say(self, line: str) -> None:
        if self.rank == 0:
            print(line, flush=True)

    def longest(self, seconds: Sequence[float]) -> list[float]:
        """The maximum over ranks, place by place."""
        times = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        found: list[float] = times.tolist()
        return found

    def total(self, counts: Sequence[int]) -> list[int]:
        """The sum over ranks, place by place."""
        sums = torch.tensor(counts)
        dist.all_reduce(sums)
        found: list[int] = sums.tolist()
        return found

    def look(self) -> str:
        """Rank 0's tag of the machine, while the others sleep; on them an empty one."""
        dist.barrier()
        if self.rank == 0:
            time.sleep(0.001)  # until the others have reached the barrier
        tag = self._look()
        dist.barrier()
        return tag

    def timed(self, turn: Turn, calls: int) -> float:
        """Seconds of a call, after a few that warm up."""
        turn(1 + calls // 8)
        dist.barrier()
        start = perf_counter()
        turn(calls)
        return (perf_counter() - start) / calls

    def rounds(self, turns: Mapping[str, Turn], seconds: float) -> list[Round]:
        """Turns in rotating order, for about so many seconds: of every turn the slowest rank's time per call."""
        names = list(turns)
        estimates = dict(zip(names, self.longest([self._estimate(turn) for turn in turns.values()]), strict=True))
        calls = {name: max(1, min(_MOST_CALLS, int(_TURN / estimates[name]))) for name in names}
        round_takes = sum(calls[name] * estimates[name] for name in names)
        count = max(_FEWEST, min(_MOST, int(seconds / round_takes)))
        tags, taken, before = [], [], self.look()
        for number in range(count):
            order = names[number % len(names) :] + names[: number % len(names)]
            mine = {name: self.timed(turns[name], calls[name]) for name in order}
            after = self.look()
            tags.append(tag_between(before, after))
            taken += [mine[name] for name in names]
            before = after
        slowest = iter(self.longest(taken))
        return [Round(tag, {name: next(slowest) for name in names}) for tag in tags]

    def _estimate(self, turn: Turn) -> float:
        self.timed(turn, 1)  # the first one comes cold
        return self.timed(turn, 3)
