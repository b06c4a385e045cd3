"""Jobs on several hosts, by `collx run` on each and by what other launchers say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import jobs
from tests.hosts import ADDRESSES, ADDRESSES6, NAMES, PORT, Done, Hosts, finished, secret_file

WHERE = """
comm = collx.init(timeout=30)
total = comm.all_reduce(np.array([comm.rank]))[0]
print(comm.rank, comm.size, comm.local_rank, os.uname().nodename, *comm.hosts, total)
"""


TURNS = """
from collx.algorithms import ring

def flat(rank, size):
    return ring.all_reduce(rank, size)

def sent():  # of this host, over the cable
    line = next(line for line in open("/proc/net/dev") if line.strip().startswith("cable:"))
    return int(line.partition(":")[2].split()[8])

world = collx.init(timeout=30)
comm = world.split(0, key=2 * world.local_rank + (world.hosts[world.rank] != world.hosts[0]))
assert comm.hosts[0] == comm.hosts[2] != comm.hosts[1] == comm.hosts[3]
x = np.full(2 << 20, comm.rank + 1, np.float32)
for algorithm in (None, flat):
    comm.barrier()
    before = sent()
    result = comm.all_reduce(x, algorithm=algorithm)
    comm.barrier()
    assert (result == 10).all()
    print(round((sent() - before) / x.nbytes))
for algorithm in ("hierarchical", "leaders"):
    y = np.arange(1000) + comm.rank
    assert (comm.all_gather(y, algorithm=algorithm).reshape(4, -1) == np.arange(1000) + np.arange(4)[:, None]).all()
    assert (comm.reduce_scatter(np.tile(y, 4), algorithm=algorithm) == 4 * np.arange(1000) + 6).all()
    total = comm.reduce(y, root=1, algorithm=algorithm)
    assert total is None or (total == 4 * np.arange(1000) + 6).all()
    assert (comm.broadcast(y, root=3, algorithm=algorithm) == np.arange(1000) + 3).all()
comm.barrier(algorithm="hierarchical")
"""


def said(done: list[Done]) -> list[str]:
    """What the ranks of a job that ended well printed, without their tags."""
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * len(done)
    return sorted(re.sub(r"^\[\d+\] ", "", line) for one in done for line in one.stdout.splitlines())


def where(hosts: int, n: int) -> list[str]:
    size = hosts * n
    names = [NAMES[rank // n] for rank in range(size)]
    total = size * (size - 1) // 2
    return [" ".join(map(str, (r, size, r % n, names[r], *names, total))) for r in range(size)]


@pytest.mark.parametrize(
    ("n", "at"), [(2, f"tcp://alpha:{PORT}"), (1, f"{ADDRESSES[0]}:{PORT}"), (1, f"[{ADDRESSES6[0]}]:{PORT}")]
)
def test_one_command_on_each_of_two_hosts(two_hosts: Hosts, tmp_path: Path, n: int, at: str) -> None:
    path = jobs.program(tmp_path, WHERE)
    with jobs.nothing_left_behind(str(path)):
        assert said(two_hosts.collx_run(n, path, at=at)) == where(2, n)


def test_hosts_whose_ranks_take_turns(two_hosts: Hosts, tmp_path: Path) -> None:
    """What is chosen sends the buffer once to the other host; a ring in rank order three times."""
    path = jobs.program(tmp_path, TURNS)
    with jobs.nothing_left_behind(str(path)):
        assert said(two_hosts.collx_run(2, path)) == ["1"] * 4 + ["3"] * 4


def test_one_command_on_each_of_four_hosts(four_hosts: Hosts, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, WHERE)
    with jobs.nothing_left_behind(str(path)):
        assert said(four_hosts.collx_run(2, path)) == where(4, 2)


def test_two_shares_of_one_host(tmp_path: Path) -> None:
    """Which no root is needed for. They share memory, and count their ranks as they were told."""
    path = jobs.program(tmp_path, "comm = collx.init(); print(comm.rank, comm.size, comm.local_rank, *comm.transports)")
    share = [*jobs.RUN, "-n", "2", "--nnodes", "2", "--rendezvous", f"127.0.0.1:{free_port()}"]
    environ = jobs.CLEAN | {"COLLX_SECRET_FILE": str(secret_file(tmp_path))}
    running = [
        subprocess.Popen(
            [*share, "--node-rank", str(node), str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for node in range(2)
    ]
    assert said(finished(running)) == ["0 4 0 shm", "1 4 1 shm", "2 4 0 shm", "3 4 1 shm"]


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
        return port


def test_no_secret_is_refused_with_the_ways_to_give_one(two_hosts: Hosts) -> None:
    for done in two_hosts.collx_run(1, "true", COLLX_SECRET_FILE=""):
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        for way in ("--secret-file", "COLLX_SECRET_FILE", "COLLX_INSECURE=1"):
            assert way in done.stderr


def test_going_without_a_secret(two_hosts: Hosts, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, WHERE)
    assert said(two_hosts.collx_run(1, path, COLLX_SECRET_FILE="", COLLX_INSECURE="1")) == where(2, 1)


def test_ranks_that_do_not_come_are_listed(two_hosts: Hosts, tmp_path: Path) -> None:
    """And those that did. One that comes later finds nobody, and says so."""
    path = jobs.program(tmp_path, "collx.init(timeout=2)")
    share = [*jobs.RUN, "-n", 2, "--nnodes", 2, "--node-rank", 0, "--rendezvous", f"alpha:{PORT}"]
    secret = str(secret_file(tmp_path))
    (done,) = finished([two_hosts.start(0, *share, "--keep-going", path, COLLX_SECRET_FILE=secret)])
    assert done.returncode == 1
    errors = re.findall(r"^\[\d\] collx\.errors\.BootstrapError: (.*)$", done.stderr, re.MULTILINE)
    assert len(errors) == 2
    for error in errors:
        assert "ranks 2, 3 of 4 did not come within the timeout of init" in error
        assert re.search(r"rank 0 at \S+ \(cable\) on alpha; rank 1 at \S+ \(cable\) on alpha", error)
    share[share.index("--node-rank") + 1] = 1
    (done,) = finished([two_hosts.start(1, *share, "--keep-going", path, COLLX_SECRET_FILE=secret)])
    assert done.returncode == 1
    assert re.search(r"BootstrapError: rank 2 of 4 did not reach rank 0 at alpha:29400", done.stderr), done.stderr


def test_loopback_is_no_place_for_several_hosts(two_hosts: Hosts, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, "collx.init(timeout=1)")
    first, second = two_hosts.collx_run(1, path, at=f"127.0.0.1:{PORT}")
    assert "rank 1 of 2 did not come within the timeout of init" in first.stderr
    assert re.search(
        r"rank 1 of 2 did not reach rank 0 at 127\.0\.0\.1:29400 .*; by loopback a host reaches", second.stderr
    )


@pytest.mark.parametrize(
    ("node", "n", "message"),
    [(0, 2, "rank 0 of 4 cannot listen at|rank [01] .*(twice|here already)"), (1, 3, "has 6 ranks|of 6|6 ranks")],
    ids=["two-are-the-same", "other-size"],
)
def test_commands_that_do_not_belong_together(
    two_hosts: Hosts, tmp_path: Path, node: int, n: int, message: str
) -> None:
    path = jobs.program(tmp_path, "collx.init(timeout=3)")
    both = ((0, 0, 2), (node, node, n))
    running = []
    for host, number, ranks in both:
        share = ["-n", ranks, "--nnodes", 2, "--node-rank", number, "--rendezvous", f"alpha:{PORT}"]
        running.append(two_hosts.start(host, *jobs.RUN, *share, path, COLLX_SECRET_FILE=str(secret_file(tmp_path))))
    done = finished(running)
    assert all(one.returncode == 1 for one in done)
    assert re.search(message, "".join(one.stderr for one in done)), [one.stderr for one in done]


@pytest.mark.parametrize(
    ("ending", "code", "how"),
    [("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"), ("1 / 0", 1, "exited with code 1")],
)
def test_a_failure_ends_the_job_on_all_hosts_and_is_named(
    two_hosts: Hosts, tmp_path: Path, ending: str, code: int, how: str
) -> None:
    path = jobs.program(
        tmp_path,
        f"""
        comm = collx.init()
        comm.barrier()
        if comm.rank == 3:
            {ending}
        while True:
            comm.barrier()
        """,
    )
    with jobs.nothing_left_behind(str(path)):
        first, second = two_hosts.collx_run(2, path)
    assert (first.returncode, second.returncode) == (1, code)
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("collx run: ")]
    assert re.match(
        rf"collx run: rank 3 \(pid \d+\) {how}; ending the others|collx run: rank 3 \(pid \d+\) {how}", line
    )
    (line,) = [line for line in first.stderr.splitlines() if line.startswith("collx run: ")]
    assert re.match(r"collx run: rank [01] \(pid \d+\) exited with code 1, because of another: .*rank 3 ", line), line


@pytest.mark.parametrize("launcher", ["torch", "slurm", "kubernetes", "by-hand", "file", "tcp"])
def test_what_other_launchers_say(two_hosts: Hosts, tmp_path: Path, launcher: str) -> None:
    """Two ranks on the first host, one on the second."""
    meeting = {"tcp": f"tcp://alpha:{PORT}", "file": f"file://{tmp_path}/meet"}.get(launcher)
    path = jobs.program(
        tmp_path,
        f"""
        told = dict(init_method={meeting!r}, rank=int(sys.argv[1]), size=3) if {meeting is not None} else dict()
        comm = collx.init(timeout=30, **told)
        print(comm.rank, comm.size, comm.local_rank, os.uname().nodename, comm.all_reduce(np.ones(1))[0])
        """,
    )
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "alpha,beta",
    }
    running = []
    for rank, (host, local) in enumerate(((0, 0), (0, 1), (1, 0))):
        environ = {
            "torch": {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "alpha", "MASTER_PORT": "29500"},
            "slurm": slurm
            | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(host)}
            | {"SLURM_STEP_TASKS_PER_NODE": "2,1"},
            "kubernetes": {"JOB_COMPLETION_INDEX": str(rank), "COLLX_SIZE": "3", "COLLX_RENDEZVOUS": f"alpha:{PORT}"},
            "by-hand": {"COLLX_RANK": str(rank), "COLLX_SIZE": "3", "COLLX_RENDEZVOUS": f"tcp://{ADDRESSES[0]}:1024"},
        }.get(launcher, {})
        environ["COLLX_SECRET_FILE"] = str(secret_file(tmp_path))
        running.append(two_hosts.start(host, sys.executable, path, rank, **environ))
    assert said(finished(running)) == ["0 3 0 alpha 3.0", "1 3 1 alpha 3.0", "2 3 0 beta 3.0"]
