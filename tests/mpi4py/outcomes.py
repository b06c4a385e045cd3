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
from tests.launchers import MPIS

RANK = Path(__file__).with_name("rank.py")
ATTEMPTS = 12  # jobs per module: each but the last is ended by a test that hangs, which the next leaves out
WORST = ("failed", "passed", "skipped")  # of what ranks say, the first of these counts


@dataclass(frozen=True, slots=True)
class Outcome:
    result: str  # passed, failed, skipped, hung (or ended its rank)
    reason: str = ""


def shim(ranks: int) -> list[str]:
    """What starts a program of mpi4py on collx."""
    return [*jobs.RUN, "--mpi4py", "-n", str(ranks), "--tag", "off", "--"]


def mpich(ranks: int) -> list[str]:
    """What starts one on MPICH."""
    return MPIS[1].line(ranks)[:-1]


def python(start: Callable[[int], list[str]]) -> str:
    return str(MPIS[1].python) if start is mpich else sys.executable


def outcomes_of(
    modules: Sequence[str], folder: Path, start: Callable[[int], list[str]], ranks: int, limit: float
) -> dict[str, Outcome]:
    """What became of every test of these modules of `folder`, by its name; a test may take `limit` seconds.

    A test that hangs or ends its rank ends the job; another goes on with the tests after it.
    """
    found: dict[str, Outcome] = {}
    for _ in range(ATTEMPTS):
        seen, finished, said = _job(modules, folder, start, ranks, limit, list(found))
        found |= {test: each for test, each in seen.items() if each.result != "hung"}
        if finished:
            return found
        hung = next((test for test, each in seen.items() if each.result == "hung"), "")
        found[hung or f"{modules[0]} (the job)"] = Outcome("hung", said)
        if not hung:
            return found  # nothing that could be left out
    found[f"{modules[-1]} (the rest)"] = Outcome("hung", f"{ATTEMPTS} tests hang: given up")
    return found


def _job(
    modules: Sequence[str],
    folder: Path,
    start: Callable[[int], list[str]],
    ranks: int,
    limit: float,
    left_out: list[str],
) -> tuple[dict[str, Outcome], bool, str]:
    """The outcomes of one job, whether it came to its end, and the last that it said."""
    with tempfile.TemporaryDirectory() as scratch:
        done = Path(scratch, "done")
        done.write_text("\n".join(left_out))
        outcomes = Path(scratch, "outcomes")
        outcomes.mkdir()
        command = [*start(ranks), python(start), RANK, folder, outcomes, limit, done, *modules]
        environ = jobs.CLEAN | {"OMP_NUM_THREADS": "1"}
        with Path(scratch, "said").open("w+") as said:
            job = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environ,
                cwd=scratch,
            )
            try:
                job.wait(timeout=600)
            except subprocess.TimeoutExpired:
                job.terminate()
                job.wait(timeout=jobs.DEADLINE)
            said.seek(0)
            text = said.read()
        files = [[json.loads(line) for line in path.read_text().splitlines()] for path in outcomes.iterdir()]
    finished = len(files) == ranks and all(lines and lines[-1][1] == "finished" for lines in files)
    return _together(files, ranks), finished and job.returncode == 0, _last_words(text, job.returncode)


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
