"""torch.distributed on collx, with ranks that no launcher started: they meet in a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import CLEAN, DEADLINE

HERE = Path(__file__).parent


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("module", ["checks", "endings"])
def test_what_torch_calls(module: str, size: int, tmp_path: Path) -> None:
    """Of `endings` the last rank does not come out alive."""
    names = re.findall(r"^def (\w+)\(group: Any\)", (HERE / f"{module}.py").read_text(), re.MULTILINE)
    store = tmp_path / "store"
    environ = CLEAN | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.torch.{module}", str(rank), str(size), store],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=HERE.parent.parent,
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
        assert rank.returncode == (-9 if module == "endings" and rank is ranks[-1] else 0), errors
