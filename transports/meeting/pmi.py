"""PMI-1: the protocol, one line of text each way, by which Hydra (MPICH, Intel MPI) lets the ranks of a job that may be
on several hosts exchange short texts. Only what that takes."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping
from urllib.parse import quote, unquote

from collx.errors import BootstrapError


def exchange(text: str, environ: Mapping[str, str], deadline: float) -> list[str]:
    """Every rank's text, in rank order. Collective among the ranks of the job; `deadline` is of `time.monotonic`.

    Once in a job: the launcher hangs up on a rank that is done, and kills the job of one that ends without saying so.
    Raises BootstrapError where PMI_FD leads to no such launcher, or a text is too long for it, and at the deadline.
    """
    rank, size = int(environ["PMI_RANK"]), int(environ["PMI_SIZE"])
    with _Server(rank, environ["PMI_FD"], deadline) as server:
        server.ask("init", pmi_version="1", pmi_subversion="1")
        longest = int(server.ask("get_maxes", "vallen_max")) - 1
        value = "." + quote(text)  # Hydra takes no empty ones
        if len(value) > longest:
            raise BootstrapError(f"rank {rank}: a text of {len(value)} bytes, but PMI takes at most {longest}")
        space = server.ask("get_my_kvsname", "kvsname")
        server.ask("put", kvsname=space, key=f"collx-{rank}", value=value)
        server.ask("barrier_in")
        found = [server.ask("get", "value", kvsname=space, key=f"collx-{peer}") for peer in range(size)]
        server.ask("finalize")
    return [unquote(value[1:]) for value in found]


def abort(fd: int) -> None:
    """Have the launcher end the job, this process too. It needs not have been spoken to before."""
    with contextlib.suppress(OSError):  # it is ending already
        os.write(fd, b"cmd=abort exitcode=1\n")


class _Server:
    """The launcher's end of the line. Whoever inherited ours shares it, so that it stays as blocking as it was."""

    def __init__(self, rank: int, fd: str, deadline: float) -> None:
        self._rank, self._deadline = rank, deadline
        try:
            self._line = socket.socket(fileno=os.dup(int(fd)))
        except (OSError, ValueError) as error:
            raise BootstrapError(f"rank {rank}: PMI_FD is {fd!r}, which leads to no launcher: {error}") from None

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def ask(self, command: str, wanted: str = "cmd", **words: str) -> str:
        """A word of the answer. Raises BootstrapError where it is no success."""
        line = " ".join(f"{name}={word}" for name, word in {"cmd": command, **words}.items())
        try:
            self._line.sendall(f"{line}\n".encode())
            answer = self._read()
        except TimeoutError:
            raise self._failed(command, "not all ranks came to it within the timeout of init") from None
        except ConnectionError:
            raise self._failed(command, "the launcher has hung up, as on the second program of a job") from None
        found = dict(word.partition("=")[::2] for word in answer.split())
        if found.get("rc", "0") != "0" or wanted not in found:
            raise self._failed(command, f"the launcher answered {answer!r}")
        return found[wanted]

    def _read(self) -> str:
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        answer = b""
        while not answer.endswith(b"\n"):
            if not poll.poll(max(self._deadline - time.monotonic(), 0.0) * 1000):
                raise TimeoutError
            piece = self._line.recv(4096)
            if not piece:
                raise ConnectionResetError
            answer += piece
        return answer.decode(errors="replace").strip()

    def _failed(self, command: str, why: str) -> BootstrapError:
        return BootstrapError(f"rank {self._rank}: PMI's {command} failed: {why}")
