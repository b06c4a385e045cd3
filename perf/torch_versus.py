"""collx beside Gloo through torch's API: `make torchperf`, `python -m collx.perf.torch_versus`; needs collx[torch].

One job of two ranks, in which both are backends of process groups of the same processes and take turns at the same
calls, as libraries do in `peers.py`, and at training steps under DistributedDataParallel. A run may measure a part
of it all: what else the output has stays.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from collx.errors import CollxError
from collx.perf import machine
from collx.perf.options import UsageError, nbytes, nearest
from collx.perf.program import Parser, program
from collx.perf.rivals import collx_run
from collx.perf.torch_page import CALLS, DTYPES, MODELS, page, summary
from collx.perf.versus import revision

RANKS = 2
_SIZES = [4**power for power in range(1, 14)]  # 4 B to 64 MiB
_QUICK = [4, 64 << 10]


def measure(words: list[str]) -> dict[str, Any]:
    """What a job of `collx.perf.torch_rounds` finds. Raises CollxError where it fails."""
    with tempfile.TemporaryDirectory(prefix="collx-torch-") as folder:
        out = Path(folder) / "found"
        command = [*collx_run(RANKS), sys.executable, "-m", "collx.perf.torch_rounds", str(out), *words]
        status = subprocess.run(command).returncode
        if status:
            raise CollxError(f"the job ended with {status}")
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, the newer one where both have a point, in the page's order."""

    def place(point: dict[str, Any]) -> tuple[int, ...]:
        if "model" in point:
            return (MODELS.index(point["model"]),)
        return CALLS.index(point["call"]), DTYPES.index(point["dtype"]), point["size"]

    points = {place(point): point for point in (*old, *new)}
    return [points[key] for key in sorted(points)]


def _chosen(option: str, text: str, known: tuple[str, ...]) -> str:
    for word in filter(None, text.split(",")):
        if word not in known:
            raise nearest(option, word, known)
    return text


@program("collx.perf.torch_versus")
def main(argv: list[str]) -> int:
    """Measure, print, and write. 0: measured; 1: something failed or was wrong; 2: a mistake on the command line."""
    parser = Parser("collx.perf.torch_versus", "collx beside Gloo through torch's API, on two ranks.")
    add = parser.add_argument
    add("--calls", default=",".join(CALLS), help="with commas, '' for none (all)")
    add("--dtypes", default=",".join(DTYPES), help="with commas (float32,bfloat16)")
    add("-b", "--minbytes", default="4", help="smallest size (4)")
    add("-e", "--maxbytes", default="64M", help="largest size (64M)")
    add("--models", default=",".join(MODELS), help="with commas, '' for none (all)")
    add("--seconds", type=float, default=1.0, help="of rounds for each point (1)")
    add("--quick", action="store_true", help="two sizes, little time")
    add("--output", type=Path, help="write .md and .json of this name; what else is in it stays")
    given = parser.parse_args(argv)
    if given.output and not given.output.absolute().parent.is_dir():
        raise UsageError(f"cannot write {given.output}.md: no such directory")
    if not given.seconds > 0:
        raise UsageError("--seconds must be above 0")
    load = round(os.getloadavg()[0], 1)
    sizes = [size for size in _SIZES if nbytes(given.minbytes) <= size <= nbytes(given.maxbytes)]
    found = measure(
        [
            *("--calls", _chosen("call for --calls", given.calls, CALLS)),
            *("--dtypes", _chosen("dtype for --dtypes", given.dtypes, DTYPES)),
            *("--sizes", ",".join(map(str, _QUICK if given.quick else sizes))),
            *("--models", _chosen("model for --models", given.models, MODELS)),
            *("--seconds", str(0.01 if given.quick else given.seconds)),
        ]
    )
    file = given.output.with_suffix(".json") if given.output else None
    old: dict[str, Any] = {"load": 0, "points": [], "models": []}
    if file and file.exists():
        old = json.loads(file.read_text())
    document = {
        "host": machine.describe(),
        "torch": importlib.metadata.version("torch"),
        "revision": revision(),
        "load": max(load, old["load"]),
        "ended": time.strftime("%Y-%m-%d %H:%M"),
        **{key: merged(old[key], found[key]) for key in ("points", "models")},
    }
    print("\n".join(summary(document)))
    if file:
        file.write_text(json.dumps(document) + "\n")
        given.output.with_suffix(".md").write_text(page(document))
    return 1 if any(point["wrong"] for point in found["points"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
