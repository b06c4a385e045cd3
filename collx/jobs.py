"""Where the ranks of a launcher's job meet on their host: a directory whose name all of them can tell, and nobody else
has. What identifies the job depends on the launcher."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import tempfile
from collections.abc import Mapping

from collx.errors import BootstrapError


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


def slurm(environ: Mapping[str, str]) -> str:
    """Slurm's numbers of job and step; a job that was put back into the queue has had them before."""
    restarts = environ.get("SLURM_RESTART_COUNT", "0")
    cluster = environ.get("SLURM_CLUSTER_NAME", "")
    return _directory("slurm", cluster, environ["SLURM_JOB_ID"], restarts, environ["SLURM_STEP_ID"])


def _directory(*identity: str) -> str:
    """`job:` and the directory's path. The host's name is part of it, as hosts may share a temporary directory."""
    parts = (str(os.geteuid()), os.uname().nodename, *identity)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    return "job:" + os.path.join(os.path.abspath(tempfile.gettempdir()), f"collx-{digest}")
