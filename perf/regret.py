"""What it costs to leave the choice to the selector: `make regret`, `python -m collx.perf.regret 4 2x2`; hosts as root.

For each job the choices without a tuning table are asked for, `collx tune --quick` makes one, and then all algorithms
take turns at every size, the choices before and after among them. Words for jobs: `4` ranks on this machine, `2x2` for
2 hosts with 2 ranks each (namespaces, joined by a cable), `2x2@1gbit` for a cable held to that.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from collx.errors import CollxError
from collx.perf import machine, outlay
from collx.perf.apart import places
from collx.perf.hosts import joined
from collx.perf.options import UsageError
from collx.perf.program import Parser, program
from collx.perf.rivals import collx_run
from collx.perf.rounds import CARD
from collx.perf.versus import revision

JOBS = ("2", "3", "4", "8", "2x2", "2x2@1gbit")
_SECONDS = 1.8  # of rounds for each point, on average
Rounds = Mapping[str, Sequence[float]]
Command = tuple[str, ...]


class Job(NamedTuple):
    """`hosts` with so many ranks `each`, joined by a cable held to `rate` where that is given."""

    hosts: int
    each: int
    rate: str

    @staticmethod
    def of(word: str) -> Job:
        match = re.fullmatch(r"(?:([2-4])x)?([1-9]\d*)(?:@(\w+))?", word, re.ASCII)
        if match is None or (match[3] and not match[1]) or (not match[1] and match[2] == "1"):
            raise UsageError(f"{word!r} is no job; write 4, 2x2 (hosts x ranks on each) or 2x2@1gbit")
        return Job(int(match[1] or 1), int(match[2]), match[3] or "")

    @contextmanager
    def launchers(self) -> Iterator[list[Command]]:
        """In the block: what starts a program as this job, one command for each host."""
        if self.hosts == 1:
            yield [tuple(collx_run(self.each))]
            return
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collx-hosts-")))
            hosts = stack.enter_context(joined(self.hosts, folder))
            if self.rate:
                stack.enter_context(hosts.shaped(self.rate))
            yield list(places(hosts, self.hosts * self.each))


# -- how much longer the choice takes ----------------------------------------------------------------


def behind(rounds: Rounds, choice: str, other: str, numbers: Sequence[int]) -> float:
    """Times as long as the other one: the median of the ratio within a round, as what drifts befalls both."""
    return statistics.median(rounds[choice][number] / rounds[other][number] for number in numbers)


def regret(rounds: Rounds, choice: str) -> float:
    """Times as long as the best candidate. Which one that is half of the rounds say, and how far behind it the choice
    is the other half: the best of several by the same noisy figures would seem better than it is."""
    count = len(rounds[choice])
    halves = [[number for number in range(count) if number % 2 == half] for half in (0, 1)]
    found = []
    for says, tells in (halves, halves[::-1]):
        best = max(rounds, key=lambda name: behind(rounds, choice, name, says))
        found.append(behind(rounds, choice, best, tells))
    return math.sqrt(math.prod(found))


def judged(point: Mapping[str, Any], before: str, after: str) -> dict[str, Any]:
    """A point with its rounds as figures: the median of each candidate, and the regret of both choices."""
    rounds: Rounds = point["rounds"]
    seconds = {name: float(f"{statistics.median(of):.4g}") for name, of in rounds.items()}
    sides = {
        side: {"choice": name, "regret": round(regret(rounds, name), 3)}
        for side, name in (("before", before), ("after", after))
    }
    return {
        "collective": point["collective"],
        "size": point["size"],
        "rounds": len(rounds[after]),
        "seconds": seconds,
        **sides,
    }


# -- measuring ---------------------------------------------------------------------------------------


def run(launchers: Sequence[Command], environ: Mapping[str, str], *command: object) -> None:
    """Run a program as a job; what rank 0 prints is shown. Raises CollxError where it fails."""
    words = [sys.executable, "-m", *map(str, command)]
    with ExitStack() as stack:
        running = [stack.enter_context(subprocess.Popen([*launcher, *words], env=environ)) for launcher in launchers]
        try:
            statuses = [process.wait() for process in running]
        finally:
            for process in running:
                process.terminate()  # `collx run` ends its ranks then
    if any(statuses):
        raise CollxError(f"{' '.join(words[2:])} ended with {', '.join(map(str, statuses))}")


def measure(
    word: str, seconds: float, tuning: float | None, tables: Path | None, collectives: str, most: str
) -> list[Any]:
    """Every point of a job, to `most` bytes. `tables`: where tuning tables are kept, and those that are there used."""
    with tempfile.TemporaryDirectory(prefix="collx-regret-") as name, Job.of(word).launchers() as launchers:
        folder, what = Path(name), ("--collectives", collectives, "-e", most)
        cache = tables / word if tables else folder / "cache"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("COLLX_")}
        untuned, tuned = clean | {"XDG_CACHE_HOME": str(folder / "none")}, clean | {"XDG_CACHE_HOME": str(cache)}
        run(launchers, untuned, "collx.perf.rounds", folder / "before", *what)
        if not list(cache.glob("collx/tuning/*")):
            run(launchers, tuned, "collx", "tune", "--quick", "-e", most, *(["--seconds", tuning] if tuning else []))
        also = ("--also", folder / "before", "--seconds", seconds)
        run(launchers, tuned, "collx.perf.rounds", folder / "after", *what, *also)
        before, after = (json.loads((folder / side).read_text()) for side in ("before", "after"))
    return [
        {"job": word}
        | judged(point, *(of["chosen"][point["collective"]][str(point["size"])] for of in (before, after)))
        for point in sorted(after["points"], key=lambda one: CARD.index(one["collective"]))
    ]


@program("collx.perf.regret")
def main(argv: list[str]) -> int:
    """The whole measurement. 0: measured; 1: something failed; 2: a mistake on the command line."""
    parser = Parser("collx.perf.regret", "What it costs to leave the choice to the selector.")
    add = parser.add_argument
    add("jobs", nargs="*", metavar="JOB", help=f"4, 2x2 or 2x2@1gbit ({' '.join(JOBS)})")
    add("--seconds", type=float, default=_SECONDS, help=f"of rounds for each point ({_SECONDS})")
    add("--tune-seconds", type=float, help="for collx tune (its own)")
    add("--collectives", default=",".join(CARD), help="with commas (the five card collectives)")
    add("-e", "--maxbytes", default="64M", help="largest size (64M)")
    add("--tables", type=Path, help="a folder in which tuning tables are kept, and used where they are there")
    add("--output", type=Path, help="write .md and .json of this name; other jobs that are in it stay")
    given = parser.parse_args(argv)
    if unknown := set(given.collectives.split(",")) - set(CARD):
        raise UsageError(f"--collectives: {', '.join(sorted(unknown))} not measured here; these are: {', '.join(CARD)}")
    if not given.seconds > 0 or (given.tune_seconds is not None and not given.tune_seconds > 0):
        raise UsageError("--seconds and --tune-seconds must be above 0")
    words = given.jobs or list(JOBS)
    for word in words:
        Job.of(word)
    if given.output and not given.output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {given.output}.md: no such directory")
    file = given.output.with_suffix(".json") if given.output else None
    points = json.loads(file.read_text())["points"] if file and file.exists() else []
    for word in words:
        print(f"# {word}", flush=True)
        start = time.monotonic()
        found = measure(word, given.seconds, given.tune_seconds, given.tables, given.collectives, given.maxbytes)
        points = [point for point in points if point["job"] != word] + found
        print("\n".join([*outlay.summary(found), "", f"after {time.monotonic() - start:.0f} s"]), flush=True)
        if file:
            document = {
                "host": machine.describe(),
                "revision": revision(),
                "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
                "seconds": given.seconds,
                "points": sorted(points, key=lambda point: (*Job.of(point["job"]),)),
            }
            file.write_text(json.dumps(document) + "\n")
            given.output.with_suffix(".md").write_text(outlay.page(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
