"""Runs pylops-mpi's own tests on collx by `collx run --mpi4py`, beside real mpi4py on MPICH, in this same run.

make pylopstests                                        all of them, and their table in docs/mpi4py.md
python -m tests.mpi4py.pylops_tests -n 3                all of them, one size; the other's are kept
python -m tests.mpi4py.pylops_tests test_stack -n 2     one file, one size
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests import pages
from tests.launchers import Launcher
from tests.mpi4py import outcomes
from tests.mpi4py.outcomes import Outcome

FOLDER = Path(__file__).parents[2] / "build" / "pylops_mpi-0.8.0" / "tests"
MPICH = Launcher("mpich-pylops", "mpiexec")
SIZES = (2, 3)
HEADING = """\
## pylops-mpi's own tests

Those of pylops-mpi 0.8.0, unchanged, with the same packages by real mpi4py on MPICH and by collx in its place. A test
differs where it passes on one of them and not on the other."""
Outcomes = dict[str, Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mpi4py.pylops_tests", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="without any: all, for the page")
    parser.add_argument("-n", type=int, nargs="+", default=list(SIZES), help="ranks")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a test may take")
    asked = parser.parse_args(arguments)
    files = [f"{name}.py" for name in asked.files] or sorted(path.name for path in FOLDER.glob("test_*.py"))
    found = {size: _both(files, size, asked.limit) for size in asked.n}
    kept = {} if asked.files else _kept(found)
    if kept.keys() >= set(SIZES):
        text = "\n".join([HEADING, "", *_table(files, {size: kept[size] for size in SIZES})])
        pages.replace("mpi4py.md", "pylops-mpi's tests", "make pylopstests", text)
    return 1 if any(_differ(*both) for both in found.values()) else 0


def _kept(found: dict[int, tuple[Outcomes, Outcomes]]) -> dict[int, tuple[Outcomes, Outcomes]]:
    """These and those of sizes that were run before."""
    for size, both in found.items():
        text = json.dumps([{test: [each.result, each.reason] for test, each in of_all.items()} for of_all in both])
        (FOLDER.parent / f"outcomes-{size}.json").write_text(text)
    kept = {}
    for path in FOLDER.parent.glob("outcomes-*.json"):
        mpich, ours = ({test: Outcome(*each) for test, each in one.items()} for one in json.loads(path.read_text()))
        kept[int(path.stem.partition("-")[2])] = mpich, ours
    return kept


def _both(files: list[str], size: int, limit: float) -> tuple[Outcomes, Outcomes]:
    """What became of the tests of these files on MPICH, and on collx."""
    both = []
    for name, start in (("MPICH", MPICH.line), ("collx", partial(outcomes.shim, python=MPICH.python))):
        both.append(outcomes.outcomes_of(files, FOLDER, start, size, limit, outcomes.BY_PYTEST))
        print(f"{size} ranks on {name}: {_counts(both[-1])}", flush=True)
    mpich, ours = both
    for test in _differ(mpich, ours):
        print(f"    {test}: on MPICH {mpich.get(test)}, on collx {ours.get(test)}", flush=True)
    return mpich, ours


def _differ(mpich: Outcomes, ours: Outcomes) -> list[str]:
    def result(found: Outcomes, test: str) -> str:
        return found[test].result if test in found else "missing"

    return [test for test in (mpich | ours) if result(mpich, test) != result(ours, test)]


def _counts(found: Outcomes) -> str:
    counts = Counter(each.result for each in found.values())
    return ", ".join(
        f"{counts[result]} {result}" for result in ("passed", "failed", "hung", "skipped") if counts[result]
    )


def _table(files: list[str], found: dict[int, tuple[Outcomes, Outcomes]]) -> list[str]:
    lines = ["| file | ranks | on MPICH | on collx | tests that differ |", "|---|--:|---|---|--:|"]
    for name in [*files, ""]:
        for size, both in found.items():
            mpich, ours = ({test: each for test, each in of_all.items() if test.startswith(name)} for of_all in both)
            row = (name or "all", str(size), _counts(mpich), _counts(ours), str(len(_differ(mpich, ours))))
            lines.append(f"| {' | '.join(row)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
