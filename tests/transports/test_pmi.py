"""The PMI-1 client: against Hydra itself, and against launchers that misbehave."""

from __future__ import annotations

import ast
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import collx
from collx.transports.meeting import pmi
from tests import jobs
from tests.launchers import MPIS

MPICH = MPIS[1]
TEXTS = ["", "tcp://10.0.0.1:80/?a=b c%20", "two\nlines", "é"]
EXCHANGE = f"""
from collx.transports.meeting import pmi
rank = int(os.environ["PMI_RANK"])
found = pmi.exchange({TEXTS!r}[rank % {len(TEXTS)}], os.environ, time.monotonic() + {jobs.DEADLINE})
os.write(1, (repr(found) + "\\n").encode())
"""


@pytest.mark.parametrize("hosts", [(), ("-launcher", "fork", "-hosts", "localhost:2,127.0.0.1:3")])
@pytest.mark.parametrize("size", [1, 5])
def test_every_rank_gets_everybodys_text(size: int, hosts: tuple[str, ...], tmp_path: Path) -> None:
    """Also where the ranks have two servers, as on two hosts; and the job ends well."""
    path = jobs.program(tmp_path, EXCHANGE)
    launcher, *rest = MPICH.line(size, path)
    done = MPICH.run(size, path) if not hosts else jobs.finished([launcher, *hosts, *rest])
    assert done.returncode == 0, done.stderr
    found = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert found == [[TEXTS[rank % len(TEXTS)] for rank in range(size)]] * size


def test_a_second_program_of_a_job_is_told_why_not(tmp_path: Path) -> None:
    path = jobs.program(tmp_path, EXCHANGE)
    *launch, python = MPICH.line(2)
    done = jobs.finished([*launch, "sh", "-c", f"{python} {path} && {python} {path}"])
    assert done.returncode != 0
    assert "PMI's init failed: the launcher has hung up, as on the second program of a job" in done.stderr


@contextmanager
def launcher(answer: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """The variables of rank 0 of 2, whose launcher gives these answers; it hangs up for an empty one."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with ours, ours.makefile("rw") as lines:
            for line in lines:
                if not (text := answer(line.split()[0].removeprefix("cmd="))):
                    return
                lines.write(text)
                lines.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    with theirs:
        yield {"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": str(theirs.fileno())}
        theirs.shutdown(socket.SHUT_RDWR)
    thread.join()


ANSWERS = {
    "init": "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n",
    "get_maxes": "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=16\n",
    "get_my_kvsname": "cmd=my_kvsname kvsname=kvs_1_0\n",
    "put": "cmd=put_result rc=0 msg=success\n",
    "barrier_in": "cmd=barrier_out\n",
    "get": "cmd=get_result rc=0 msg=success value=.here\n",
    "finalize": "cmd=finalize_ack\n",
}


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        (
            "init",
            "cmd=response_to_init rc=-1\n",
            "PMI's init failed: the launcher answered 'cmd=response_to_init rc=-1'",
        ),
        ("put", "cmd=put_result rc=-1 msg=duplicate_key\n", "PMI's put failed"),
        ("get", "cmd=get_result rc=-1 msg=key_not_found value=unknown\n", "PMI's get failed"),
        ("get_maxes", "cmd=maxes vallen_max=5\n", "a text of 6 bytes, but PMI takes at most 4"),
        ("barrier_in", "", "PMI's barrier_in failed: the launcher has hung up"),
        ("barrier_in", "cmd=barrier", "PMI's barrier_in failed: not all ranks came to it within the timeout of init"),
        ("get_my_kvsname", "\xff\n", "PMI's get_my_kvsname failed"),
    ],
)
def test_a_launcher_that_fails_is_one_error(command: str, answer: str, said: str) -> None:
    with launcher(lambda asked: answer if asked == command else ANSWERS[asked]) as environ:
        with pytest.raises(collx.BootstrapError) as caught:
            pmi.exchange("hello", environ, time.monotonic() + 0.2)
        assert f"rank 0: {said}" in str(caught.value)


def test_the_line_stays_as_it_was() -> None:
    """Others that share it, an MPI among them, expect it to block."""
    with launcher(ANSWERS.__getitem__) as environ:
        assert pmi.exchange("hello", environ, time.monotonic() + jobs.DEADLINE) == ["here", "here"]
        assert os.get_blocking(int(environ["PMI_FD"]))


def test_the_launcher_is_told_to_end_the_job() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pmi.abort(theirs.fileno())
        assert ours.recv(100) == b"cmd=abort exitcode=1\n"
        ours.close()
        pmi.abort(theirs.fileno())  # that it has gone is no error


@pytest.mark.parametrize("fd", ["x", "1000000"])
def test_a_line_that_leads_nowhere(fd: str) -> None:
    with pytest.raises(collx.BootstrapError, match=f"PMI_FD is '{fd}', which leads to no launcher"):
        pmi.exchange("", {"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_FD": fd}, time.monotonic())
