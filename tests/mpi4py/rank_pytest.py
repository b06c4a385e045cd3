"""One rank of a job that runs files of tests by pytest, and tells how each test went; see rank.py.

python -P rank_pytest.py FOLDER OUTCOMES LIMIT DONE FILE...
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest


class Recorder:
    """A plugin of pytest that writes what becomes of each test."""

    def __init__(self, lines: TextIO, limit: float, left_out: set[str]) -> None:
        self.lines, self.limit, self.left_out = lines, limit, left_out

    def write(self, test: str, outcome: str, reason: str = "") -> None:
        self.lines.write(json.dumps([test, outcome, reason]) + "\n")
        self.lines.flush()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.left_out]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(nodeid, "began")
        faulthandler.dump_traceback_later(self.limit, exit=True, file=2)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message.splitlines()[0][:200] if crash and crash.message else ""
            self.write(report.nodeid, report.outcome, reason)

    def pytest_runtest_logfinish(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    folder, outcomes, limit, done, *files = sys.argv[1:]
    os.chdir(folder)
    with (Path(outcomes) / f"{os.getpid()}.jsonl").open("w") as lines:
        recorder = Recorder(lines, float(limit), set(Path(done).read_text().splitlines()))
        # Its conftest.py does nothing but to name each test after its rank, in a way that ends a newer pytest.
        options = ["-q", "--with-mpi", "--noconftest", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
        code = pytest.main([*options, "--rootdir", folder, *files], plugins=[recorder])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            sys.exit(code)
        lines.write(json.dumps(["", "finished", ""]) + "\n")


if __name__ == "__main__":
    main()
