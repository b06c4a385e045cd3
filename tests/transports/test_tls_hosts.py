"""TLS between two hosts: the ranks of both work together, and what becomes of them where a host is cut off."""

from __future__ import annotations

from pathlib import Path

from tests import jobs
from tests.hosts import NAMES, PORT, Hosts, finished, secret_file
from tests.programs import FEWER, FOLDER, passed

CUT_OFF = """
comm = collx.init(timeout=60)
comm.all_reduce(np.ones(1000))
if comm.rank == 0:
    print("begun", flush=True)
try:
    while True:
        comm.all_reduce(np.ones(1000))
except collx.RankFailedError as error:
    print(f"lost {error.ranks}", flush=True)
"""


def test_ranks_of_two_hosts_work_together(two_hosts: Hosts) -> None:
    programs = ("all_reduce", "groups", "point_to_point")
    done = two_hosts.collx_run(2, "--tls", "--tag", "off", "python", FOLDER, *programs, *FEWER)
    assert [host.returncode for host in done] == [0, 0], done
    assert passed(done[0].stdout).keys() == set(programs)


def test_a_host_that_is_cut_off_is_told_before_any_deadline(faulty_hosts: Hosts, tmp_path: Path) -> None:
    path = jobs.program(tmp_path, CUT_OFF)
    share = (*jobs.RUN, "-n", 1, "--nnodes", 2, "--rendezvous", f"{NAMES[0]}:{PORT}", "--tls", "--tag", "off")
    secret = str(secret_file(tmp_path))
    running = [faulty_hosts.start(n, *share, "--node-rank", n, path, COLLX_SECRET_FILE=secret) for n in range(2)]
    assert running[0].stdout is not None
    assert running[0].stdout.readline() == "begun\n"
    with faulty_hosts.cut_off(1):
        done = finished(running)
    assert [host.stdout for host in done] == ["lost (1,)\n", "lost (0,)\n"], done
