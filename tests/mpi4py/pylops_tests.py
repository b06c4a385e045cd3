"""Runs pylops-mpi's own tests on collx by `collx run --mpi4py`, beside real mpi4py on MPICH, in this same run.

make pylopstests                                        all of them, and their table in docs/mpi4py.md
python -m tests.mpi4py.pylops_tests test_stack -n 2     one file, one size
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.launchers import Launcher
from tests.mpi4py import outcomes, page
from tests.mpi4py.outcomes import Outcome

FOLDER = Path(__file__).parents[2] / "build" / "pylops_mpi-0.8.0" / "tests"
MPICH = Launcher("mpich-pylops", "mpiexec")
SIZES = (2, 3)
Outcomes = dict[str, Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mpi4py.pylops_tests", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="without any: all, and then the page is written")
    parser.add_argument("-n", type=int, nargs="+", default=list(SIZES), help="ranks")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a test may take")
    asked = parser.parse_args(arguments)
    files = asked.files or sorted(path.stem for path in FOLDER.glob("test_*.py"))
    found = {(name, size): _both(name, size, asked.limit) for name in files for size in asked.n}
    if not asked.files and tuple(asked.n) == SIZES:
        page.replace("pylops-mpi's tests", "make pylopstests", "\n".join(_table(found)))
    return 1 if any(_differ(*both) for both in found.values()) else 0


def _both(name: str, size: int, limit: float) -> tuple[Outcomes, Outcomes]:
    """What became of the tests of a file on MPICH, and on collx."""
    ours, mpich = (
        outcomes.outcomes_of([f"{name}.py"], FOLDER, start, size, limit, outcomes.BY_PYTEST)
        for start in (partial(outcomes.shim, python=MPICH.python), MPICH.line)
    )
    print(f"{name} n={size}: on MPICH {_counts(mpich)}, on collx {_counts(ours)}", flush=True)
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
        f"{count} {result}" for result, count in sorted(counts.items(), key=lambda item: item[0] != "passed")
    )


def _table(found: dict[tuple[str, int], tuple[Outcomes, Outcomes]]) -> list[str]:
    lines = ["| file | ranks | on MPICH | on collx | tests that differ |", "|---|--:|---|---|--:|"]
    for (name, size), both in found.items():
        lines.append(f"| {name} | {size} | {' | '.join(map(_counts, both))} | {len(_differ(*both))} |")
    for size in SIZES:
        mpich, ours = ({t: o for (_, n), b in found.items() if n == size for t, o in b[i].items()} for i in (0, 1))
        lines.append(f"| all | {size} | {_counts(mpich)} | {_counts(ours)} | {len(_differ(mpich, ours))} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
