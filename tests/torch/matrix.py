"""Every program of PyTorch, by every launcher, on 2 and 4 ranks: `python -m tests.torch.matrix`, which writes the table
in docs/torch.md; with names of launchers, or of programs, these alone, and no table.

Lightning and Accelerate, which have an environment of their own, train by torchrun on the backend and on Gloo.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests import jobs, launchers, pages
from tests.torch.programs.__main__ import PROGRAMS

MODULE = "tests.torch.programs"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
LAUNCHERS = ("torchrun", "collx run", "mpirun")
SIZES = (2, 4)
TRAINERS = ("lightning", "accelerate")
LIMIT = 900.0  # seconds, for all programs in one job


def command(launcher: str, size: int, *arguments: str, python: str = sys.executable) -> list[str]:
    match launcher:
        case "torchrun":
            return [python, *TORCHRUN, str(size), *arguments]
        case "collx run":
            return [*jobs.RUN, "-n", str(size), *arguments]
    return launchers.MPIS[0].line(size, *arguments)


def finished(line: list[str], limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, capture_output=True, text=True, timeout=limit, env=jobs.CLEAN | ONE_THREAD)


def passed(output: str) -> list[str]:
    """The programs that did on all ranks what they should."""
    return [line.split("# passed ")[1].split()[0] for line in output.splitlines() if "# passed " in line]


def loss(trainer: str, backend: str, size: int) -> str:
    """What a trainer's program says of its loss."""
    python = str(launchers.ROOT / ".venvs" / "trainers" / "bin" / "python")
    job = finished(command("torchrun", size, "-m", f"{MODULE}.with_{trainer}", backend, python=python))
    told = [line for line in job.stdout.splitlines() if line.startswith("# loss ")]
    if job.returncode or not told:
        print(job.stdout[-2000:], job.stderr[-5000:], sep="\n", flush=True)
        return "failed"
    return told[0].split()[2]


def table(found: dict[tuple[str, int], list[str]], losses: dict[tuple[str, int], tuple[str, str]]) -> str:
    lines = [
        f"| program | {' | '.join(f'{launcher}, {size}' for launcher, size in found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    for program in PROGRAMS:
        ends = ("passed" if program in names else "**failed**" for names in found.values())
        lines.append(f"| `{program}` | {' | '.join(ends)} |")
    lines += ["", "| trainer, ranks | loss on collx | loss on Gloo |", "|---|---|---|"]
    lines += [f"| {trainer}, {size} | {ours} | {gloo} |" for (trainer, size), (ours, gloo) in losses.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torch.matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="launchers, and programs; without any: all, and the table is written")
    names = parser.parse_args(arguments).names
    by = [name for name in LAUNCHERS if name in names] or LAUNCHERS
    programs = [name for name in PROGRAMS if name in names] or PROGRAMS
    found: dict[tuple[str, int], list[str]] = {}
    for launcher in by:
        for size in SIZES:
            job = finished(command(launcher, size, "-m", MODULE, "--keep-going", *programs))
            found[launcher, size] = ended = passed(job.stdout)
            failed = [name for name in programs if name not in ended]
            print(f"{launcher}, {size} ranks: {len(ended) - 1} passed, failed: {failed or 'none'}", flush=True)
            if failed or job.returncode:
                print(job.stdout[-2000:], job.stderr[-8000:], sep="\n", flush=True)
    losses: dict[tuple[str, int], tuple[str, str]] = {}
    if not names:
        for trainer in TRAINERS:
            for size in SIZES:
                losses[trainer, size] = ours, gloo = loss(trainer, "collx", size), loss(trainer, "gloo", size)
                print(f"{trainer}, {size} ranks: loss {ours} on collx, {gloo} on Gloo", flush=True)
        pages.replace("torch.md", "programs by launcher", "make torchprograms", table(found, losses))
    right = all(set(programs) <= set(ended) for ended in found.values())
    return 0 if right and all(ours == gloo != "failed" for ours, gloo in losses.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
