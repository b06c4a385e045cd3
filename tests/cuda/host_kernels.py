"""The text that GPUs run, compiled for the host: what it computes, and where, can be tested without one."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from collx.cuda import kernels

BUILD = Path(__file__).parents[2] / "build" / "cuda"
# -O0: with -O1 it takes 12 s to compile instead of 3.
FLAGS = ["-std=c++17", "-O0", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-maybe-uninitialized"]

# What a GPU has and a host has not. The threads of a block run one after the other, so none may wait for a later one.
BEFORE = """
#include <sched.h>
#include <time.h>
#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
struct Index { unsigned x, y; };
static thread_local Index gridDim, blockDim, blockIdx, threadIdx;
static void host_pause() { sched_yield(); }
static unsigned long long host_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}
"""
AFTER = """
template <class Argument>
constexpr unsigned bytes_of(void (*)(Argument)) { return sizeof(Argument); }
template <class Argument>
static void launch(void (*kernel)(Argument), unsigned width, unsigned height, unsigned block, const void* bytes) {
    Argument argument;
    __builtin_memcpy(&argument, bytes, sizeof(argument));
    gridDim = {width, height};
    blockDim = {block, 1};
    for (blockIdx.y = 0; blockIdx.y < height; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < width; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < block; ++threadIdx.x) kernel(argument);
}
"""


def run(source: str, kernel: str, grid: tuple[int, int], block: int, arguments: bytes) -> None:
    """Run a kernel of `source`, which kernels.py made, to its end. The memory that it names must be mapped here."""
    if source != kernels.source([kernel]):
        raise ValueError(f"{kernel} runs from another source than collx.cuda.kernels makes of it")
    getattr(_loaded(), f"run_{kernel}")(*grid, block, arguments)


@cache
def _loaded() -> ctypes.CDLL:
    return ctypes.CDLL(str(library()))


def library() -> Path:
    """All kernels in one library, so that whoever uses one, in whatever process, compiles but once: of each
    `run_<kernel>`, and the bytes of its `argument_of_<kernel>`."""
    names = kernels.everything()
    calls = [
        f'extern "C" {{ unsigned argument_of_{name} = bytes_of({name});'
        f" void run_{name}(unsigned x, unsigned y, unsigned block, const void* argument)"
        f" {{ launch({name}, x, y, block, argument); }} }}"
        for name in names
    ]
    return built("\n".join([BEFORE, kernels.source(names), AFTER, *calls]), FLAGS)


def built(text: str, flags: Sequence[str]) -> Path:
    """The library that the compiler makes of C++, made once."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    command = [compiler, *flags, "-x", "c++", "-"]
    path = BUILD / f"{hashlib.sha256(repr((command, text)).encode()).hexdigest()[:16]}.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of a test come here at once
        if not path.exists():
            fresh = path.with_suffix(".fresh")
            subprocess.run([*command, "-o", str(fresh)], input=text.encode(), check=True)
            fresh.replace(path)
    return path
