"""One rank of a job that runs modules of mpi4py's own tests and tells how each test went.

    python -P rank.py FOLDER OUTCOMES LIMIT DONE MODULE...

FOLDER has the modules. Each rank appends to a file of its own in OUTCOMES a line per test that begins and a line per
test that has ended, so that what is known outlives a rank that dies. A test that takes longer than LIMIT seconds ends
the rank, and so the job. Tests named in the file DONE are left out.

This is started in the environments of other MPIs too, so it imports nothing of collx.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any, TextIO


class Recorder(unittest.TestResult):
    """Writes what becomes of each test."""

    def __init__(self, lines: TextIO, limit: float) -> None:
        super().__init__()
        self.lines, self.limit = lines, limit

    def write(self, test: unittest.TestCase, outcome: str, reason: str = "") -> None:
        self.lines.write(json.dumps([test.id(), outcome, reason]) + "\n")
        self.lines.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        self.write(test, "began")
        faulthandler.dump_traceback_later(self.limit, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        faulthandler.cancel_dump_traceback_later()

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.write(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.write(test, "skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.write(test, "failed", _in_short(err[1]))

    addError = addFailure

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.write(test, "failed", _in_short(err[1]))


def _in_short(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tests(modules: list[str]) -> list[unittest.TestCase]:
    """All tests of the modules, in unittest's order."""

    def flat(suite: unittest.TestSuite) -> list[unittest.TestCase]:
        return [test for part in suite for test in (flat(part) if isinstance(part, unittest.TestSuite) else [part])]

    return flat(unittest.defaultTestLoader.loadTestsFromNames(modules))


def main() -> None:
    folder, outcomes, limit, done, *modules = sys.argv[1:]
    sys.path.insert(0, folder)
    sys.modules.update({"cupy": None, "numba": None})  # type: ignore[dict-item]
    importlib.import_module("mpi4py.MPI")
    left_out = set(Path(done).read_text().splitlines())
    with (Path(outcomes) / f"{os.getpid()}.jsonl").open("w") as lines:
        suite = unittest.TestSuite(test for test in _tests(modules) if test.id() not in left_out)
        suite.run(Recorder(lines, float(limit)))
        lines.write(json.dumps(["", "finished", ""]) + "\n")


if __name__ == "__main__":
    main()
