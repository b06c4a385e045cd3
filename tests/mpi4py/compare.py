"""Runs mpi4py's own tests on collx by `collx run --mpi4py`, beside what became of them with real mpi4py on MPICH.

make mpi4pytests                                   all of it, the tables of docs/mpi4py.md, and are the goals met
python -m tests.mpi4py.compare test_cco_buf -n 2   one module, one size, what differs
python -m tests.mpi4py.compare --remake            runs them all on MPICH again, and keeps what became of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.launchers import MPIS
from tests.mpi4py import modules, outcomes, page

FOLDER = Path(__file__).parents[2] / "build" / "mpi4py-4.1.2" / "test"
MPICH = MPIS[1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mpi4py.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="all of them without any; the page is written where all with a goal are run",
    )
    parser.add_argument("-n", type=int, nargs="+", choices=modules.SIZES, default=list(modules.SIZES), help="ranks")
    parser.add_argument("--limit", type=float, default=30, help="seconds that a test may take")
    parser.add_argument("--remake", action="store_true", help="run them on MPICH, and keep what becomes of them")
    asked = parser.parse_args(arguments)
    if not FOLDER.is_dir():
        parser.error(f"{FOLDER} is missing; `make build/mpi4py-4.1.2/test` brings it")
    if unknown := [module for module in asked.modules if module not in modules.EVERY]:
        parser.error(f"no modules of mpi4py's tests, or none that are run: {' '.join(unknown)}")
    chosen = [(module, size) for module in asked.modules or modules.EVERY for size in asked.n]
    if asked.remake:
        _remake(chosen, asked.limit)
        return 0
    results = [_result(module, size, asked.limit) for module, size in chosen if modules.on_mpich(module, size)]
    if {(module, size) for module in modules.GOALS for size in modules.SIZES} <= set(chosen):
        page.write(results)
    missed = [each for each in results if not each.meets]
    for each in missed:
        print(f"under its goal: {each.module} with n = {each.size}: {each.kept} of {each.wanted}")
    return 1 if missed else 0


def _result(module: str, size: int, limit: float) -> page.Result:
    found = outcomes.outcomes_of([module], FOLDER, outcomes.shim, size, limit)
    result = page.Result(module, size, modules.on_mpich(module, size), found)
    print(f"{module} n={size}: {result.kept} of {result.wanted} that pass on MPICH", flush=True)
    jobs = {test: outcome for test, outcome in found.items() if test.endswith("(the job)")}
    for test, outcome in (result.lost | jobs).items():
        print(f"    {test}: {outcome.result}: {outcome.reason}", flush=True)
    return result


def _remake(chosen: Sequence[tuple[str, int]], limit: float) -> None:
    ask = (
        "import mpi4py; from mpi4py import MPI; name, version = MPI.get_vendor();"
        "print(mpi4py.__version__); print(name, '.'.join(map(str, version)))"
    )
    command = [str(MPICH.python), "-c", ask]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for module, size in chosen:
        found = outcomes.outcomes_of([module], FOLDER, MPICH.line, size, limit)
        modules.keep({"mpi4py": said[0], "MPI": said[1]}, module, size, found)
        passed = sum(each.result == "passed" for each in found.values())
        print(f"{module} n={size}: {passed} of {len(found)} pass on MPICH", flush=True)


if __name__ == "__main__":
    sys.exit(main())
