"""The cuda-bindings package itself, on a libcuda.so.1 of the host: that arguments arrive as CUDA has them, and results
come back."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests import jobs
from tests.cuda import host_kernels

# One text, in this order. Memory of a device is a file in memory, which other processes map by its handle; a stream is
# a thread; kernels are those of host_kernels, where the compiled ones have them too. What CUDA's documentation has
# refused is refused.
PARTS = ("abi", "objects", "devices", "memory", "streams", "kernels", "calls")
FLAGS = ["-std=c++17", "-O0", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
DEVICE = "from collx.transports.cuda.driver import driver; print(driver().device(1))"


@cache
def _libcuda() -> Path:
    folder = Path(__file__).with_name("libcuda")
    return host_kernels.built("\n".join((folder / f"{part}.cpp").read_text() for part in PARTS), FLAGS)


def _run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "libcuda.so.1").symlink_to(_libcuda())
    kernels = str(host_kernels.library())
    return jobs.finished(
        [sys.executable, *arguments], LD_LIBRARY_PATH=str(folder), COLLX_LIBCUDA_KERNELS=kernels, **environ
    )


def test_what_collx_relies_on_and_calls_in_every_mode(tmp_path: Path) -> None:
    done = _run(tmp_path, "-m", "tests.cuda.on_libcuda", COLLX_LIBCUDA_MPS="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_devices(tmp_path: Path) -> None:
    done = _run(tmp_path, "-c", DEVICE, COLLX_LIBCUDA_GPUS="2")
    assert done.stdout == (
        "Device(ordinal=1, uuid='GPU-01f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff', name='host 1', capability=(9, 0),"
        " multiprocessors=2, shared=False)\n"
    ), done.stderr


@pytest.mark.parametrize(("gpus", "said"), [("0", "no GPU: the NVIDIA driver"), ("1", "CUDA_ERROR_INVALID_DE")])
def test_what_is_missing_is_said(tmp_path: Path, gpus: str, said: str) -> None:
    done = _run(tmp_path, "-c", DEVICE, COLLX_LIBCUDA_GPUS=gpus)
    assert said in done.stderr.strip().rpartition("\n")[2]
