"""The examples that train by torch.distributed: the same losses by collx as by Gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import jobs


def test_training_has_the_same_losses_by_collx_as_by_gloo(tmp_path: Path) -> None:
    program, losses = Path(__file__).with_name("training.py"), tmp_path / "losses.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", program, "30", losses]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200, env=jobs.CLEAN)
    assert done.returncode == 0, done.stderr
    found = json.loads(losses.read_text())
    assert found.keys() == {"torch_ddp", "torch_fsdp2", "torch_tensor_parallel", "torch_pipeline", "torch_moe"}
    for by_backend in found.values():
        assert by_backend["collx"] == pytest.approx(by_backend["gloo"], rel=1e-4)
        assert sum(by_backend["collx"][-5:]) < 0.9 * sum(by_backend["collx"][:5])
