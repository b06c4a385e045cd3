"""PyTorch's own DistributedTest on a backend: `python tests/torch/suite.py collx 2 RESULTS.jsonl [PATTERN]`.

torch starts every test's ranks anew; here they are forked, from one process that has imported torch once. A test that
torch keeps for Gloo by comparing BACKEND runs on collx too: BACKEND is a text that equals both names.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

SECONDS = "60"  # that a test may take


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

    class OnBackend(theirs.TestDistBackend, theirs.DistributedTest._DistTestBase):
        def setUp(self) -> None:
            super().setUp()
            self._start_processes(torch.multiprocessing.get_context("fork").Process)

        def join_or_run(self, fn: Callable[[], object]) -> Any:
            def told() -> None:
                try:
                    fn()
                except unittest.SkipTest as skip:
                    Path(os.environ["TEMP_DIR"], "skipped").write_text(str(skip))
                    raise

            told.__wrapped__ = fn
            return super().join_or_run(told)

    return OnBackend


class Outcomes(unittest.TestResult):
    """What became of the last test."""

    outcome, why = "passed", ""

    def addSkip(self, test: Any, reason: str) -> None:
        self.outcome, self.why = "skipped", reason

    def addFailure(self, test: Any, error: Any) -> None:
        self.outcome, self.why = "failed", self._exc_info_to_string(error, test)

    addError = addFailure


def outcomes(tests: type[Any], pattern: str) -> Iterator[dict[str, Any]]:
    for name in unittest.TestLoader().getTestCaseNames(tests):
        if not fnmatch.fnmatch(name, pattern):
            continue
        result, start = Outcomes(), time.monotonic()
        unittest.TestSuite([tests(name)]).run(result)
        yield {"test": name, "outcome": result.outcome, "why": result.why, "seconds": time.monotonic() - start}


def main(backend: str, size: str, path: str, pattern: str = "*") -> None:
    with open(path, "w") as out:
        for told in outcomes(torch_tests(backend, int(size)), pattern):
            print(json.dumps(told), file=out, flush=True)
            print(told["outcome"], told["test"], told["why"].strip().splitlines()[-1:], file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
