"""Jobs where something is scarce or forbidden: they work, or end with one clear error."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import CLEAN, DEADLINE, RUN, program

MIB = 1 << 20
BODY = """
comm = collx.init(timeout=30)
for count in (2, 1000, 300_000):
    x = comm.empty(count, np.float32)
    x[...] = comm.rank
    for given in (x, x.copy()):
        assert (comm.all_reduce(given) == sum(range(comm.size))).all()
        assert (comm.all_gather(given, async_op=True).wait()[:count] == 0).all()
comm.sendrecv(x, (comm.rank + 1) % comm.size, x, (comm.rank - 1) % comm.size)
half = comm.split(comm.rank % 2)
y = half.empty(3, np.int64)
y[...] = 1
assert half.all_reduce(y).tolist() == [half.size] * 3
print("well")
"""
# As containers forbid it: an errno for the system calls that read another process's memory or descriptors.
FORBID = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
calls = {"x86_64": (101, 310, 311, 438), "aarch64": (117, 270, 271, 438)}[os.uname().machine]
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(calls) - at, 0, number) for at, number in enumerate(calls)]
code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Program(len(code), ctypes.addressof(filter))), 0, 0) == 0  # PR_SET_SECCOMP
assert libc.ptrace(16, os.getppid(), 0, 0) == -1 and ctypes.get_errno() == 1
"""


def job(
    folder: Path, text: str, limit: Callable[[], None] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Four ranks of a program, started with limits, or by another command."""
    return subprocess.run(
        [*before, *RUN, "-n", "4", str(program(folder, text))],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=CLEAN | {"OPENBLAS_NUM_THREADS": "1"},  # whose threads' stacks take more address space than all else
        preexec_fn=limit,
    )


def works(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:-1]) == [f"[{rank}] well" for rank in range(4)]
    assert done.stderr == ""


def only(name: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(name, (value, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 64 * MIB),
        (resource.RLIMIT_AS, 1024 * MIB),
    ],
    ids=["64 descriptors", "no locked memory", "no core", "files of 64 MiB", "1 GiB of addresses"],
)
def test_limited_jobs_work(tmp_path: Path, name: int, value: int) -> None:
    works(job(tmp_path, BODY, only(name, value)))


def test_a_job_that_may_not_look_into_other_processes_works(tmp_path: Path) -> None:
    works(job(tmp_path, FORBID + BODY))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount a small /dev/shm for the test"
)
def test_a_small_dev_shm_is_enough(tmp_path: Path) -> None:
    small = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; "$@" || exit 1; test -z "$(ls -A /dev/shm)"'
    done = job(tmp_path, BODY, before=("unshare", "-m", "sh", "-c", small, "sh"))
    if done.returncode == 77:
        pytest.skip("no mounting here: " + done.stderr.strip())
    works(done)


def test_too_small_files_are_one_error(tmp_path: Path) -> None:
    done = job(tmp_path, BODY, only(resource.RLIMIT_FSIZE, MIB))
    assert done.returncode == 1
    assert "TransportError: no " in done.stderr
    assert "shared memory to be had: File too large" in done.stderr


def test_too_little_address_space_for_an_array_is_one_error(tmp_path: Path) -> None:
    body = "comm = collx.init(timeout=30)\ncomm.empty(512 << 20, np.int8)"
    done = job(tmp_path, body, only(resource.RLIMIT_AS, 1024 * MIB))
    assert done.returncode == 1
    assert "MemoryError: rank " in done.stderr
    assert "no 536870912 bytes in one piece in this rank's heap" in done.stderr
    assert "ulimit -v" in done.stderr


def test_less_address_space_for_one_rank_is_one_error(tmp_path: Path) -> None:
    limit = (
        "if os.environ['COLLX_RANK'] == '2': import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30,) * 2)"
    )
    done = job(tmp_path, f"{limit}\n{BODY}")
    assert done.returncode == 1
    assert "TransportError: rank 2 of 4 cannot join world: no " in done.stderr
    assert "give all ranks the same, or a larger, `ulimit -v`" in done.stderr
