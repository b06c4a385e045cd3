"""Where the ranks of a launcher's job meet. On one host that is a directory whose name all of them can tell, and nobody
else has; between hosts an address that all of them can tell. What identifies the job depends on the launcher."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import struct
import tempfile
from collections.abc import Mapping

from collx.errors import BootstrapError

MEETING = "COLLX_RENDEZVOUS"
FORMS = "tcp://HOST:PORT, file:///PATH or unix:/DIRECTORY"
_ADDRESS = re.compile(r"(?:tcp://)?(\[[^\[\]]+\]|[^\[\]:/]+):(\d{1,5})/?", re.ASCII)
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
PORTS = range(61001, 65536)  # above those that Linux takes for connections


def full_name(meeting: str) -> str:
    """A meeting place in its full form; "" for what is none."""
    kind, _, path = meeting.partition(":")
    if kind in ("unix", "job") and path.startswith("/"):
        return meeting
    if kind == "file" and re.match("///[^/]", path):
        return meeting
    found = _ADDRESS.fullmatch(meeting)
    return f"tcp://{found[1]}:{found[2]}" if found is not None and 0 < int(found[2]) < 1 << 16 else ""


def is_directory(meeting: str) -> bool:
    return meeting.startswith(("unix:", "job:"))


def is_loopback(meeting: str) -> bool:
    """Whether only ranks of one host can meet at this address."""
    found = _ADDRESS.fullmatch(meeting)
    return found is not None and _LOOPBACK.fullmatch(found[1]) is not None


def told(environ: Mapping[str, str]) -> str:
    """What `collx run` tells, or whoever sets its variables by hand."""
    meeting = full_name(environ[MEETING])
    if not meeting:
        raise BootstrapError(f"{MEETING} is {environ[MEETING]!r}, but must be {FORMS}")
    return meeting


def told_here(environ: Mapping[str, str]) -> str:
    meeting = told(environ)
    return meeting if is_directory(meeting) else _directory("told", meeting)


def open_mpi(environ: Mapping[str, str]) -> str:
    """PMIx's name for the job, and where this host's server listens: a name may come again, as it has a pid in it."""
    servers = (environ[name] for name in sorted(environ) if name.startswith("PMIX_SERVER_URI"))
    return _directory("open-mpi", environ["PMIX_NAMESPACE"], *servers)


def hydra(environ: Mapping[str, str]) -> str:
    """The process at the other end of PMI_FD, which starts this host's ranks of one job; when it started tells it from
    those that had its pid before."""
    try:
        with socket.socket(fileno=os.dup(int(environ["PMI_FD"]))) as launcher:
            pid, _, _ = struct.unpack("3i", launcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with open(f"/proc/{pid}/stat", "rb") as stat:
            started = stat.read().rpartition(b")")[2].split()[19]
    except OSError as error:
        raise BootstrapError(
            f"PMI_FD is {environ['PMI_FD']!r}, but does not lead to the launcher ({error}); start the program by the "
            "launcher itself, not by a process that closes descriptors (subprocess: pass close_fds=False)"
        ) from error
    return _directory("hydra", str(pid), started.decode())


def torch_here(environ: Mapping[str, str]) -> str:
    """What torch's own ranks meet by. A job that torchrun has restarted is another one."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return _directory("torch", *(environ.get(name, "") for name in names))


def torch(environ: Mapping[str, str]) -> str:
    """At MASTER_PORT rank 0 listens; or torchrun does, whose store then tells where rank 0 is."""
    host, port = environ["MASTER_ADDR"], environ["MASTER_PORT"]
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    meeting = full_name(f"{host}:{port}")
    if not meeting:
        raise BootstrapError(f"MASTER_ADDR and MASTER_PORT are {host!r} and {port!r}, but must be a host and a port")
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return f"torch{meeting.removeprefix('tcp')}/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return meeting


def slurm_here(environ: Mapping[str, str]) -> str:
    return _directory("slurm", *_slurm_step(environ))


def slurm(environ: Mapping[str, str]) -> str:
    """The step's first host, which has rank 0, and a port that the step's numbers give."""
    nodes = environ["SLURM_STEP_NODELIST"]
    found = re.match(r"(?:[^,\[\]]|\[[^\[\]]+\])+", nodes)
    if found is None:
        raise BootstrapError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no host")
    first = re.sub(r"\[([^,\-\]]+)[^\]]*\]", r"\1", found[0])  # node[07-09,12] has node07 first
    return f"tcp://{first}:{PORTS[int(_digest(*_slurm_step(environ)), 16) % len(PORTS)]}"


def _slurm_step(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Slurm's numbers of job and step; a job that was put back into the queue has had them before."""
    restarts = environ.get("SLURM_RESTART_COUNT", "0")
    cluster = environ.get("SLURM_CLUSTER_NAME", "")
    return cluster, environ["SLURM_JOB_ID"], restarts, environ["SLURM_STEP_ID"]


def _directory(*identity: str) -> str:
    """`job:` and the directory's path. The host's name is part of it, as hosts may share a temporary directory."""
    digest = _digest(str(os.geteuid()), os.uname().nodename, *identity)
    return "job:" + os.path.join(os.path.abspath(tempfile.gettempdir()), f"collx-{digest}")


def _digest(*identity: str) -> str:
    return hashlib.blake2b("\0".join(identity).encode(), digest_size=8).hexdigest()
