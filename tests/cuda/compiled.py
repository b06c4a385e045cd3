"""`make kernels`: every kernel compiled by NVRTC for the oldest and the newest GPUs that there are, without a GPU."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from cuda.bindings import nvrtc

from collx.cuda.kernels import SHORT, everything, signature, source
from collx.transports.cuda.compiler import OPTIONS

TARGETS = ("sm_70", "sm_80", "sm_90", "sm_100")
EXPECTED = "are deprecated"  # of sm_70, by the last NVRTC that compiles for it


class Built(NamedTuple):
    target: str
    kernels: int
    registers: int  # of the kernel that uses most
    spilled: int  # bytes of registers that did not fit
    complaints: list[str]


def built(targets: Sequence[str], kernels: Sequence[str]) -> Iterator[Built]:
    """What becomes of the kernels, by target. Raises RuntimeError with the log where NVRTC refuses them."""
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda target: _built(target, kernels), targets)


def _built(target: str, kernels: Sequence[str]) -> Built:
    program = _done(nvrtc.nvrtcCreateProgram(source(kernels).encode(), b"collx.cu", 0, [], []))
    options = [option.encode() for option in (f"--gpu-architecture={target}", "--ptxas-options=-v", *OPTIONS)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = b" " * _done(nvrtc.nvrtcGetProgramLogSize(program))
    _done(nvrtc.nvrtcGetProgramLog(program, log))
    said = log.rstrip(b"\0 ").decode(errors="replace")
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC does not compile the kernels for {target}:\n{said}")
    size = _done(nvrtc.nvrtcGetCUBINSize(program))
    assert size
    _done(nvrtc.nvrtcDestroyProgram(program))
    used = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    complaints = [line for line in said.splitlines() if "warning" in line and EXPECTED not in line]
    return Built(target, len(used), max(used), spilled, complaints)


def _done(answer: tuple[Any, ...]) -> Any:
    result, *values = answer
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC: {result.name}")
    return values[0] if values else None


def main() -> int:
    # One of each that do the same; long tables are read by the same code.
    kernels = list({signature(name): name for name in everything() if name.endswith(f"_{SHORT}")}.values())
    faults = 0
    for each in built(TARGETS, kernels):
        print(
            f"{each.target}: {each.kernels} kernels, at most {each.registers} registers, {each.spilled} bytes spilled"
        )
        print(*each.complaints, sep="\n", end="\n" if each.complaints else "")
        faults += len(each.complaints) + (each.spilled > 0) + (each.kernels < len(kernels))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
