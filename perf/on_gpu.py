"""What collx does on the GPU of this machine: `make gpu`, or `python -m collx.perf.on_gpu first rest page`.

Writes perf/results/NAME.md and NAME.json, named by the device, after every sweep.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collx.perf.gpu_report import LATENCY, page
from collx.perf.options import UsageError
from collx.perf.program import Parser, program
from collx.perf.report import Document
from collx.perf.versus import revision

NO_MPS = "nvidia-cuda-mps-control is not here, or does not start"
MOST = 90  # seconds of a sweep
MODES, RANKS = "host,event,memop", (4, 2, 8)
_BRIEF = ["--seconds", "0.25", "-w", "5", "--iters", "20"]
_WHOLE = ["-b", str(LATENCY), "-e", "256M", "-f", "4"]
_COARSE = ["-b", str(LATENCY), "-e", "64M", "-f", "128"]
# Sweeps by part, the most telling first: what they are about (under MPS, or each rank doing its own work, or neither),
# and what `collx perf` is asked.
PARTS: dict[str, list[tuple[str, list[str]]]] = {
    "first": [("modes", ["all_reduce", "-n", str(ranks), "--sync", MODES, *_WHOLE]) for ranks in RANKS],
    "rest": [
        ("mps", ["all_reduce", "-n", "4", "--sync", f"{MODES},spin", *_WHOLE]),
        ("each", ["all_reduce", "-n", "4", "--sync", MODES, *_WHOLE]),
        *(
            ("modes", [name, "-n", "4", "--sync", MODES, *_COARSE])
            for name in ("reduce_scatter", "all_gather", "all_to_all", "broadcast")
        ),
        ("dtypes", ["all_reduce", "-n", "4", "-d", "bfloat16", *_COARSE]),
        ("mps", ["all_reduce", "-n", "8", "--sync", f"{MODES},spin", *_WHOLE]),
        ("mps", ["all_reduce", "-n", "2", "--sync", f"{MODES},spin", *_WHOLE]),
    ],
    "page": [],
}


def device() -> str:
    """The GPU's name, asked for by another process: this one's children are to use it."""
    look = "from collx.transports.cuda.driver import driver; print(driver().device(0).name)"
    asked = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    if asked.returncode:
        raise UsageError(asked.stderr.strip().rpartition("\n")[2].partition(": ")[2])
    return asked.stdout.strip()


def short(name: str) -> str:
    """`h200`, of `NVIDIA H200`."""
    words = [word for word in name.lower().split() if word != "nvidia"]
    return next((word for word in words if any(map(str.isdigit, word))), "gpu")


@contextmanager
def mps(wanted: bool) -> Iterator[dict[str, str]]:
    """In the block a daemon of our own lets kernels of several processes run at once; the environment that asks for it.
    Empty where it is not wanted, or this machine has none."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None or not wanted:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        asking = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        environment = os.environ | asking
        for path in asking.values():
            Path(path).mkdir()
        started = subprocess.run([control, "-d"], env=environment, stdout=subprocess.DEVNULL)
        try:
            yield {} if started.returncode else asking
        finally:
            subprocess.run([control], input="quit\n", text=True, env=environment, stdout=subprocess.DEVNULL, timeout=20)


def swept(arguments: list[str], environment: dict[str, str]) -> Document:
    """The document of one sweep; `failed` in it says why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.json")
        command = [sys.executable, "-m", "collx", "perf", *arguments, "--device", "cuda", *_BRIEF, "--json", str(path)]
        here = os.environ | environment
        try:
            done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, env=here, timeout=MOST)
        except subprocess.TimeoutExpired:
            return {"args": arguments, "failed": f"it took more than {MOST} s"}
        sys.stderr.write(done.stderr)
        if path.exists():
            document: Document = json.loads(path.read_text())
            return document
        said = [line for line in done.stderr.splitlines() if line.startswith("collx perf:")] or done.stderr.splitlines()
        return {"args": arguments, "failed": said[-1] if said else f"exit code {done.returncode}"}


class Results:
    """What has been measured so far, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / short(name)
        self.state: Document = {"device": name, "commit": revision(), "begun": time.strftime("%Y-%m-%d %H:%M")}
        self.state |= {"sweeps": [], "notes": []}

    def again(self) -> None:
        """Go on with what is there."""
        path = self._path.with_suffix(".json")
        if path.exists():
            self.state = json.loads(path.read_text())

    def write(self) -> None:
        self._path.with_suffix(".json").write_text(json.dumps(self.state) + "\n")
        self._path.with_suffix(".md").write_text(page(self.state))


@program("collx.perf.on_gpu")
def main(argv: list[str]) -> int:
    """Measure some parts; 0 where every sweep was right."""
    parser = Parser("collx.perf.on_gpu", __doc__)
    parser.add_argument("parts", nargs="+", choices=list(PARTS), help="what to measure, in this order")
    parser.add_argument("-o", "--output", type=Path, default=Path("perf/results"), help="folder (perf/results)")
    parser.add_argument("--note", action="append", default=[], help="a line for the end of the page")
    given = parser.parse_args(argv)
    if not given.output.is_dir():
        raise UsageError(f"cannot write into {given.output}: no such directory")
    results = Results(given.output, device())
    if "first" not in given.parts:
        results.again()
    results.state["notes"] += given.note
    status = False
    for what, arguments in (sweep for part in given.parts for sweep in PARTS[part]):
        with mps(what == "mps") as asking:
            document: Document = {"args": arguments, "failed": NO_MPS}
            if asking or what != "mps":
                document = swept(arguments, asking | ({"COLLX_CUDA_WORKERS": "each"} if what == "each" else {}))
        results.state["sweeps"].append({"what": what, "document": document})
        results.write()
        status |= "failed" in document or document["out_of_bounds"]["count"] > 0
    results.write()
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
