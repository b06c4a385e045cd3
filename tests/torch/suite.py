"""PyTorch's own DistributedTest on a backend: `python -m tests.torch.suite collx 2 RESULTS.jsonl [PATTERN ...]`.

torch starts every test's ranks anew; here they are forked, from one process that has imported torch once. A test that
torch keeps for Gloo by comparing BACKEND runs on collx too: BACKEND is a text that equals both names.
"""

from __future__ import annotations

import fnmatch
import json
import os
import socket
import sys
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

SECONDS = "60"  # that a test may take
REFUSED = {
    "test_monitored_barrier_gloo*": "torch.distributed.monitored_barrier refuses every backend but Gloo, by its name",
}  # tests that cannot run on another backend, whatever that does


class Either(str):
    """The backend's name, to which a test that asks for Gloo's listens as well."""

    def __eq__(self, other: object) -> bool:
        return other == "gloo" or str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def torch_tests(backend: str, size: int) -> type[Any]:
    """torch's test class for `backend` with `size` ranks, of which a process can have one."""
    os.environ.update(
        BACKEND=backend,
        WORLD_SIZE=str(size),
        TEMP_DIR="/tmp",
        DISTRIBUTED_TESTS_DEFAULT_TIMEOUT=SECONDS,
        OMP_NUM_THREADS="1",
        MASTER_PORT=str(free_port()),
    )
    import torch
    from torch.testing._internal import common_distributed as common

    import collx.compat.torch.group  # noqa: F401

    if backend != "gloo":
        for feature in ("ddp", "subgroup", "gpu", "cuda"):
            common.DistTestCases.backend_feature[feature].add(backend)
        common.DistTestCases.backend_feature["plugin"].add(backend)
    named = {**os.environ, "BACKEND": backend if backend == "gloo" else Either(backend)}
    with mock.patch.object(os, "environ", named):
        from torch.testing._internal.distributed import distributed_test as theirs

    class OnBackend(theirs.TestDistBackend, theirs.DistributedTest._DistTestBase):  # type: ignore[misc]
        def setUp(self) -> None:
            why = [reason for names, reason in REFUSED.items() if fnmatch.fnmatch(self._testMethodName, names)]
            if why and backend != "gloo":
                self.skipTest(why[0])
            super().setUp()
            self._start_processes(torch.multiprocessing.get_context("fork").Process)

        def _join_processes(self, fn: Callable[[], object]) -> None:
            try:
                super()._join_processes(fn)
            except unittest.SkipTest:
                told = Path(os.environ["TEMP_DIR"], "skipped")
                if told.exists():
                    raise unittest.SkipTest(told.read_text()) from None
                raise

        def join_or_run(self, fn: Callable[[], object]) -> Any:
            def told() -> None:
                try:
                    fn()
                except unittest.SkipTest as skip:
                    Path(os.environ["TEMP_DIR"], "skipped").write_text(str(skip))
                    raise

            told.__wrapped__ = fn  # type: ignore[attr-defined]  # by which torch knows some tests
            return super().join_or_run(told)

    return OnBackend


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class Outcome(unittest.TestResult):
    """What became of one test."""

    name, why = "passed", ""

    def addSkip(self, test: Any, reason: str) -> None:
        self.name, self.why = "skipped", reason

    def addError(self, test: Any, err: Any) -> None:
        self.name, self.why = "failed", str(err[1])

    addFailure = addError


def outcomes(tests: type[Any], patterns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in unittest.TestLoader().getTestCaseNames(tests):
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        result, start = Outcome(), time.monotonic()
        unittest.TestSuite([tests(name)]).run(result)
        yield {"test": name, "outcome": result.name, "why": result.why, "seconds": time.monotonic() - start}


def main(backend: str, size: str, path: str, *patterns: str) -> None:
    with open(path, "w") as out:
        for told in outcomes(torch_tests(backend, int(size)), patterns or ["*"]):
            print(json.dumps(told), file=out, flush=True)
            print(told["outcome"], told["test"], told["why"].strip().splitlines()[-1:], file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
