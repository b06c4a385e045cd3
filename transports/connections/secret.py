"""The job's secret: 32 bytes that all its ranks know and nobody else. By it they prove to each other who they are.

It is in memory, in a file that only its user can read, or behind a descriptor; never in a command line, in the
environment itself or in a message.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Mapping

from collx.errors import BootstrapError

SECRET_BYTES = 32
FILE, DESCRIPTOR, INSECURE = "COLLX_SECRET_FILE", "COLLX_SECRET_FD", "COLLX_INSECURE"
KNOWN_TO_ALL = hashlib.sha256(b"collx: no secret").digest()  # COLLX_INSECURE=1: mistakes are still found, attacks not
FORMS = f"must hold {SECRET_BYTES} random bytes, or {2 * SECRET_BYTES} hexadecimal digits"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def new_secret() -> bytes:
    return os.urandom(SECRET_BYTES)


def lend_secret(secret: bytes) -> int:
    """A descriptor that started processes inherit, for COLLX_SECRET_FD to name; any number of them may read it. It is
    sealed memory, which nobody can change. The caller closes it."""
    fd = os.memfd_create("collx-secret", os.MFD_ALLOW_SEALING)  # not MFD_CLOEXEC
    os.write(fd, secret)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def find_secret(environ: Mapping[str, str]) -> bytes | None:
    """The secret that the environment leads to: by COLLX_SECRET_FD, the number of an inherited descriptor, or
    COLLX_SECRET_FILE, the path of a file with mode 0600. Under COLLX_INSECURE=1 one that everybody knows. None where
    there is none of these.

    The descriptor is not inherited any further afterwards. Raises BootstrapError for more than one of these, for a file
    that others may read, and for what is no secret; it never quotes the contents.
    """
    given = [name for name in (DESCRIPTOR, FILE) if environ.get(name)]
    given += [INSECURE] if environ.get(INSECURE, "0") not in ("", "0") else []
    if len(given) > 1:
        raise BootstrapError(f"{' and '.join(given)} are set, but a job has one secret; unset all but one")
    if not given:
        return None
    value = environ[given[0]]
    if given[0] == INSECURE:
        if value != "1":
            raise BootstrapError(f"{INSECURE} is {value!r}, but must be 1, for a job without a secret, or unset")
        return KNOWN_TO_ALL
    try:
        return _of_descriptor(value) if given[0] == DESCRIPTOR else _of_file(value)
    except OSError as error:
        raise BootstrapError(f"{given[0]} is {value!r}, which cannot be read: {error.strerror}") from None


def need_secret(environ: Mapping[str, str], rank: int) -> bytes:
    """As find_secret, but having none is a BootstrapError that tells the ways to give one."""
    secret = find_secret(environ)
    if secret is None:
        raise BootstrapError(
            f"rank {rank}: ranks talk across hosts only with a secret, and there is none: start them by `collx run"
            f" --secret-file FILE`, or set {FILE}, to a file of mode 0600 with the same {SECRET_BYTES} random bytes on"
            f" every host ({INSECURE}=1 goes without, where you trust everyone who can reach these hosts)"
        )
    return secret


def _of_descriptor(number: str) -> bytes:
    if not number.isascii() or not number.isdigit():
        raise BootstrapError(f"{DESCRIPTOR} is {number!r}, which is not the number of a descriptor")
    fd = int(number)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe could be read once only, and might never end
        raise BootstrapError(f"{DESCRIPTOR} is {fd}, which is not a file's; give one as in `{DESCRIPTOR}=3 ... 3<FILE`")
    secret = _read(fd, f"descriptor {fd} of {DESCRIPTOR}")
    os.set_inheritable(fd, False)
    return secret


def _of_file(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # whatever it turns out to be
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise BootstrapError(f"{FILE}: {path} is not a file")
        if state.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(state.st_mode) & 0o077:
            raise BootstrapError(f"{FILE}: others than this user can read {path}; make it yours, with `chmod 600`")
        return _read(fd, path)
    finally:
        os.close(fd)


def _read(fd: int, name: str) -> bytes:
    content = os.pread(fd, 4 * SECRET_BYTES, 0)  # wherever those who share the descriptor have read to
    if len(content) == SECRET_BYTES:
        return content
    try:
        secret = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise BootstrapError(f"{name} {FORMS} (as `head -c {SECRET_BYTES} /dev/urandom` prints)")
    return secret
