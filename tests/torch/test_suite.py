"""What runs torch's own tests and tells of them; all of them are run by `make torchtests`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.jobs import CLEAN, DEADLINE
from tests.torch.page import End, page, reason

SOME = (
    "test_all_reduce_sum",
    "test_barrier_timeout_full_group",
    "test_sparse_all_reduce_sum",
    "test_send_recv_any_source",
)


def test_some_of_torchs_own_tests(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "tests.torch.suite", "collx", "2", str(results), *SOME]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE, env=CLEAN, cwd=root)
    told = [json.loads(line) for line in results.read_text().splitlines()]
    assert {each["test"]: each["outcome"] for each in told} == dict.fromkeys(SOME, "passed"), run.stderr


def test_the_page_tells_what_differs_and_why() -> None:
    gloo = {"test_a": End("passed", ""), "test_b": End("failed", "NameError: x"), "test_c": End("skipped", "no GPU")}
    ours = gloo | {"test_a": End("failed", "ValueError: a|b")}
    text = page(
        {(backend, size): ends for size in (2, 4) for backend, ends in (("gloo", gloo), ("collx", ours))}, "2.13"
    )
    assert "| 2 | collx | 0 | 2 | 1 |" in text
    assert r"| `test_a` | passed | failed | `ValueError: a\|b` |" in text
    assert "| `test_b` | `NameError: x` |" in text
    assert "| no GPU | 1 | 1 |" in text


def test_an_error_is_told_in_its_last_line() -> None:
    why = "Traceback\ncollx.errors.TimeoutError: late\nTo execute this test, run\nValueError: of gloo\n\nThis message"
    assert reason(why) == "ValueError: of BACKEND"
    assert reason("no GPU") == "no GPU"
