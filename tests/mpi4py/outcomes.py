"""Runs modules of tests on the ranks of a job, and what became of each test on all of them together."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import jobs

BY_UNITTEST, BY_PYTEST = (Path(__file__).with_name(name) for name in ("rank.py", "rank_pytest.py"))
ATTEMPTS = 12  # jobs per module: each but the last is ended by a test that hangs, which the next leaves out
WORST = ("failed", "passed", "skipped")  # of what ranks say, the first of these counts
LONGEST = 3600.0  # seconds, for a job
Start = Callable[[int], list[str]]  # the command that runs a Python script on so many ranks, but for the script


@dataclass(frozen=True, slots=True)
class Outcome:
    result: str  # passed, failed, skipped, hung (or ended its rank)
    reason: str = ""


def shim(ranks: int, python: str | Path = sys.executable) -> list[str]:
    """What starts a program of mpi4py on collx."""
    return [*jobs.RUN, "--mpi4py", "-n", str(ranks), "--tag", "off", "--", str(python)]


def outcomes_of(
    modules: Sequence[str], folder: Path, start: Start, ranks: int, limit: float, by: Path = BY_UNITTEST
) -> dict[str, Outcome]:
    """What became of every test of these modules of `folder`, by its name; a test may take `limit` seconds.

    A test that hangs or ends its rank ends the job; another goes on with the tests after it.
    """
    found: dict[str, Outcome] = {}
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as scratch:
            done, outcomes = Path(scratch, "done"), Path(scratch, "outcomes")
            done.write_text("\n".join(found))
            outcomes.mkdir()
            code, said = _job([*start(ranks), "-P", str(by), folder, outcomes, limit, done, *modules], scratch)
            files = [[json.loads(line) for line in path.read_text().splitlines()] for path in outcomes.iterdir()]
        seen = _together(files, ranks)
        found |= {test: each for test, each in seen.items() if each.result != "hung"}
        if code == 0 and len(files) == ranks and all(lines[-1][1] == "finished" for lines in files):
            return found
        hung = next((test for test, each in seen.items() if each.result == "hung"), "")
        found[hung or f"{modules[0]} (the job)"] = Outcome("hung", said)
        if not hung:
            return found  # there is nothing that could be left out
    found[f"{modules[0]} (the job)"] = Outcome("hung", f"given up, as {ATTEMPTS} tests hang")
    return found


def _job(command: Sequence[object], scratch: str) -> tuple[int, str]:
    """The exit code of a job that is run in `scratch`, and the last that it said."""
    with Path(scratch, "said").open("w+") as said:
        job = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=jobs.CLEAN | {"OMP_NUM_THREADS": "1"},
            cwd=scratch,
        )
        try:
            job.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            job.terminate()
            job.wait(timeout=jobs.DEADLINE)
        said.seek(0)
        return job.returncode, _last_words(said.read(), job.returncode)


def _together(files: list[list[list[str]]], ranks: int) -> dict[str, Outcome]:
    """Of what each rank wrote, what counts for all, in the tests' order."""
    by_test: dict[str, list[dict[str, str]]] = {}
    for lines in files:
        of_rank: dict[str, dict[str, str]] = {}
        for test, outcome, reason in lines:
            if outcome != "finished":
                of_rank.setdefault(test, {})
                if outcome != "began":
                    of_rank[test][outcome] = reason
        for test, results in of_rank.items():
            by_test.setdefault(test, []).append(results)
    together = {}
    for test, ranked in by_test.items():
        if len(ranked) < ranks or not all(ranked):
            together[test] = Outcome("hung")
            continue
        result = next(result for result in WORST if any(result in results for results in ranked))
        together[test] = Outcome(result, next(results[result] for results in ranked if result in results))
    return together


def _last_words(text: str, code: int) -> str:
    """Where ranks were when a test's time was up, or the last line of what the job said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Timeout (") for line in lines):
        places = [line for line in lines if line.startswith("File ")]
        return "time is up at " + (places[0] if places else "?")
    errors = [line for line in lines if "Error" in line]
    return f"exit code {code}: {(errors or lines or [''])[-1][:200]}"
