"""torch.distributed on collx, with ranks that no launcher started: they meet in a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import CLEAN, DEADLINE

PROGRAM = Path(__file__).with_name("checks.py")


@pytest.mark.parametrize("size", [2, 4])
def test_what_torch_calls(size: int, tmp_path: Path) -> None:
    names = re.findall(r"^def (\w+)\(group: Any\)", PROGRAM.read_text(), re.MULTILINE)
    store = tmp_path / "store"
    environ = CLEAN | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(rank), str(size), store],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for rank in range(size)
    ]
    try:
        told = [rank.communicate(timeout=2 * DEADLINE) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (out, errors) in zip(ranks, told, strict=True):
        assert out.split() == names, errors
        assert rank.returncode == (0 if rank is not ranks[-1] else -9), errors
