"""The comparison with Gloo through torch's API, at its smallest: steps of training take too long here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = [sys.executable, "-m", "collx.perf.torch_versus"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOOL, *words], capture_output=True, text=True, timeout=120)


def test_a_part_is_measured_and_added_to_what_is_there(tmp_path: Path) -> None:
    output = tmp_path / "torch"
    before = {"call": "broadcast", "dtype": "float32", "size": 4, "wrong": 0}
    figures = {"FAR": {"rounds": 3, "seconds": {"collx": 1e-6, "gloo": 1e-4}, "ratio": {"collx": {"gloo": 0.01}}}}
    points = [before | {"sync": figures, "async": figures}]
    output.with_suffix(".json").write_text(json.dumps({"load": 0, "points": points, "models": []}))
    words = ["--quick", "--calls", "all_gather", "--dtypes", "bfloat16", "--models="]
    result = run(*words, "--output", str(output))
    assert result.returncode == 0, result.stderr
    document = json.loads(output.with_suffix(".json").read_text())
    assert [(point["call"], point["size"], point["wrong"]) for point in document["points"]] == [
        ("all_gather", 4, 0),
        ("all_gather", 64 << 10, 0),
        ("broadcast", 4, 0),
    ]
    page = output.with_suffix(".md").read_text()
    assert "## broadcast" in page


def test_a_mistake_on_the_command_line_is_told_before_anything_is_measured() -> None:
    result = run("--calls", "allreduce")
    assert result.returncode == 2
    assert result.stderr == "collx.perf.torch_versus: unknown call for --calls 'allreduce'; did you mean all_reduce?\n"
