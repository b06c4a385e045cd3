"""Ranks killed in the middle of a collective: who is told, when, and what is left."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import jobs

# The victim writes down when it dies, the others when they know; all read the same clock.
DYING = """
kind, victim, memory, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
comm = collx.init()
x = np.ones(100_000)
ballast = np.ones(memory // 8 if comm.rank == victim else 0)
calls = {
    "all_reduce": lambda: comm.all_reduce(x),
    "barrier": lambda: comm.barrier(),
    "broadcast": lambda: comm.broadcast(x, root=victim),
    "all_to_all": lambda: comm.all_to_all(np.ones(comm.size * 1000)),
    "recv": lambda: comm.sendrecv(x, (comm.rank + 1) % comm.size, x.copy(), (comm.rank - 1) % comm.size),
    "recv_any": lambda: comm.send(x[:9], (comm.rank + 1) % comm.size, async_op=True) and comm.recv_any(x),
    "async": lambda: comm.all_reduce(x, async_op=True).wait(),
}
try:
    for _ in range(10):
        calls[kind]()
    if comm.rank == victim:  # others may be behind it in messages
        with open(f"{folder}/died", "w") as file:
            file.write(str(time.monotonic()))
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        calls[kind]()
except collx.CollxError as error:
    with open(f"{folder}/{comm.rank}", "w") as file:
        file.write(f"{time.monotonic()} {type(error).__name__} {error}")
    raise
"""


@pytest.mark.parametrize("kind", ["all_reduce", "barrier", "broadcast", "all_to_all", "recv", "recv_any", "async"])
@pytest.mark.parametrize(("size", "victim"), [(2, 1), (4, 2)])
def test_the_others_are_told_within_a_second(tmp_path: Path, kind: str, size: int, victim: int) -> None:
    path = jobs.program(tmp_path, DYING)
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", size, "--keep-going", path, kind, victim, 0, tmp_path)
    assert done.returncode == 137
    died = float((tmp_path / "died").read_text())
    for rank in set(range(size)) - {victim}:
        told, name, text = (tmp_path / str(rank)).read_text().split(maxsplit=2)
        assert name in ("RankFailedError", "AbortedError")
        assert re.search(rf"\brank {victim} died", text)
        assert float(told) - died < 1.0


def test_a_large_victim_is_the_one_named(tmp_path: Path) -> None:
    """Its memory takes the kernel longer to free than the others take to fail of its death."""
    path = jobs.program(tmp_path, DYING)
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 3, path, "all_reduce", 1, 1 << 29, tmp_path)
    assert done.returncode == 137
    assert re.search(r"rank 1 \(pid \d+\) was killed by SIGKILL", done.stderr)


def test_spawn_names_the_killed_rank_within_a_second(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        def body(comm):
            comm.barrier()
            if comm.rank == 1:
                with open(sys.argv[1], "w") as file:
                    file.write(str(time.monotonic()))
                os.kill(os.getpid(), signal.SIGKILL)
            while True:
                comm.all_reduce(np.ones(1000))

        try:
            collx.spawn(body, 4)
        except collx.RankFailedError as error:
            print(f'[{time.monotonic() - float(open(sys.argv[1]).read())}, "{error}", {list(error.ranks)}]')
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 1, "--tag", "off", path, tmp_path / "died")
    seconds, text, ranks = json.loads(done.stdout)
    assert seconds < 1.0
    assert "was killed by SIGKILL" in text
    assert ranks == [1]


def test_a_rank_that_never_comes_is_listed_at_the_deadline(tmp_path: Path) -> None:
    path = jobs.program(
        tmp_path,
        """
        if os.environ["COLLX_RANK"] == "1":
            time.sleep(600)
        collx.init(timeout=0.5)
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        done = jobs.collx_run("-n", 3, path)
    assert done.returncode == 1
    assert "BootstrapError: rank 1 of 3 did not come within the timeout of init" in done.stderr
