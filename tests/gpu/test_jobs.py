"""On GPUs: programs under `collx run`, ranks that die there, and `collx perf`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests import jobs
from tests.gpu.jobs import MODES

# The victim writes down when it dies, the others when they know; all read the same clock.
DYING = """
import cupy
folder = sys.argv[1]
comm = collx.init()
x, out = cupy.ones(100_000, "float32"), cupy.empty(100_000, "float32")
for _ in range(10):
    comm.all_reduce(x, out=out)
try:
    if comm.rank == 1:
        with open(f"{folder}/died", "w") as file:
            file.write(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        comm.all_reduce(x, out=out)
except collx.CollxError as error:
    with open(f"{folder}/{comm.rank}", "w") as file:
        file.write(f"{time.monotonic()} {type(error).__name__} {error}")
    if os.environ["COLLX_CUDA_SYNC"] != "event":  # whose waits are the driver's to end
        cupy.cuda.Device().synchronize()  # nothing is left that waits for who is gone
    raise
"""


@pytest.mark.parametrize("mode", MODES)
def test_the_others_are_told_of_a_rank_that_dies(tmp_path: Path, mode: str) -> None:
    path = jobs.program(tmp_path, DYING)
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 4, "--keep-going", path, tmp_path, COLLX_CUDA_SYNC=mode)
    assert done.returncode == 137, done.stderr
    died = float((tmp_path / "died").read_text())
    for rank in (0, 2, 3):
        told, name, text = (tmp_path / str(rank)).read_text().split(maxsplit=2)
        assert name in ("RankFailedError", "AbortedError")
        assert re.search(r"\brank 1 died", text)
        assert float(told) - died < 2.0


def test_a_small_program_runs_in_every_mode() -> None:
    for mode in MODES:
        done = jobs.collx_run("-n", 2, "--tag", "off", "-m", "tests.gpu.small", COLLX_CUDA_SYNC=mode)
        assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_a_sweep_is_right(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    command = [sys.executable, "-m", "collx", "perf", "all_reduce", "-n", "4", "--device", "cuda", "--sync"]
    sizes = ["-b", "8", "-e", "16M", "-f", "64", "-w", "2", "--iters", "5", "--json", str(path)]
    done = jobs.finished([*command, ",".join(MODES), *sizes])
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    assert document["out_of_bounds"]["count"] == 0
    assert document["gpus"]["sync"] == list(MODES)
